"""Prompt uncertainty's raw material: every instance's answer, scored under every prompt.

Active Instruction Tuning (arXiv 2311.00288), section 3: the answer y_i is decoded
greedily under the original instruction, then teacher-forced under it (j = 0) and under
the k perturbed instructions (j = 1..k).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.perturb import WordDrop, perturbed_instructions
from ait_jax.pool import Instance, Task, TaskPool
from ait_jax.prompts import Prompt, TkInstructEncoding
from ait_jax.scorer import likelihoods
from ait_jax.scorer.engine import Engine
from ait_jax.vocabulary import EOS_ID, Vocabulary

ANSWERS = ("predictions", "gold")


@dataclass(frozen=True)
class Scorer:
    """What is asked of every task. The paper: 10 instances, 10 perturbations, predictions.

    Args:
      perturbation: how an instruction is perturbed.
      num_perturbations: k, the perturbed instructions of a task.
      num_instances: n, the instances of a task (all, where it has fewer).
      answers: 'predictions' scores the model's own greedy answers (the paper), 'gold' the
        first reference output (the authors' HL variant).
      tasks_per_chunk: tasks scored and saved together; a killed run repeats one chunk at most.
    """

    perturbation: Any = WordDrop()
    num_perturbations: int = 10
    num_instances: int = 10
    answers: str = "predictions"
    tasks_per_chunk: int = 32

    def __post_init__(self):
        for name in ("num_perturbations", "num_instances", "tasks_per_chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"scorer.Scorer.{name} = {getattr(self, name)} must be at least 1.")
        if self.answers not in ANSWERS:
            raise UserError(f"scorer.Scorer.answers = {self.answers!r} is none of {ANSWERS}.")

    def score(
        self,
        tasks: Sequence[str],
        path: Path,
        *,
        pool: TaskPool,
        engine: Engine,
        params: Any,
        vocabulary: Vocabulary,
        encoding: TkInstructEncoding,
        seed: int,
        round: int,
        report: Callable[[str], None] = print,
    ) -> None:
        """Writes likelihoods.parquet for `tasks`, chunk by chunk, and continues after a crash.

        Args:
          tasks: names in `pool`, in the order of the rows.
          path: the table; finished chunks wait in the folder `<path>.chunks`.
          params: parameters from `Engine.place`.
        """
        folder = path.with_suffix(".chunks")
        parts = []
        chunks = [
            tasks[i : i + self.tasks_per_chunk] for i in range(0, len(tasks), self.tasks_per_chunk)
        ]
        for index, names in enumerate(chunks):
            part = folder / f"chunk_{index:05d}.parquet"
            parts.append(part)
            if not _is_whole(part, names, report):
                rows = _ChunkRows(self, pool, vocabulary, encoding, seed, round)
                likelihoods.write_rows(part, rows.score(names, engine, params))
            done = min(len(tasks), (index + 1) * self.tasks_per_chunk)
            report(f"scored {done}/{len(tasks)} tasks")
        likelihoods.concatenate(parts, path)
        for part in parts:
            part.unlink()
        folder.rmdir()


def _is_whole(part: Path, names: Sequence[str], report: Callable[[str], None]) -> bool:
    """Says whether an earlier run left this chunk readable and for the same tasks."""
    if not part.exists():
        return False
    try:
        return set(likelihoods.read_rows(part)["task"]) == set(names)
    except UserError as error:
        report(f"{error} Scoring it again.")
        return False


def scoring_instances(task: Task, num_instances: int, *, seed: int, round: int) -> list[Instance]:
    """Returns the n instances of a task that are scored in a round, drawn at random."""
    order = randomness.shuffled(
        range(len(task.instances)), seed, "scoring_instances", round, task.name
    )
    return [task.instances[i] for i in order[:num_instances]]


class _ChunkRows:
    """Builds the rows of one chunk."""

    def __init__(self, scorer, pool, vocabulary, encoding, seed, round):
        self.scorer, self.pool, self.vocabulary = scorer, pool, vocabulary
        self.encoding, self.seed, self.round = encoding, seed, round

    def score(self, names: Sequence[str], engine: Engine, params: Any) -> dict[str, list[Any]]:
        groups = [group for name in names for group in self._groups(self.pool[name])]
        max_length = self.encoding.max_source_length
        tokens = [
            [self.vocabulary.encode_source(prompt.text, max_length) for prompt in prompts]
            for _, _, prompts in groups
        ]
        if self.scorer.answers == "gold":
            answers = [instance.outputs[0] for _, instance, _ in groups]
        else:
            decoded = engine.generate(params, [prompts[0] for prompts in tokens])
            answers = [self.vocabulary.decode(ids).strip() for ids in decoded]
        targets = [self._target(answer, engine) for answer in answers]
        values = engine.log_likelihoods(
            params,
            [prompt for prompts in tokens for prompt in prompts],
            [target for prompts, target in zip(tokens, targets) for _ in prompts],
        )
        return self._columns(groups, tokens, answers, targets, values)

    def _groups(self, task: Task):
        """Yields (task name, instance, its k + 1 prompts)."""
        instructions = perturbed_instructions(
            task,
            self.scorer.perturbation,
            self.scorer.num_perturbations,
            seed=self.seed,
            round=self.round,
        )
        for instance in scoring_instances(
            task, self.scorer.num_instances, seed=self.seed, round=self.round
        ):
            yield task.name, instance, [
                self._prompt(instruction, instance, task.name) for instruction in instructions
            ]

    def _prompt(self, instruction, instance: Instance, name: str) -> Prompt:
        return self.encoding.encode(
            instruction,
            instance.input,
            self.vocabulary.count_tokens,
            self.vocabulary.truncate,
            task_name=name,
        )

    def _target(self, answer: str, engine: Engine) -> list[int]:
        """The answer's text tokenized anew and ended, as the authors' data pipeline does."""
        ids = self.vocabulary.encode(answer)[: engine.buckets.max_target_length - 1]
        return [*ids, EOS_ID]

    def _columns(self, groups, tokens, answers, targets, values) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in likelihoods.COLUMNS}
        row = 0
        for (name, instance, prompts), ids, answer, target in zip(groups, tokens, answers, targets):
            for j, prompt in enumerate(prompts):
                columns["task"].append(name)
                columns["instance_id"].append(instance.id)
                columns["prompt"].append(j)
                columns["answer"].append(answer)
                columns["num_answer_tokens"].append(len(target))
                columns["num_prompt_tokens"].append(len(ids[j]))
                columns["num_tokens_cut"].append(prompt.tokens_cut)
                columns["log_likelihood"].append(values[row])
                row += 1
        return columns
