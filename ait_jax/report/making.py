"""report.html of a run directory: read, put together, written whole."""

import os
from pathlib import Path
from typing import Any

from ait_jax.report import page, settings
from ait_jax.report.payload import payload_and_details
from ait_jax.report.run_files import RunFiles
from ait_jax.report.settings import Settings
from ait_jax.runtime import buckets, files

NAME = "report.html"
DETAIL_MEGABYTES = 12.0


def make(
    model_dir: Any,
    known: Settings | None = None,
    *,
    out: Any = None,
    detail_megabytes: float = DETAIL_MEGABYTES,
    price_per_device_hour: float | None = None,
) -> Any:
    """Writes the report of a run, finished or not, and returns where it is.

    Nothing else is written, and the run's lock is not taken.

    Args:
      model_dir: of `ait-jax run` or `ait-jax score`.
      known: the settings of a run at work; None reads them from config.gin.
      out: the file to write; None is report.html in `model_dir`.
      detail_megabytes, price_per_device_hour: as of `payload_and_details`.

    Raises:
      UserError: no run directory, a damaged file, or `out` cannot be written.
    """
    run = RunFiles(model_dir)
    if known is None:
        known = settings.of_config(run.config, run.state["seed"])
    payload, details = payload_and_details(
        run,
        known,
        title=str(model_dir),
        detail_megabytes=detail_megabytes,
        price_per_device_hour=price_per_device_hour,
    )
    path = files.as_path(out) if out is not None else run.path / NAME
    _write(path, page.render(payload, details))
    return path


def _write(path: Any, text: str) -> None:
    """Writes the page whole; a run and a command may both do that at once."""
    if not buckets.is_local(path):
        files.write_text(path, text, any_process=True)
        return
    temporary = Path(path).with_name(f".tmp-{os.getpid()}-{path.name}")
    files.write_text(temporary, text, any_process=True)
    temporary.replace(path)
