"""Small files that hosts share: statuses, reports, logs, in a bucket or a common folder."""

import json
from typing import Any

from ait_jax.runtime import files


def status_path(folder: Any, host: int) -> Any:
    return files.as_path(folder) / "status" / f"host_{host}.json"


def report_path(folder: Any, host: int) -> Any:
    return files.as_path(folder) / "preflight" / f"host_{host}.json"


def log_path(folder: Any, host: int) -> Any:
    return files.as_path(folder) / "logs" / f"host_{host}.log"


def write(path: Any, value: dict) -> None:
    """Writes one line of JSON, so that files read one after the other stay apart."""
    files.write_text(path, json.dumps(value, sort_keys=True) + "\n")


def read(path: Any) -> dict | None:
    """Returns what `write` wrote; None where nothing is, or nothing whole."""
    try:
        value = json.loads(files.read_text(path))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def modified(path: Any) -> float:
    """Returns when `path` was written by the clock of who keeps it, in seconds since 1970."""
    stat = path.stat()
    return float(getattr(stat, "st_mtime", None) or stat.mtime)
