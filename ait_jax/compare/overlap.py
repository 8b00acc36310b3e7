"""How much selections overlap with each other, and how much random ones would.

The overlap of two sets is their Jaccard index, |A and B| / |A or B|.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown
from ait_jax.pool.splits import read_names
from ait_jax.runtime import files

# The authors' folder names -> our names of the strategies.
RELEASED_STRATEGIES = {
    "FCGRatioPI-NL-I10-TDTE-High-0.2-Mean-abs-bald": "prompt_uncertainty",
    "HighPerplexity": "high_perplexity",
    "LowPerplexity": "low_perplexity",
    "Random": "random",
}
_FOLDER = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True)
class Draw:
    """One selection.

    Attributes:
      selected: the chosen tasks.
      offered: all that could be chosen, with the chosen ones.
    """

    selected: frozenset[str]
    offered: frozenset[str]


@dataclass(frozen=True)
class Overlap:
    """The overlap of two selections.

    Attributes:
      common: tasks in both.
      jaccard: common / tasks in either; None if nothing was selected.
      expected_common: what random draws of these sizes from the same offers share on average.
      expected_jaccard: the Jaccard index of sets that share that many.
    """

    common: int
    jaccard: float | None
    expected_common: float
    expected_jaccard: float | None


def _jaccard(common: float, first: int, second: int) -> float | None:
    either = first + second - common
    return common / either if either else None


def overlap(first: Draw, second: Draw) -> Overlap:
    """Compares two selections with each other and with random draws.

    A task offered to both is in a random draw of a from A and in one of b from B with probability
    a/A x b/B, so random draws share (tasks offered to both) x a/A x b/B on average. CLS and GEN
    count alike: with CLS_RATIO near the pool's own share that makes next to no difference.
    """
    a, b = len(first.selected), len(second.selected)
    common = len(first.selected & second.selected)
    both = len(first.offered & second.offered)
    expected = both * a * b / (len(first.offered) * len(second.offered)) if both else 0.0
    return Overlap(common, _jaccard(common, a, b), expected, _jaccard(expected, a, b))


def released(folder: Any) -> dict[tuple[str, str], list[Draw]]:
    """Reads the authors' released splits (Active-IT, `reproduce_splits`).

    Args:
      folder: with folders `TLAL_Exp0_all_<seed>`, or one of these. Each has folders
        `<strategy>_<round>` with train_tasks.txt and remain_tasks.txt.

    Returns:
      (split, strategy), such as ("TLAL_Exp0_all_10", "random") -> selections after round 0, 1, ...
      They end at a folder that does not continue the previous one: for two seeds the last has
      initial tasks.

    Raises:
      UserError: no such folder, no such splits in it, or a file that cannot be read.
    """
    folder = files.as_path(folder)
    if not folder.is_dir():
        raise UserError(f"RELEASED_SELECTIONS = {shown(str(folder))} is not a folder.")
    found = {
        (split.name, strategy): draws
        for split in (folder, *sorted(folder.iterdir()))
        if split.is_dir()
        for strategy, draws in _selections(split)
    }
    if not found:
        raise UserError(
            f"RELEASED_SELECTIONS = {shown(str(folder))} has no folders of splits, such as "
            "TLAL_Exp0_all_10/Random_0/train_tasks.txt; give the authors' reproduce_splits."
        )
    return found


def _selections(split: Any) -> Iterator[tuple[str, list[Draw]]]:
    rounds: dict[str, dict[int, Any]] = {}
    for path in split.iterdir():
        match = _FOLDER.fullmatch(path.name)
        if match and match[1] in RELEASED_STRATEGIES and (path / "train_tasks.txt").exists():
            rounds.setdefault(RELEASED_STRATEGIES[match[1]], {})[int(match[2])] = path
    for strategy in sorted(rounds):
        draws: list[Draw] = []
        folders = rounds[strategy]
        while (before := folders.get(len(draws))) and (after := folders.get(len(draws) + 1)):
            trained = frozenset(read_names(before / "train_tasks.txt"))
            selected = frozenset(read_names(after / "train_tasks.txt")) - trained
            offered = frozenset(read_names(before / "remain_tasks.txt"))
            if not selected or not selected <= offered:
                break
            draws.append(Draw(selected, offered))
        if draws:
            yield strategy, draws


def only(draw: Draw, names: Collection[str]) -> Draw:
    """Returns a selection without the tasks that are not in `names`."""
    names = frozenset(names)
    return Draw(draw.selected & names, draw.offered & names)
