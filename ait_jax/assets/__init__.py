"""Files that ship with the package: the mini model's vocabulary and weights, the paper's curves."""

import json
from pathlib import Path
from typing import Any

_MINI = Path(__file__).resolve().parent / "mini"


def mini_vocabulary() -> str:
    """Returns the path of the mini model's SentencePiece model (byte fallback)."""
    return str(_MINI / "vocabulary.model")


def mini_weights() -> str:
    """Returns the path of the mini model's pre-trained weights (safetensors, bfloat16)."""
    return str(_MINI / "model.safetensors")


def paper_curves() -> dict[str, Any]:
    """Returns the curves that the paper published (Figure 3), as numbers: paper/curves.json."""
    return json.loads((Path(__file__).resolve().parent / "paper" / "curves.json").read_text())
