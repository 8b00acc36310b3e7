"""Prompt uncertainty's raw material: every instance's answer, scored under every prompt.

Active Instruction Tuning (arXiv 2311.00288), section 3: the answer y_i is decoded
greedily under the original instruction, then teacher-forced under it (j = 0) and under
the k perturbed instructions (j = 1..k).
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ait_jax.errors import UserError, shown
from ait_jax.prompts.perturb import Perturbation, WordDrop, changes_original
from ait_jax.randomness import Key
from ait_jax.runtime import distributed, files, preemption, reporter
from ait_jax.scorer import chunk, likelihoods, processes
from ait_jax.scorer.asker import Answered, Asker, decode, earlier, gold
from ait_jax.scorer.chunk import Chunk
from ait_jax.scorer.prompts_of_task import PromptPlan, TaskPrompts, same_prompts
from ait_jax.scorer.work import PromptCounts

ANSWERS = ("predictions", "gold", "random_gold")
_WORD_DROP = WordDrop()
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Scorer:
    """What is asked of every task. The paper: 10 instances, 10 perturbations, predictions.

    Args:
      perturbation: how an instruction is perturbed.
      num_perturbations: k, the perturbed instructions of a task.
      num_instances: n, the instances of a task (all, where it has fewer).
      answers: 'predictions' scores the model's own greedy answers (the paper), 'gold' the
        first reference output, 'random_gold' one of them at random, the same under all prompts of
        an instance (the authors' HL variant draws anew for every prompt).
      prompts_per_chunk: tasks are scored and saved together until they have this many prompts;
        a killed run repeats at most the chunk at work and the one being saved.
    """

    perturbation: Perturbation = _WORD_DROP
    num_perturbations: int = 10
    num_instances: int = 10
    answers: str = "predictions"
    prompts_per_chunk: int = 4096

    def __post_init__(self) -> None:
        for name in ("num_perturbations", "num_instances", "prompts_per_chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"scorer.Scorer.{name} = {getattr(self, name)}: give at least 1.")
        if self.answers not in ANSWERS:
            raise UserError(
                f"scorer.Scorer.answers = {shown(self.answers)}: give one of {ANSWERS}."
            )

    def score(
        self,
        asker: Asker,
        tasks: Sequence[str],
        path: Path,
        *,
        round_index: int,
        prompts: PromptPlan | None = None,
        answers_from: Path | None = None,
    ) -> PromptCounts:
        """Writes likelihoods.parquet for `tasks`, chunk by chunk, and continues after a crash.

        Of several processes, which all call this with the same arguments, each tokenizes and feeds
        its part of every chunk's tasks, and the first one writes.

        Prompts may be scored in parts: a plan with prompt 0 into one table, then others for some
        of its tasks into another, with `answers_from` the first. Together they hold what one table
        would, up to the rounding of other batches.

        Args:
          tasks: in the order of the rows; one without instances has none.
          path: the table; finished chunks wait in the folder `<path>.chunks`.
          round_index: with the asker's seed, keys the draws of instances and perturbations.
          prompts: which prompts j are scored; None is all, 0..k.
          answers_from: a table with the rows of prompt 0; needed where `prompts` lacks it.

        Returns:
          What was asked in this call; `engine.work` says what the device ran for it.

        Raises:
          UserError: a file cannot be read or written.
        """
        prompts = prompts or same_prompts(range(self.num_perturbations + 1))
        task_prompts = TaskPrompts(
            asker.pool,
            asker.vocabulary,
            asker.encoding,
            self.perturbation,
            self.num_instances,
            Key(asker.seed, round_index),
        )
        tasks = [name for name in tasks if task_prompts.count_instances(name)]
        count = partial(task_prompts.count_planned, plan=prompts)
        chunks = chunk.split(tasks, count, self.prompts_per_chunk)
        folder = path.with_suffix(".chunks")
        parts = {folder / f"chunk_{i:05d}.parquet": names for i, names in enumerate(chunks)}
        whole = [_is_whole(*part, prompts, task_prompts) for part in parts.items()]
        whole = distributed.broadcast(str(path), whole)
        counts = _score_chunks(
            [part for part, done in zip(parts.items(), whole, strict=True) if not done],
            partial(chunk.prepare, prompts=prompts, task_prompts=task_prompts),
            self._answerer(asker, answers_from, round_index),
            asker,
            len(tasks),
        )
        if distributed.is_writer():
            likelihoods.concatenate(list(parts), path)
            files.remove_tree(folder)
        distributed.barrier(str(path))
        return counts

    def _answerer(
        self, asker: Asker, answers_from: Path | None, round_index: int
    ) -> Callable[[Chunk], Answered]:
        """Returns the function that answers a chunk's prompts."""
        if answers_from is not None:
            known = likelihoods.read_answers(answers_from)
            if changes_original(self.perturbation):  # prompt 0's value is not the original one's
                known = {place: (answer, math.nan) for place, (answer, _) in known.items()}
            return lambda ready: earlier(asker, ready.places, answers_from, known)
        if self.answers != "predictions":
            draw = ("reference", round_index) if self.answers == "random_gold" else None
            return lambda ready: gold(asker, ready.places, draw)
        return lambda ready: decode(asker, ready.original, ready.inputs)


def _score_chunks(
    missing: Sequence[tuple[Path, Sequence[str]]],
    prepare: Callable[[Sequence[str]], Chunk],
    answer: Callable[[Chunk], Answered],
    asker: Asker,
    num_tasks: int,
) -> PromptCounts:
    """Writes the missing chunks: prepared ahead of the device and saved behind it."""
    partitioner = asker.engine.partitioner
    counts = PromptCounts()
    done = num_tasks - sum(len(names) for _, names in missing)
    if done:
        reporter.say(f"{done}/{num_tasks} tasks were scored before")
    with (
        ahead(prepare, [partitioner.own(names) for _, names in missing]) as prepared,
        behind() as later,
        reporter.activity("scoring", num_tasks, done) as show,
    ):
        for (part, names), ready in zip(missing, prepared, strict=True):
            answered = answer(ready)
            values, counted = chunk.log_likelihoods(asker, ready, answered)
            columns = processes.gathered(chunk.columns(ready, answered, values), names, partitioner)
            if distributed.is_writer():
                later(likelihoods.write_rows, part, columns)
            counts += processes.total(counted, partitioner)
            done += len(names)
            show(done)
            reporter.say(f"scored {done}/{num_tasks} tasks, {counts.describe()}")
            preemption.check()
    return counts


def _is_whole(
    part: Path,
    names: Sequence[str],
    prompts: PromptPlan,
    task_prompts: TaskPrompts,
) -> bool:
    """Says whether an earlier run left this chunk readable and with the same rows."""
    if not part.exists():
        return False
    numbers = {name: task_prompts.planned(name, prompts).ravel().tolist() for name in names}
    planned = [(name, j) for name, of_task in numbers.items() for j in of_task]
    try:
        return likelihoods.has_rows(part, planned)
    except UserError as error:
        reporter.say(f"{error} Scoring it again.")
        return False


@contextmanager
def ahead(function: Callable[[A], B], items: Iterable[A], depth: int = 2) -> Iterator[Iterator[B]]:
    """Yields an iterator over `function(item)`, computed in a thread up to `depth` items ahead.

    An exception of `function` is raised in place of its result. When the block is left early,
    calls that have not begun are dropped.
    """
    waiting: deque[Future[B]] = deque()

    def results() -> Iterator[B]:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ThreadPoolExecutor(1, "ahead") as executor:
        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def behind() -> Iterator[Callable[..., None]]:
    """Yields `later(function, *arguments)`, which makes calls in a thread, one at a time.

    It waits for the call before, and the block waits for the last one. An exception is raised by
    the next call or at the end of the block.
    """
    running: list[Future[Any]] = []

    def later(function: Callable[..., Any], *arguments: Any) -> None:
        if running:
            running.pop().result()
        running.append(executor.submit(function, *arguments))

    with ThreadPoolExecutor(1, "behind") as executor:
        yield later
        if running:
            running.pop().result()
