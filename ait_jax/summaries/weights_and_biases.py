"""Weights & Biases: one W&B run per run directory, resumed by every process that continues it.

Rows that W&B has cannot be taken back, so `MODEL_DIR/wandb/ait_jax.jsonl` says which were sent, and
is written before they are. Rows lost in a kill are sent again: W&B's server says how many it has,
an offline run's files say which.
"""

import importlib.util
import io
import json
import secrets
import struct
import tempfile
import time
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from ait_jax.errors import UserError, first_line, nearest, shown, shown_path
from ait_jax.runtime import buckets, files, reporter, strict_json
from ait_jax.runtime.files import LinesFile
from ait_jax.summaries.writers import Rows, SummaryWriter

MODES = ("online", "offline")
# A run waits no longer at its end for a network that is gone; `wandb sync` sends the rest.
_FINISH_SECONDS = 300.0
# W&B's files are logs in LevelDB's format, after a header.
_HEADER, _BLOCK, _RECORD_HEADER = 7, 32768, struct.Struct("<IHB")
_WHOLE, _LAST = 1, 4


@dataclass(frozen=True)
class WeightsAndBiases:
    """Rows, tables and pictures for wandb.ai or your own server (WANDB_BASE_URL).

    The key comes from the environment (WANDB_API_KEY) or from `wandb login`.

    Args:
      project, entity: where the run appears; without an entity, in the account's own.
      mode: "online", "offline" (MODEL_DIR/wandb only, for `wandb sync`), or None: the environment
        variable WANDB_MODE, else online.
      name: of the run; None is the last part of MODEL_DIR.
      group: of runs that belong together.

    Raises:
      UserError: wandb is not installed, or an unknown mode.
    """

    project: str = "ait-jax"
    entity: str | None = None
    mode: str | None = None
    name: str | None = None
    group: str | None = None

    reads_events: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise UserError(
                f"WeightsAndBiases.mode (WANDB_MODE) = {shown(self.mode)} must be one of {MODES}."
                + nearest(self.mode, MODES)
            )
        if not is_installed():
            raise UserError(
                "summaries.WeightsAndBiases needs the package wandb: pip install 'ait-jax[wandb]' "
                "(or leave out --gin_file=summaries/wandb.gin)."
            )

    def begin(self, model_dir: Any) -> "_Session":
        """Opens a run directory: `Board.begin`."""
        return _Session(self, files.as_path(model_dir))


def is_installed() -> bool:
    """Says whether wandb can be imported."""
    spec = importlib.util.find_spec("wandb")
    # W&B leaves folders of its name behind, which have no origin.
    return spec is not None and spec.origin is not None


class _Line(TypedDict, total=False):
    id: str
    row: int
    stage: str
    folder: str
    step: int


class _Record:
    """What was sent, as lines: the run's id, then {"row", "stage"} or {"row", "folder", "step"}.

    `id` is the W&B run's, drawn once; `rows` is the number of the next row.
    """

    def __init__(self, path: Any) -> None:
        self._file = LinesFile(path)
        data = "\n".join(self._file.read()).encode()
        remedy = "delete that file to begin another W&B run"
        # A line that a crash cut is of a row that was not sent.
        self._lines: list[Any] = list(strict_json.lines(data, _Line, path, remedy))
        self._lines = self._lines or [{"id": secrets.token_hex(8)}]
        if "id" not in self._lines[0]:
            raise UserError(f"{shown_path(path)} is damaged; {remedy}.")
        self.id: str = self._lines[0]["id"]
        self.rows = 1 + max((line.get("row", -1) for line in self._lines[1:]), default=-1)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(line["stage"] for line in self._lines if "stage" in line)

    def last_step(self, folder: str) -> int:
        """Returns a training's last step that was sent, -1 if none was."""
        sent = (line["step"] for line in reversed(self._lines) if line.get("folder") == folder)
        return next(sent, -1)

    def begin(self, arrived: Container[int]) -> None:
        """Writes the file without the rows that did not arrive.

        Their numbers are not used again: W&B takes rows only in ascending order.
        """
        first, *rows = self._lines
        self._lines = [first, *(line for line in rows if line["row"] in arrived)]
        self._file.replace([json.dumps(line) for line in self._lines])

    def add(self, **what: Any) -> int:
        """Adds a row; returns its number, to send it with."""
        line = {"row": self.rows, **what}
        self._lines.append(line)
        self._file.add(json.dumps(line))
        self._file.flush()
        self.rows += 1
        return line["row"]


class _Session:
    """The W&B run of one run directory, begun when there is something to send."""

    def __init__(self, settings: WeightsAndBiases, model_dir: Any) -> None:
        self._settings, self._model_dir = settings, model_dir
        self._run: Any = None
        self._elsewhere = None if buckets.is_local(model_dir) else tempfile.TemporaryDirectory()
        self._known: set[str] = set()
        self._stage_row: dict[str, Any] = {}
        self.record = _Record(model_dir / "wandb" / "ait_jax.jsonl")
        # A bucket cannot be written to at every row.
        self.waits = self._elsewhere is not None

    @property
    def run(self) -> Any:
        if self._run is None:
            self.start()
        return self._run

    def start(self) -> None:
        if self._run is not None:
            return
        self._run = _begin(self._settings, self.record.id, self._model_dir, self._folder)
        self.record.begin(self._arrived())
        offline = f"offline, in {self._model_dir / 'wandb'}"
        reporter.say(f"Weights & Biases: {offline if self._run.offline else self._run.url}")

    def _arrived(self) -> Container[int]:
        if not self._run.offline:
            return range(self._run.step)
        try:
            rows = read_offline_rows(self._model_dir / "wandb", self.record.id)
        except Exception:  # W&B's own format, which may have changed
            return range(self.record.rows)
        return {row["_step"] for row in rows}

    @property
    def _folder(self) -> Path:
        return Path(self._elsewhere.name if self._elsewhere else self._model_dir).absolute()

    def written(self, stages: Collection[str]) -> Collection[str]:
        return self.record.stages

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        run = self.run
        self._stage_row = {}
        yield
        run.log(self.named(self._stage_row, "round"), step=self.record.add(stage=name))
        self.upload()

    def folder(self, name: str, last_step: int | None = None) -> SummaryWriter:
        if last_step is None:
            return _RunFolder(self, name, self._stage_row)
        return _TrainingFolder(self, name)

    def named(self, row: dict[str, Any], axis: str) -> dict[str, Any]:
        """Returns `row`; tells W&B the x axis of names that are new to it."""
        for name in row.keys() - self._known - {axis}:
            self.run.define_metric(name, step_metric=axis)
        self._known |= row.keys()
        return row

    def upload(self) -> None:
        """Copies what an offline run has written so far to a bucket."""
        if self._elsewhere is None or self._run is None or not self._run.offline:
            return
        for file in sorted(self._folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                buckets.upload(file, self._model_dir / str(file.relative_to(self._folder)))

    def close(self, failed: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            if self._elsewhere:
                _wait_until_written(self._folder)
            self.upload()
        if self._elsewhere:
            self._elsewhere.cleanup()


def _begin(chosen: WeightsAndBiases, id: str, model_dir: Any, folder: Path) -> Any:
    """Returns the W&B run, new or resumed."""
    import wandb

    settings: dict[str, Any] = {"console": "off", "silent": True}
    if "finish_timeout" in getattr(wandb.Settings, "model_fields", ()):
        settings["finish_timeout"] = _FINISH_SECONDS
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=chosen.project,
            entity=chosen.entity,
            name=chosen.name or files.absolute(model_dir).name,
            group=chosen.group,
            mode=chosen.mode,
            id=id,
            resume="allow",
            dir=str(folder),
            settings=wandb.Settings(**settings),
        )
    except wandb.errors.UsageError as error:
        raise UserError(
            f"Weights & Biases: {first_line(error)} Or set --gin.WANDB_MODE=offline and "
            "run `wandb sync` later."
        ) from error


def _wait_until_written(folder: Path) -> None:
    """Returns when the files stop growing: W&B's own process writes them a moment later."""
    before = -1
    for _ in range(40):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size == before:
            return
        before = size
        time.sleep(0.25)


class _Folder:
    """Turns what a `SummaryWriter` gets into values of rows, named after the folder."""

    def __init__(self, session: _Session, prefix: str) -> None:
        self._session, self._prefix = session, prefix

    def _put(self, name: str, value: Any, step: int) -> None:
        raise NotImplementedError

    def scalar(self, name: str, value: float, step: int) -> None:
        self._put(name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        self.table(name, ["text"], [[text]], step)

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        import wandb

        texts = [[str(cell) for cell in row] for row in rows]
        filled = [row + [""] * (len(columns) - len(row)) for row in texts]
        self._put(name, wandb.Table(columns=list(columns), data=filled), step)

    def image(self, name: str, png: bytes, step: int) -> None:
        import PIL.Image
        import wandb

        self._put(name, wandb.Image(PIL.Image.open(io.BytesIO(png))), step)

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        self._session.run.config.update(dict(values), allow_val_change=True)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.flush()


class _RunFolder(_Folder):
    """A folder of the run: the points of a stage from all folders make one row."""

    def __init__(self, session: _Session, name: str, row: dict[str, Any]) -> None:
        super().__init__(session, f"{name}/")
        self._row = row

    def _put(self, name: str, value: Any, step: int) -> None:
        self._row |= {f"{self._prefix}{name}": value, "round": step}


class _TrainingFolder(_Folder):
    """A training: one row per step, sent when the next one begins.

    "round_000/train" has names such as round_000/train/loss and round_000/dev/rougeL.
    """

    def __init__(self, session: _Session, name: str) -> None:
        super().__init__(session, name.removesuffix("train").rstrip("/") + "/")
        self._name, self._axis = name, f"{self._prefix}step"
        self._step: int | None = None
        self._row: dict[str, Any] = {}
        self._waiting: list[tuple[int, dict[str, Any]]] = []

    def _put(self, name: str, value: Any, step: int) -> None:
        self._session.start()  # W&B may say that it lacks rows
        if step <= self._session.record.last_step(self._name):
            return  # an earlier process sent it
        if step != self._step:
            self._end_row()
            if not self._session.waits:
                self._send()
            self._step = step
        self._row[f"{self._prefix}{name}"] = value

    def _end_row(self) -> None:
        if self._row and self._step is not None:
            self._waiting.append((self._step, {**self._row, self._axis: self._step}))
        self._row = {}

    def _send(self) -> None:
        for step, row in self._waiting:
            number = self._session.record.add(folder=self._name, step=step)
            self._session.run.log(self._session.named(row, self._axis), step=number)
        self._waiting = []

    def flush(self) -> None:
        self._end_row()
        self._send()
        self._session.upload()


def read_offline_rows(folder: Any, run_id: str) -> list[dict[str, Any]]:
    """Returns the rows in an offline run's files in `folder`; nested names are joined by "/".

    W&B writes late, and a kill loses the rest. Errors are of many kinds if W&B has changed its
    format.
    """
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted(folder.glob(f"offline-run-*/run-{run_id}.wandb")):
        for data in _log_records(files.read_bytes(path)):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                row = record.history.item
                rows.append(
                    {v.key or "/".join(v.nested_key): json.loads(v.value_json) for v in row}
                )
    return rows


def _log_records(data: bytes) -> Iterator[bytes]:
    """Yields the records of a LevelDB log, without one that was cut short."""
    position, parts = _HEADER, []
    while position + _RECORD_HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _RECORD_HEADER.size:
            position += left
            continue
        _, length, kind = _RECORD_HEADER.unpack_from(data, position)
        position += _RECORD_HEADER.size
        if position + length > len(data):
            return
        parts.append(data[position : position + length])
        position += length
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts = []
