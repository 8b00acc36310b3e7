"""Files that ship with the package: the mini model's vocabulary and pre-trained weights."""

from pathlib import Path

_MINI = Path(__file__).resolve().parent / "mini"


def mini_vocabulary() -> str:
    """Returns the path of the mini model's SentencePiece model (byte fallback)."""
    return str(_MINI / "vocabulary.model")


def mini_weights() -> str:
    """Returns the path of the mini model's pre-trained weights (safetensors, bfloat16)."""
    return str(_MINI / "model.safetensors")
