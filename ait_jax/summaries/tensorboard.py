"""TensorBoard: event files in the run directory, in T5X's folders where it has such."""

import json
import re
import struct
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ait_jax.runtime import buckets, files
from ait_jax.summaries import markdown

RUN_FOLDERS = ("rounds", "inference_eval")
_PNG = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPE_RGBA = 6
_FLUSH_SECONDS = 10.0  # what is seen is at most so old


@dataclass(frozen=True)
class TensorBoard:
    """Event files: `tensorboard --logdir MODEL_DIR`."""

    reads_events: ClassVar[bool] = True

    def begin(self, model_dir: Any, report: Callable[[str], None]) -> "_Session":
        return _Session(files.as_path(model_dir))


class _Session:
    """The event files of one run directory.

    `rounds/stages.json` names the stages whose points are in the run's own folders, and is
    written after them. Points that no stage of it accounts for are of a process that was killed
    meanwhile: then these folders are made anew, from what the stages left.
    """

    def __init__(self, model_dir: Any) -> None:
        self._model_dir = model_dir
        self._record = model_dir / RUN_FOLDERS[0] / "stages.json"
        self._stages: list[str] = []
        self._writers: dict[str, EventsFolder] = {}

    def start(self) -> None:
        pass

    def written(self, stages: Collection[str]) -> Collection[str]:
        self._stages = self._read()
        if not set(stages) <= set(self._stages):
            for name in RUN_FOLDERS:
                files.remove_tree(self._model_dir / name)
            self._stages = []
        return tuple(self._stages)

    def _read(self) -> list[str]:
        try:
            stages = json.loads(files.read_text(self._record))
        except (FileNotFoundError, ValueError):
            return []
        return stages if isinstance(stages, list) else []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield
        for writer in self._writers.values():
            writer.flush()
        self._stages.append(name)
        files.write_json(self._record, self._stages)

    def folder(self, name: str, last_step: int | None = None) -> "EventsFolder":
        if last_step is not None:
            return EventsFolder(self._model_dir / name, last_step + 1)
        if name not in self._writers:
            purge_step = None if self._stages else -1
            self._writers[name] = EventsFolder(self._model_dir / name, purge_step)
        return self._writers[name]

    def close(self, failed: bool) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class EventsFolder:
    """A folder of event files, which a bucket gets whenever `flush` is called.

    Args:
      path: the folder.
      purge_step: points of earlier files from this step on are void; None leaves them be.
    """

    def __init__(self, path: Any, purge_step: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self.path = path
        self._elsewhere = None if buckets.is_local(path) else tempfile.TemporaryDirectory()
        self._folder = Path(self._elsewhere.name if self._elsewhere else path)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Names are by the second: a process that goes on within it must not meet its own file.
        # tensorboardX's SummaryWriter has a queue that its flush does not wait for.
        self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        self._flushed = time.monotonic()
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=purge_step, session_log=start)
            self._writer.write_event(event)

    def scalar(self, name: str, value: float, step: int) -> None:
        from tensorboardX.summary import scalar

        self._add(scalar(_tag(name), value), step)

    def text(self, name: str, text: str, step: int) -> None:
        self._add_markdown(name, markdown.code(text), step)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        self._add_markdown(name, markdown.table(columns, rows), step)

    def _add_markdown(self, name: str, source: str, step: int) -> None:
        from tensorboardX.summary import text

        self._add(text(_tag(name), source), step)

    def image(self, name: str, png: bytes, step: int) -> None:
        """Writes the file's own bytes. Raises ValueError: not a PNG."""
        from tensorboardX.proto.summary_pb2 import Summary

        if png[:8] != _PNG or len(png) < 26:
            raise ValueError(f"the picture {name!r} is not a PNG file")
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=4 if png[25] == _COLOR_TYPE_RGBA else 3,
            encoded_image_string=png,
        )
        self._add(Summary(value=[Summary.Value(tag=_tag(name), image=image)]), step)

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        from tensorboardX.summary import hparams

        for summary in hparams(dict(values), dict.fromkeys(metrics, 0.0)):
            self._add(summary, None)

    def _add(self, summary: Any, step: int | None) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def flush(self) -> None:
        self._writer.flush()
        if self._elsewhere:
            for file in sorted(self._folder.iterdir()):
                buckets.upload(file, self.path / file.name)

    def close(self) -> None:
        self.flush()
        self._writer.close()
        if self._elsewhere:
            self._elsewhere.cleanup()


def _tag(name: str) -> str:
    """Returns a name of the characters that TensorBoard takes, so that tensorboardX is quiet."""
    return re.sub(r"[^-/\w.]+", "_", name, flags=re.ASCII)
