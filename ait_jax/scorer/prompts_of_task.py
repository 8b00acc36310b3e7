"""The prompts of one task: which instances are scored, and under which instructions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ait_jax import randomness
from ait_jax.pool import Instance, Task, TaskPool
from ait_jax.pool.task import Instruction
from ait_jax.prompts.perturb import for_task, perturbed_instruction
from ait_jax.prompts.prompts import Encoding
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.randomness import Key

# Ids of a task's scored instances -> int[instances, prompts each], the numbers j of the prompts.
PromptPlan = Callable[[Sequence[str]], np.ndarray]


def same_prompts(prompts: Sequence[int]) -> PromptPlan:
    """Returns the plan that scores every instance under the same prompts."""
    numbers = np.array(prompts, np.int64)
    return lambda instance_ids: np.tile(numbers, (len(instance_ids), 1))


class TokenizedPrompt(NamedTuple):
    """What the model reads (`Vocabulary.finish_source`), and how many ids were cut off."""

    tokens: tuple[int, ...]
    tokens_cut: int


def scoring_instances(task: Task, num_instances: int, key: Key) -> list[Instance]:
    """Returns the n instances of a task that are scored in a round, drawn at random."""
    order = randomness.shuffled(
        range(len(task.instances)), key.seed, "scoring_instances", key.round_index, task.name
    )
    return [task.instances[i] for i in order[:num_instances]]


@dataclass(frozen=True)
class TaskPrompts:
    """Builds the prompts of tasks, one task at a time. Safe to use in one other thread.

    Args:
      perturbation: how an instruction is perturbed (`perturb.Perturbation`).
      num_instances: n, the instances of a task (all, where it has fewer).
      key: of every draw.
    """

    pool: TaskPool
    vocabulary: Vocabulary
    encoding: Encoding
    perturbation: Any
    num_instances: int
    key: Key

    @cached_property
    def _tokens(self) -> Callable[[str], list[int]]:
        # The encoding already counts the tokens of the text that it returns.
        return lru_cache(maxsize=8)(self.vocabulary.encode_prompt)

    def count_instances(self, name: str) -> int:
        """Returns how many instances of a task are scored."""
        return min(self.num_instances, len(self.pool[name].instances))

    def count_planned(self, name: str, plan: PromptPlan) -> int:
        """Returns how many prompts a plan asks of a task, without reading its instances."""
        return plan([str(i) for i in range(self.count_instances(name))]).size

    def planned(self, name: str, plan: PromptPlan) -> np.ndarray:
        """Returns int[instances, prompts per instance], what a plan asks of a task."""
        instances = scoring_instances(self.pool[name], self.num_instances, self.key)
        return plan([instance.id for instance in instances])

    def build(
        self, name: str, plan: PromptPlan
    ) -> Iterator[tuple[Instance, TokenizedPrompt, list[int], list[TokenizedPrompt]]]:
        """Yields (instance, original prompt, planned numbers j, their prompts) of a task.

        Prompt 0 is the original one unless the perturbation changes that, too.
        """
        task = self.pool[name]
        instances = scoring_instances(task, self.num_instances, self.key)
        used = [instance.id for instance in instances]
        numbers = plan(used).tolist()
        perturbation = for_task(self.perturbation, self.pool, name)
        instructions = {
            j: perturbed_instruction(task, perturbation, j, self.key, used)
            for j in sorted(set().union(*numbers))
        }
        original = task.instruction
        for instance, wanted in zip(instances, numbers, strict=True):
            # A perturbation may change nothing: equal instructions are encoded once.
            distinct = dict.fromkeys((original, *(instructions[j] for j in wanted)))
            prompt_of = {i: self._prompt(i, instance, name) for i in distinct}
            built = [prompt_of[instructions[j]] for j in wanted]
            yield instance, prompt_of[original], wanted, built

    def _prompt(self, instruction: Instruction, instance: Instance, name: str) -> TokenizedPrompt:
        prompt = self.encoding.encode(
            instruction,
            instance.input,
            lambda text: len(self._tokens(text)) + self.vocabulary.source_overhead,
            self.vocabulary.truncate,
            task_name=name,
        )
        ids = self._tokens(prompt.text)
        source = self.vocabulary.finish_source(ids, self.encoding.max_source_length)
        return TokenizedPrompt(tuple(source), prompt.tokens_cut)
