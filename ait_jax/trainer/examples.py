"""Training examples of the chosen tasks: a prompt and one reference output, made on demand."""

from collections.abc import Mapping, Sequence

import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError, shown
from ait_jax.pool import TaskPool
from ait_jax.prompts.prompts import Encoding, SelfInstructMixture, TkInstructMixture
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary
from ait_jax.scorer.batching import LengthBuckets, Tokens

# At most this number of tokenized examples is kept (about 0.2 GB at 300 tokens each).
MAX_CACHED = 200_000


class InstructionExamples:
    """Random access to (input ids, target ids) of at most n instances of every task.

    Which instances, which of several references, and which of several forms of a prompt (a mixture
    of `prompts`), depends on the seed, task and instance alone: a task has the same examples in
    every round. `max_instances_per_task` is one number or each task's own; a smaller one takes the
    first examples of a larger one.

    With `redraws`, every epoch draws reference and form anew: index e x len(self) + i is example i
    in epoch e.
    """

    def __init__(
        self,
        pool: TaskPool,
        tasks: Sequence[str],
        *,
        max_instances_per_task: int | Mapping[str, int],
        vocabulary: Vocabulary,
        encoding: Encoding,
        buckets: LengthBuckets,
        seed: int,
        redraws: bool = False,
    ) -> None:
        self.pool, self.vocabulary, self.encoding = pool, vocabulary, encoding
        self.buckets, self.seed, self.redraws = buckets, seed, redraws
        most = max_instances_per_task
        self._places = [
            (name, index)
            for name in tasks
            for index in randomness.shuffled(
                range(len(pool[name].instances)), seed, "training_instances", name
            )[: most if isinstance(most, int) else most[name]]
        ]
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tokens, Tokens]:
        epoch, place = divmod(index, len(self)) if self.redraws else (0, index)
        example = self._cache.get(index)
        if example is None:
            # The first epoch draws as if it were the only one.
            draw = (epoch,) if epoch else ()
            example = self._make(*self._places[place], draw)
            if len(self._cache) < MAX_CACHED:
                self._cache[index] = example
        return example

    def references(self, index: int) -> tuple[str, ...]:
        """Returns an example's acceptable outputs."""
        name, position = self._places[index % len(self)]
        return self.pool[name].instances[position].outputs

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns an answer's text as it is measured."""
        return self.vocabulary.decode(tokens).strip()

    def collate(self, examples: Sequence[tuple[Tokens, Tokens]]) -> dict[str, np.ndarray]:
        """Returns a batch of a row an example."""
        return self.buckets.collate(examples)

    def _make(
        self, name: str, position: int, draw: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        task = self.pool[name]
        instance = task.instances[position]
        encoding = self.encoding
        if isinstance(encoding, (TkInstructMixture, SelfInstructMixture)):
            encoding = encoding.drawn(self.seed, "encoding", name, instance.id, *draw)
        prompt = encoding.encode(
            task.instruction,
            instance.input,
            self.vocabulary.count_tokens,
            self.vocabulary.truncate,
            task_name=name,
        )
        if not instance.outputs:
            raise UserError(
                f"task {shown(name)}, instance {shown(instance.id)} has no reference output to "
                "train on; give it one or leave the task out of the training pool."
            )
        output = randomness.choice(
            instance.outputs, self.seed, "reference", name, instance.id, *draw
        )
        inputs, targets = self.vocabulary.encode_example(
            prompt.text, output, self.encoding.max_source_length
        )
        targets = [*targets[: self.buckets.max_target_length - 1], EOS_ID]
        return np.asarray(inputs, np.int32), np.asarray(targets, np.int32)
