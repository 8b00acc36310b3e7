"""A growth that a scored round steers: what comes first, what is left out, and how that is told."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.grown_pool import GrownPool
from ait_jax.tasks.grow.steering import Estimate, read_steering
from ait_jax.tasks.grow.tally import Tally

_STAGE = "steering"
_SHOWN, _REPORTED = 10, 100
T = TypeVar("T")


class Steered:
    """Puts datasets in the order of the prompt uncertainty expected of their tasks.

    Args:
      folder: of a scored round; see `read_steering`.
      pool: that is to grow.
      only: leave out what is no more sensitive than the average.
    """

    def __init__(self, folder: Any, pool: GrownPool, only: bool) -> None:
        self._folder, self._only = Path(folder), only
        self._steering, self._num_unknown = read_steering(folder, pool.entries)
        self._ranked: dict[str, Estimate] = {}

    def sort(self, items: Iterable[T], dataset_of: Callable[[T], Dataset], tally: Tally) -> list[T]:
        """Returns the items, the most prompt-sensitive datasets first; equal ones by name."""
        estimates = []
        for place, item in enumerate(items):
            dataset = dataset_of(item)
            estimate = self._steering.estimate(dataset)
            if self._only and not self._steering.is_sensitive(estimate):
                tally.add(
                    _STAGE, "left out: no more prompt-sensitive than the average", dataset.name
                )
                continue
            tally.add(_STAGE, f"ranked by {estimate.evidence}", dataset.name)
            estimates.append((-estimate.uncertainty, dataset.name, place, item, estimate))
        estimates.sort(key=lambda row: row[:3])
        for _, name, _, _, estimate in estimates:
            self._ranked.setdefault(name, estimate)
        return [row[3] for row in estimates]

    def to_json(self) -> dict[str, Any]:
        """Returns what stands in the report: the first datasets and why they are."""
        steering = self._steering
        return {
            "scored_tasks": len(steering.scored),
            "scored_tasks_of_other_pools": self._num_unknown,
            "mean_uncertainty": steering.mean,
            "datasets": [
                {
                    "dataset": name,
                    "uncertainty": estimate.uncertainty,
                    "evidence": estimate.evidence,
                    "ambiguous": estimate.num_ambiguous,
                    "tasks": [task.entry.task.name for task in estimate.tasks],
                }
                for name, estimate in list(self._ranked.items())[:_REPORTED]
            ],
        }

    def describe(self) -> str:
        """Returns the same as lines for the terminal."""
        steering = self._steering
        other = f" ({self._num_unknown:,} more are of other pools)" if self._num_unknown else ""
        lines = [
            f"steered by {self._folder}: {len(steering.scored):,} scored tasks of this pool{other}, mean "
            f"prompt uncertainty {steering.mean:.3f}",
            "uncertainty  dataset, because of",
        ]
        for name, estimate in list(self._ranked.items())[:_SHOWN]:
            lines.append(f"{estimate.uncertainty:11.3f}  {name}: {estimate.describe()}")
        more = len(self._ranked) - _SHOWN
        return "\n".join([*lines, *([f"{'':11}  and {more:,} more"] if more > 0 else [])])
