"""TensorBoard: event files in the run directory, in T5X's folders where T5X has them.

TensorBoard renders text as markdown and lets some HTML through. Names, prompts and answers are
untrusted, so here they are escaped until they show as they are.
"""

import re
import struct
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ait_jax.errors import shown
from ait_jax.runtime import buckets, disk, files, strict_json
from ait_jax.summaries.writers import Rows

RUN_FOLDERS = ("rounds", "inference_eval")
_PNG = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPE_RGBA = 6
_FLUSH_SECONDS = 10.0  # the most that what is shown lags behind
# Every ASCII character that is no letter, digit or white space may mean something to markdown.
_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")
_LINE_ENDS = re.compile(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class TensorBoard:
    """Event files: `tensorboard --logdir MODEL_DIR`."""

    reads_events: ClassVar[bool] = True

    def begin(self, model_dir: Any) -> "_Session":
        """Opens a run directory: `Board.begin`."""
        return _Session(files.as_path(model_dir))


class _Session:
    """The event files of one run directory.

    `rounds/stages.json` names the stages whose points are in the run's own folders, and is
    written after them. Points without their stage are of a process that was killed in between:
    then these folders are rebuilt from the files that the stages left.
    """

    def __init__(self, model_dir: Any) -> None:
        self._model_dir = model_dir
        self._record = model_dir / RUN_FOLDERS[0] / "stages.json"
        self._stages: list[str] = []
        self._writers: dict[str, _Folder] = {}

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
            data = files.read_bytes(self._record)
            return strict_json.checked(strict_json.parse(data), list[str])
        except (FileNotFoundError, strict_json.Unfit):
            return []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield
        for writer in self._writers.values():
            writer.flush()
        self._stages.append(name)
        files.write_json(self._record, self._stages)

    def folder(self, name: str, last_step: int | None = None) -> "_Folder":
        if last_step is not None:
            return _Folder(self._model_dir / name, last_step + 1)
        if name not in self._writers:
            purge_step = None if self._stages else -1
            self._writers[name] = _Folder(self._model_dir / name, purge_step)
        return self._writers[name]

    def close(self, failed: bool) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class _Folder:
    """A folder of event files, a `SummaryWriter`; in a bucket they arrive with each `flush`.

    Args:
      path: the folder.
      purge_step: makes points of earlier files from this step on void; None keeps all.
    """

    def __init__(self, path: Any, purge_step: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self.path = path
        self._elsewhere = None if buckets.is_local(path) else tempfile.TemporaryDirectory()
        self._folder = Path(self._elsewhere.name if self._elsewhere else path)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Names are by the second; one that continues within it must not reopen the same file.
        # tensorboardX's SummaryWriter has a queue that its flush does not wait for.
        self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        self._flushed = time.monotonic()
        # Any: protobuf makes the classes when these are imported.
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        if purge_step is not None:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=purge_step, session_log=start)

    def scalar(self, name: str, value: float, step: int) -> None:
        from tensorboardX.summary import scalar

        self._add(scalar(_tag(name), value), step)

    def text(self, name: str, text: str, step: int) -> None:
        self._add_markdown(name, markdown_code(text), step)

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        self._add_markdown(name, markdown_table(columns, rows), step)

    def _add_markdown(self, name: str, source: str, step: int) -> None:
        from tensorboardX.summary import text

        self._add(text(_tag(name), source), step)

    def image(self, name: str, png: bytes, step: int) -> None:
        """Adds a picture with the file's own bytes. Raises ValueError: not a PNG."""
        if png[:8] != _PNG or len(png) < 26:
            raise ValueError(f"the picture {shown(name)} is not a PNG file")
        width, height = struct.unpack(">II", png[16:24])
        summary = self._summaries.Summary
        image = summary.Image(
            height=height,
            width=width,
            colorspace=4 if png[25] == _COLOR_TYPE_RGBA else 3,
            encoded_image_string=png,
        )
        self._add(summary(value=[summary.Value(tag=_tag(name), image=image)]), step)

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        from tensorboardX.summary import hparams

        for summary in hparams(dict(values), dict.fromkeys(metrics, 0.0)):
            self._add(summary, None)

    def _add(self, summary: Any, step: int | None) -> None:
        self._write(step=step, summary=summary)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _write(self, **what: Any) -> None:
        with disk.writing(self.path):
            self._writer.write_event(self._events.Event(wall_time=time.time(), **what))

    def flush(self) -> None:
        with disk.writing(self.path):
            self._writer.flush()
        if self._elsewhere:
            for file in sorted(self._folder.iterdir()):
                buckets.upload(file, self.path / file.name)

    def close(self) -> None:
        self.flush()
        with disk.writing(self.path):
            self._writer.close()
        if self._elsewhere:
            self._elsewhere.cleanup()


def _tag(name: str) -> str:
    """Returns a name with only the characters TensorBoard takes, so that tensorboardX is quiet."""
    return re.sub(r"[^-/\w.]+", "_", name, flags=re.ASCII)


def _escape(text: str) -> str:
    """Returns one line of markdown: special characters as entities, line ends as `<br>`."""
    lines = _LINE_ENDS.split(_printable(str(text)))
    return "<br>".join(_SPECIAL.sub(lambda m: f"&#{ord(m[0])};", line).strip() for line in lines)


def markdown_code(text: str) -> str:
    """Returns markdown that shows lines as they are: a block of code needs no escapes."""
    return "\n".join(f"    {line}" for line in _LINE_ENDS.split(_printable(text)))


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """Returns a markdown table that shows its cells as they are."""
    empty = [""] * len(columns)
    lines = [[*map(_escape, row), *empty[len(row) :]] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(columns))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _printable(text: str) -> str:
    """Replaces what protocol buffers and HTML cannot hold."""
    return _CONTROL.sub("\ufffd", text).encode("utf-8", "replace").decode()
