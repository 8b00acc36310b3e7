"""What a place that summaries go to must offer: TensorBoard, Weights & Biases, a user's own."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class SummaryWriter(Protocol):
    """One folder of summaries: `name` is a curve, a picture, a text; `step` its place on the axis.

    All text is plain: whoever shows it as markup escapes it.
    """

    def scalar(self, name: str, value: float, step: int) -> None: ...

    def text(self, name: str, text: str, step: int) -> None:
        """Takes lines that are shown as they are."""

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
    ) -> None: ...

    def image(self, name: str, png: bytes, step: int) -> None: ...

    def hyperparameters(
        self, values: Mapping[str, str | int | float], metrics: Sequence[str]
    ) -> None:
        """Takes what tells this run from others, and the names of the curves that judge it."""

    def flush(self) -> None:
        """Returns when what was given so far will survive the end of this process."""

    def close(self) -> None: ...


class Session(Protocol):
    """One process's work for one run directory.

    A run has folders of two kinds. A training (`round_000/train`) counts its steps, and goes on
    from its last checkpoint. The run's own folders (`rounds`, `inference_eval/test`) count rounds,
    and get all points of a stage of the run together, within `stage`.
    """

    def start(self) -> None:
        """Says that something will come: a mistake in the settings is told now.

        Raises:
          UserError: such a mistake.
        """

    def written(self, stages: Collection[str]) -> Collection[str]:
        """Returns which of the run's finished stages need not be told again."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Within it the points of a stage are written; it does not count unless it ends well."""

    def folder(self, name: str, last_step: int | None = None) -> SummaryWriter:
        """Returns a folder's writer.

        Args:
          name: "round_000/train", for example.
          last_step: of a training: what an earlier attempt wrote after it is void. None is a
            folder of the run.
        """

    def close(self, failed: bool) -> None: ...


class Board(Protocol):
    """A place that summaries go to, as gin names it: a frozen dataclass with settings.

    Attributes:
      reads_events: whether it shows what T5X writes by itself.
    """

    reads_events: bool

    def begin(self, model_dir: Any, report: Any) -> Session:
        """Opens a run directory, a path that may be in a bucket; in one process only.

        Args:
          report: takes lines for the terminal.
        """
