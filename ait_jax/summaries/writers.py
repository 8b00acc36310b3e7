"""Where summaries go: what a board must offer, and all boards of a run as one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partialmethod
from operator import methodcaller
from typing import Any, ClassVar, Protocol, Self, TypeAlias, cast, runtime_checkable

from ait_jax.errors import UserError, first_line
from ait_jax.runtime import distributed, files, reporter

Rows: TypeAlias = Sequence[Sequence[str]]


@runtime_checkable
class SummaryWriter(Protocol):
    """A folder of summaries: `name` is a curve, picture or text, `step` its place on the axis.

    All text is plain; a board that shows it as markup escapes it.
    """

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to a curve."""

    def text(self, name: str, text: str, step: int) -> None:
        """Adds lines, to be shown as they are."""

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Adds a table; a row may be shorter than `columns`."""

    def image(self, name: str, png: bytes, step: int) -> None:
        """Adds a picture, a whole PNG file."""

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        """Adds what distinguishes this run, and the names of the curves that judge it."""

    def flush(self) -> None:
        """Makes everything so far survive the end of this process."""

    def close(self) -> None:
        """Flushes; nothing comes after it."""


@runtime_checkable
class Session(Protocol):
    """One process's work for one run directory.

    A run has two kinds of folders. A training's (`round_000/train`) counts steps, and continues
    from its last checkpoint. The run's own (`rounds`, `inference_eval/test`) count rounds, and get
    all points of a stage together, within `stage`.
    """

    def start(self) -> None:
        """Announces that something will come, so that mistakes in the settings show now.

        Raises:
          UserError: such a mistake.
        """

    def written(self, stages: Collection[str]) -> Collection[str]:
        """Returns which of the run's finished stages this board already has."""
        ...

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Encloses the writing of a stage's points, which count only if the block succeeds."""
        ...

    def folder(self, name: str, last_step: int | None = None) -> SummaryWriter:
        """Returns a folder's writer.

        Args:
          name: such as "round_000/train".
          last_step: of a training: points of earlier attempts after it are void. None for a folder
            of the run.
        """
        ...

    def close(self, failed: bool) -> None:
        """Ends the session; `failed` says whether by an error."""


@runtime_checkable
class Board(Protocol):
    """A place that summaries go to, as gin names it: a frozen dataclass of settings."""

    reads_events: ClassVar[bool]  # whether it shows what T5X writes by itself

    def begin(self, model_dir: Any) -> Session:
        """Opens a run directory, a path that may be in a bucket; in one process only."""
        ...


class Summaries:
    """The boards of one run directory; a board that fails is dropped, and the run continues.

    Processes that do not write files have no boards.

    Args:
      boards: as gin names them (SUMMARIES).
      model_dir: local or in a bucket.
      stages: the run's finished ones.
    """

    def __init__(
        self, boards: Sequence[Board], model_dir: Any, stages: Collection[str] = ()
    ) -> None:
        self._model_dir = files.as_path(model_dir)
        self._stages = tuple(stages)
        chosen = boards if distributed.is_writer() else ()
        self._boards = [_Guarded(board, self._model_dir) for board in chosen]
        self._ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(failed=error is not None)

    def start(self) -> None:
        """Starts the boards; call it if there is something left to do.

        Raises:
          UserError: a mistake in the settings.
        """
        for board in self._boards:
            board.attempt(methodcaller("start"), board.session)
        self._ask()  # by now the other side may know what it lacks

    def _ask(self) -> None:
        for board in self._boards:
            written = board.attempt(methodcaller("written", self._stages), board.session)
            board.written = set(written or ())

    def stage(self, name: str, write: Callable[[Callable[[str], SummaryWriter]], None]) -> None:
        """Calls `write` for every board that lacks this stage's points.

        Args:
          write: gets a function from a folder of the run to its writer.
        """
        for board in self._boards:
            if name not in board.written:
                board.written.add(name)
                board.attempt(_write_stage, board.session, name, write)

    def folder(self, path: Any, last_step: int, has_events: bool = False) -> SummaryWriter:
        """Returns the writer of a training's folder.

        Args:
          path: below `model_dir`.
          last_step: that the training continues from; -1 for a new one.
          has_events: skip boards that show the events of T5X, which writes its own there.
        """
        name = str(files.absolute(path)).removeprefix(f"{files.absolute(self._model_dir)}/")
        boards = [board for board in self._boards if not (has_events and board.reads_events)]
        opened = methodcaller("folder", name, last_step)
        writers = [(board, board.attempt(opened, board.session)) for board in boards]
        return cast(SummaryWriter, _Folder(writers))

    def close(self, failed: bool = False) -> None:
        """Ends all sessions; `failed` says whether by an error."""
        for board in self._boards:
            board.attempt(methodcaller("close", failed), board.session)
        self._boards = []


def _write_stage(
    session: Session, name: str, write: Callable[[Callable[[str], SummaryWriter]], None]
) -> None:
    with session.stage(name):
        write(session.folder)


class _Guarded:
    """A board until it fails."""

    def __init__(self, board: Board, model_dir: Any) -> None:
        self.name, self.reads_events = type(board).__name__, board.reads_events
        self.written: set[str] = set()
        self._failed = False
        self.session: Any = self.attempt(board.begin, model_dir)

    def attempt(self, work: Callable[..., Any], *given: Any) -> Any:
        """Returns `work(*given)`; None if it fails.

        The first failure prints a line.

        Raises:
          UserError: a mistake of the user's, unlike a failing network.
        """
        if self._failed:
            return None
        try:
            return work(*given)
        except UserError:
            raise
        except Exception as error:  # each library has its own kinds
            self._failed = True
            reporter.say(
                f"{self.name} gets no more summaries from this process, which continues without: "
                f"{type(error).__name__}: {first_line(error)}"
            )
            return None


class _Folder:
    """A folder's writers on all boards: what is called on it is called on each."""

    def __init__(self, writers: list[tuple[_Guarded, Any]]) -> None:
        self._writers = writers

    def _each(self, method: str, *given: Any) -> None:
        for board, writer in self._writers:
            board.attempt(methodcaller(method, *given), writer)

    scalar = partialmethod(_each, "scalar")
    text = partialmethod(_each, "text")
    table = partialmethod(_each, "table")
    image = partialmethod(_each, "image")
    hyperparameters = partialmethod(_each, "hyperparameters")
    flush = partialmethod(_each, "flush")
    close = partialmethod(_each, "close")
