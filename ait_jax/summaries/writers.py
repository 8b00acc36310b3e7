"""All summaries of a run together: one that fails is left out, and the run goes on."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ait_jax.errors import UserError
from ait_jax.runtime import distributed, files
from ait_jax.summaries.interface import Board, Session, SummaryWriter


class Summaries:
    """The boards of one run directory; in processes that do not write files there are none.

    Args:
      boards: what gin names (SUMMARIES).
      model_dir: local or in a bucket.
      report: takes lines for the terminal.
      stages: of the run that are finished.
    """

    def __init__(
        self,
        boards: Sequence[Board],
        model_dir: Any,
        report: Callable[[str], None] = print,
        stages: Collection[str] = (),
    ) -> None:
        self._model_dir = files.as_path(model_dir)
        self._boards: list[_Guarded] = []
        self._written: dict[_Guarded, set[str]] = {}
        self._stages = tuple(stages)
        for board in boards if distributed.is_writer() else ():
            guarded = _Guarded(board, report)
            guarded.session = guarded.attempt(lambda: board.begin(self._model_dir, report))
            self._boards.append(guarded)
            self._ask(guarded)

    def __enter__(self) -> "Summaries":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(failed=error is not None)

    def start(self) -> None:
        """Call it where there is something left to do: mistakes in the settings are told now.

        Raises:
          UserError: such a mistake.
        """
        for board in self._boards:
            board.attempt(board.session.start)
            self._ask(board)  # the other side may know now what it lacks

    def _ask(self, board: "_Guarded") -> None:
        written = board.attempt(lambda: board.session.written(self._stages))
        self._written[board] = set(written or ())

    def stage(self, name: str, write: Callable[[Callable[[str], SummaryWriter]], None]) -> None:
        """Calls `write` for every board that has not got this stage's points yet.

        Args:
          write: gets a function from a folder of the run to its writer.
        """
        for board in self._boards:
            if name not in self._written[board]:
                self._written[board].add(name)
                board.attempt(lambda: _write_stage(board.session, name, write))

    def folder(self, path: Any, last_step: int, has_events: bool = False) -> SummaryWriter:
        """Returns the writer of a training's folder.

        Args:
          path: below `model_dir`.
          last_step: that the training goes on from; -1 for one that begins.
          has_events: leave out boards that show the events of T5X, which writes its own there.
        """
        name = str(files.absolute(path)).removeprefix(f"{files.absolute(self._model_dir)}/")
        boards = [board for board in self._boards if not (has_events and board.reads_events)]
        return _Folder([(b, b.attempt(lambda: b.session.folder(name, last_step))) for b in boards])

    def close(self, failed: bool = False) -> None:
        for board in self._boards:
            board.attempt(lambda: board.session.close(failed))
        self._boards = []


def _write_stage(session: Session, name: str, write: Callable) -> None:
    with session.stage(name):
        write(session.folder)


class _Guarded:
    """A board until it fails."""

    def __init__(self, board: Board, report: Callable[[str], None]) -> None:
        self.name = type(board).__name__
        self.reads_events = board.reads_events
        self.session: Any = None
        self._report, self._failed = report, False

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Returns what `work` returns; None, and a line the first time, where it fails.

        Raises:
          UserError: the user's mistake, which is none of the network's.
        """
        if self._failed:
            return None
        try:
            return work()
        except UserError:
            raise
        except Exception as error:  # each library has kinds of its own
            self._failed = True
            line = (str(error).splitlines() or [""])[0][:300]
            self._report(
                f"{self.name} gets no more summaries of this process, which goes on without: "
                f"{type(error).__name__}: {line}"
            )
            return None


class _Folder:
    """A folder's writers on all boards."""

    def __init__(self, writers: list[tuple[_Guarded, Any]]) -> None:
        self._writers = writers

    def _each(self, method: str, *arguments: Any) -> None:
        for board, writer in self._writers:
            board.attempt(lambda: getattr(writer, method)(*arguments))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._each("scalar", name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        self._each("text", name, text, step)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None:
        self._each("table", name, columns, rows, step)

    def image(self, name: str, png: bytes, step: int) -> None:
        self._each("image", name, png, step)

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        self._each("hyperparameters", values, metrics)

    def flush(self) -> None:
        self._each("flush")

    def close(self) -> None:
        self._each("close")
