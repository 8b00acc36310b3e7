"""The details that a page has room for: which tasks, in which chunks."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ait_jax.errors import UserError
from ait_jax.report import likelihood_rows
from ait_jax.report.likelihood_rows import LikelihoodRows
from ait_jax.report.run_files import RunFiles
from ait_jax.report.scored_rounds import REGIONS
from ait_jax.report.settings import Settings
from ait_jax.report.task_detail import OtherPrompts, check_prompts, instruction_detail, round_detail
from ait_jax.report.task_index import TaskIndex

TASKS_PER_CHUNK = 64
# Tasks whose rows are in memory at once: a table is gone through once for each of these.
_TASKS_PER_READ = 4096
# Tasks of a round whose prompts are made again and compared with those that were scored.
_CHECKED_TASKS = 2


@dataclass(frozen=True)
class Details:
    """What the page shows of a task that is clicked.

    Attributes:
      chunks: {"tasks": [numbers], "data": {number: detail}}, the most telling tasks first.
      left_out: how many tasks there was no room for.
    """

    chunks: tuple[dict[str, Any], ...] = ()
    left_out: int = 0


def details(
    run: RunFiles,
    index: TaskIndex,
    settings: Settings,
    rounds: Sequence[Mapping[str, Any]],
    megabytes: float,
) -> Details:
    """Returns the details of as many tasks as fit.

    Args:
      settings: with a pool and an encoding, and a perturbation where tasks were scored.
      rounds: of the payload.
      megabytes: of all chunks together, compressed and as text, as the page holds them.

    Raises:
      task_detail.OtherPrompts: the prompts that were scored cannot be made any more.
      UserError: a damaged table.
    """
    order = [name for name in in_order_of_interest(run, index, rounds) if name in settings.pool]
    room = megabytes * 1e6
    chunks: list[dict[str, Any]] = []
    done = 0
    with ExitStack() as stack:
        tables = {
            number: stack.enter_context(likelihood_rows.opened(path))
            for number in run.rounds
            if (path := run.folder(number) / "likelihoods.parquet").exists()
        }
        if tables and settings.perturbation is None:
            raise OtherPrompts(settings.problem or "the perturbation is not known")
        _check(settings, tables)
        for names, built in _built(order, settings, tables):
            numbers = index.numbers(names)
            data = {str(number): built[name] for number, name in zip(numbers, names)}
            chunk = {"tasks": numbers, "data": data}
            room -= _size(chunk)
            if room < 0:
                break
            chunks.append(chunk)
            done += len(names)
    return Details(tuple(chunks), len(order) - done)


def in_order_of_interest(
    run: RunFiles, index: TaskIndex, rounds: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Returns all tasks: selected ones first, round after round, then those of the regions, the
    most telling ones of each region and round in turn, then what else was scored, then the rest.
    """
    selected = [number for round in rounds for number in round["selected"]]
    lists = [
        run.names(run.folder(round["round"]) / f"{region}.txt")
        for round in rounds
        for region in REGIONS[1:]
    ]
    telling = [name for place in zip_longest(*lists) for name in place if name is not None]
    scored = [number for round in rounds for number in round["task"]]
    numbers = dict.fromkeys([*selected, *index.numbers(telling), *scored, *range(len(index))])
    return [index.names[number] for number in numbers]


def _built(
    order: Sequence[str], settings: Settings, tables: Mapping[int, LikelihoodRows]
) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yields a chunk's names and their details, chunk after chunk."""
    for start in range(0, len(order), _TASKS_PER_READ):
        names = order[start : start + _TASKS_PER_READ]
        read = {number: rows.read(names) for number, rows in tables.items()}
        for first in range(0, len(names), TASKS_PER_CHUNK):
            chunk = names[first : first + TASKS_PER_CHUNK]
            scored = {number: rows.of(chunk) for number, rows in read.items()}
            built = {}
            for name in chunk:
                of_task = {n: found[name] for n, found in scored.items() if name in found}
                built[name] = _detail(name, of_task, settings)
            yield chunk, built


def _detail(name: str, scored: Mapping[int, Any], settings: Settings) -> dict[str, Any]:
    """Returns the detail of one task, scored in some rounds."""
    task = settings.pool[name]
    detail = instruction_detail(task, settings.encoding)
    try:
        for number, instances in scored.items():
            detail["rounds"][str(number)] = round_detail(task, number, instances, settings)
    except UserError as error:  # instances are read from where the pool lies
        raise OtherPrompts(str(error)) from error
    return detail


def _check(settings: Settings, tables: Mapping[int, LikelihoodRows]) -> None:
    """Compares the prompts of a few tasks with what was scored."""
    if not _can_encode(settings.vocabulary):
        return
    for number, rows in tables.items():
        names = [name for name in rows.tasks if name in settings.pool][:_CHECKED_TASKS]
        for name, scored in rows.read(names).of(names).items():
            _detail(name, {number: scored}, settings)
            check_prompts(name, number, scored, settings)


def _can_encode(vocabulary: Any) -> bool:
    """Says whether there is a vocabulary and its file is still where it was."""
    try:
        return vocabulary is not None and bool(vocabulary.encode("a"))
    except (UserError, OSError):
        return False


def _size(chunk: Mapping[str, Any]) -> int:
    """Returns the bytes of a chunk in the page: compressed, as base64."""
    return len(zlib.compress(json.dumps(chunk, ensure_ascii=False).encode(), 6)) * 4 // 3
