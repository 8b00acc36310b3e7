"""Scoring as a race (`racing`): in waves, each a table of its own, until every place is certain.

Wave w is `likelihoods.waves/wave_00w.parquet` until all are joined. What they say decides the
next wave and nothing else does, so that an interrupted race continues where it was.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.runtime import distributed, files, reporter
from ait_jax.scorer import likelihoods
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.counts import PromptCounts
from ait_jax.scorer.prompts_of_task import PromptPlan
from ait_jax.scorer.racing import Race, Raced, Wave
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.selection import Strategy

RACE_FILE = "race.json"


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
    # Others may still read the last wave's table, which the writer now takes away.
    distributed.barrier(f"{path}: waves read")
    if distributed.is_writer():
        summary = {"report": dataclasses.asdict(race.report()), "verdicts": race.verdicts}
        files.write_json(path.with_name(RACE_FILE), summary)
        likelihoods.concatenate(tables, path)
        files.remove_tree(folder)
    distributed.barrier(str(path))
    return counts


def ranking(strategy: Strategy, path: Path) -> Raced:
    """Returns the strategy that selects what the race beside `path` decided.

    Raises:
      UserError: race.json is missing or damaged.
    """
    record = path.with_name(RACE_FILE)
    try:
        return Raced(strategy, json.loads(files.read_text(record))["verdicts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{record} cannot be read ({error}), and without it a raced selection is not known; "
            "give another MODEL_DIR to score again."
        ) from error


def _plan(wave: Wave, with_original: bool) -> PromptPlan:
    """Returns the wave's prompts of a task whose instances come in any order.

    The race knows instances by their place among the sorted ids, as `LikelihoodTable` does.
    """

    def plan(instance_ids: Sequence[str]) -> np.ndarray:
        prompts = np.empty((len(instance_ids), len(wave.steps)), np.int64)
        prompts[_id_order(instance_ids)] = wave.prompts(len(instance_ids))
        first = np.zeros((len(instance_ids), int(with_original)), np.int64)
        return np.concatenate([first, prompts], axis=1)

    return plan


def _id_order(instance_ids: Sequence[str]) -> list[int]:
    return sorted(range(len(instance_ids)), key=instance_ids.__getitem__)


def _fill(cells: dict[str, np.ndarray], table: Path, num_perturbations: int) -> None:
    """Writes a table's log-likelihoods into float64[n, k + 1] of every task, NaN elsewhere."""
    for name, rows in _rows_by_task(likelihoods.read_rows(table)).items():
        ids = sorted({instance for instance, _, _ in rows})
        row_of = {instance: row for row, instance in enumerate(ids)}
        matrix = cells.setdefault(name, np.full((len(ids), num_perturbations + 1), np.nan))
        for instance, prompt, value in rows:
            matrix[row_of[instance], prompt] = value


def _rows_by_task(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[tuple[str, int, float]]]:
    by_task: dict[str, list[tuple[str, int, float]]] = {}
    names = ("task", "instance_id", "prompt", "log_likelihood")
    for name, *row in zip(*(columns[column] for column in names)):
        by_task.setdefault(name, []).append(tuple(row))
    return by_task
