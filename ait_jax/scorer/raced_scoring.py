"""Scoring as a race (`racing`): in waves, each a table of its own, until every place is certain.

Wave w is `likelihoods.waves/wave_00w.parquet` until all are joined. The tables alone decide the
next wave, so an interrupted race continues where it was.
"""

import dataclasses
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from ait_jax.errors import UserError
from ait_jax.runtime import distributed, files, reporter, strict_json
from ait_jax.scorer import likelihoods
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.prompts_of_task import PromptPlan
from ait_jax.scorer.racing import Race, Raced, Wave, check_strategy
from ait_jax.scorer.scorer import Scorer
from ait_jax.scorer.work import PromptCounts
from ait_jax.selection.selection import Strategy

RACE_FILE = "race.json"


class _Race(TypedDict):
    verdicts: dict[str, Literal["in", "out", "undecided"]]


def score(
    race: Race,
    scorer: Scorer,
    asker: Asker,
    tasks: Sequence[str],
    path: Path,
    *,
    round_index: int,
) -> PromptCounts:
    """Writes likelihoods.parquet with what the race needed, and race.json beside it.

    Args:
      race: not begun.
      tasks: in the order of the rows.
      Others: as `Scorer.score` takes them.
    """
    folder = path.with_suffix(".waves")
    cells: dict[str, np.ndarray] = {}
    tables: list[Path] = []
    counts = PromptCounts()
    while wave := race.next_wave():
        table = folder / f"wave_{len(tables):03d}.parquet"
        (exists,) = distributed.broadcast(str(table), [table.exists()])
        if not exists:
            competing = set(wave.tasks)
            counts += scorer.score(
                asker,
                [name for name in tasks if name in competing],
                table,
                prompts=_plan(wave, with_original=not tables),
                answers_from=tables[0] if tables else None,
                round_index=round_index,
            )
        tables.append(table)
        _fill(cells, table, wave.num_perturbations)
        race.record(cells)
        reporter.say(race.report().describe())
    # Others may still be reading the last wave's table, which the writer is about to remove.
    distributed.barrier(f"{path}: waves read")
    if distributed.is_writer():
        summary = {"report": dataclasses.asdict(race.report()), "verdicts": race.verdicts}
        files.write_json(path.with_name(RACE_FILE), summary)
        likelihoods.concatenate(tables, path)
        files.remove_tree(folder)
    distributed.barrier(str(path))
    return counts


def ranking(strategy: Strategy, path: Path) -> Raced:
    """Returns the strategy that selects as the race recorded beside `path` decided.

    Raises:
      UserError: race.json is missing or damaged.
    """
    record = path.with_name(RACE_FILE)
    try:
        race = strict_json.checked(strict_json.parse(files.read_bytes(record)), _Race)
        return Raced(check_strategy(strategy), race["verdicts"])
    except (OSError, strict_json.Unfit) as error:
        raise UserError(
            f"{record} cannot be read ({error}), and it holds the selection of a race; give "
            "another MODEL_DIR to score again."
        ) from error


def _plan(wave: Wave, with_original: bool) -> PromptPlan:
    """Returns the wave's prompts for a task with instances in any order.

    The race knows instances by their place among the sorted ids, as `LikelihoodTable` does.
    """

    def plan(instance_ids: Sequence[str]) -> np.ndarray:
        n = len(instance_ids)
        prompts = np.empty((n, len(wave.steps)), np.int64)
        prompts[sorted(range(n), key=instance_ids.__getitem__)] = wave.prompts(n)
        return np.concatenate([np.zeros((n, int(with_original)), np.int64), prompts], axis=1)

    return plan


def _fill(cells: dict[str, np.ndarray], table: Path, num_perturbations: int) -> None:
    """Writes a table's log-likelihoods into float64[n, k + 1] of every task, NaN elsewhere."""
    columns = likelihoods.read_rows(table)
    names = ("task", "instance_id", "prompt", "log_likelihood")
    rows = zip(*(columns[name] for name in names), strict=True)
    for task, of_task in itertools.groupby(rows, key=lambda row: row[0]):
        own = list(of_task)
        ids = sorted({instance for _, instance, _, _ in own})
        matrix = cells.setdefault(task, np.full((len(ids), num_perturbations + 1), np.nan))
        for _, instance, prompt, value in own:
            matrix[bisect_left(ids, instance), prompt] = value
