"""Feedback after supervised training: the model learns from its own judged answers."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import jax
import numpy as np

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.models.interface import Model, ModelConfig
from ait_jax.models.parameters import abstract_params
from ait_jax.models.sampling import Restriction, key_data, sample_decode
from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.runtime import reporter
from ait_jax.runtime.hardware import target_platform
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.trainer.data import indices_in_order
from ait_jax.trainer.embedded import Training
from ait_jax.trainer.examples import InstructionExamples
from ait_jax.trainer.feedback_step import make_feedback_step
from ait_jax.trainer.interface import Trained, Trainer, TrainingJob
from ait_jax.trainer.metrics import TrainingLog, TrainingWork
from ait_jax.trainer.step import Metrics, StepScalars, TrainState, placed_state, sharded_step


@dataclass(frozen=True, kw_only=True)
class FeedbackTrainer(Trainer):
    """Trains with another trainer, then `steps` updates by the model's own judged answers.

    Feedback begins from the checkpoint that the supervised trainer chose, with a fresh optimizer.
    Its checkpoints (checkpoint_0 is the beginning), metrics.jsonl and train/ are in the folder
    feedback/ of the training's. A step draws `num_samples` answers to each of `batch_size`
    prompts, judges them, and updates by `feedback_step.make_feedback_step`. With `best_metric`
    and dev tasks the best of all checkpoints is kept, which may be the supervised one.

    Args:
      supervised: the trainer before feedback, with settings of its own.
      reward: (answer, references) -> the answer's worth, from 0 (wrong) to 1 (right).
      num_samples: answers to a prompt, at least 2.
      temperature, top_k, top_p: see `sampling.Restriction`. Except with 1, None and None the
        answers are not the model's own, and the update is not that of the expected reward.
      supervised_weight: of the cross-entropy on the references of the same batch.
      batch_size: prompts per update.
      Others: of feedback, see `Trainer`.

    Raises:
      UserError: a value out of its range.
    """

    supervised: Trainer
    reward: Callable[[str, Sequence[str]], float] = field(hash=False)  # no part of a step
    num_samples: int = 4
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    supervised_weight: float = 1.0
    batch_size: int = 32
    epochs: int | None = None
    steps: int | None = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.supervised, FeedbackTrainer):
            raise UserError(
                f"{self.gin_name}.supervised (SUPERVISED_TRAINER) is itself a FeedbackTrainer; "
                "give the trainer before it, as in @embedded.EmbeddedTrainer()."
            )
        self._check("num_samples", "NUM_SAMPLES", self.num_samples >= 2, "at least 2, since the "
                    "mean reward of a prompt's other answers is the baseline")  # fmt: skip
        self._check("temperature", "TEMPERATURE", self.temperature > 0, "above 0")
        self._check("top_k", "TOP_K", self.top_k is None or self.top_k >= 1, "at least 1, or None")
        in_range = self.top_p is None or 0 < self.top_p <= 1
        self._check("top_p", "TOP_P", in_range, "above 0 and at most 1, or None")
        self._check(
            "supervised_weight", "SUPERVISED_WEIGHT", self.supervised_weight >= 0, "at least 0"
        )

    def check_model(self, model: Model) -> None:
        """See `Trainer.check_model`."""
        self.supervised.check_model(model)

    def compiled_step(self, model: Model, partitioner: Partitioner) -> tuple[Any, tuple[Any, ...]]:
        """Returns `feedback_step.make_feedback_step`'s step, and the abstract state."""
        step = make_feedback_step(
            model,
            self.optimizer,
            supervised_weight=self.supervised_weight,
            num_microbatches=self.num_microbatches,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
        )
        placed = (placed_state(*abstract_params(model), self.any_rate, partitioner),)
        return sharded_step(step, placed, partitioner, model.config.dtype), placed

    def train(self, job: TrainingJob) -> Trained:
        """Trains on `InstructionExamples`; the result's step counts all updates on the way."""
        supervised = self.supervised.train(job)
        step, directory, work = supervised.step, supervised.directory, supervised.work
        feedback = _Feedback(
            self,
            replace(
                job,
                params=supervised.params,
                directory=job.directory / "feedback",
                seed=randomness.stable_hash(job.seed, "feedback") % 2**31,
            ),
        )
        del supervised  # `feedback` frees its parameters once it has its own
        with reporter.prefixed("feedback"):
            trained = feedback.run()
            if not trained.step:
                reporter.say(f"no checkpoint is better than {directory.name}, which is kept")
        work += trained.work
        if not trained.step:
            return replace(trained, step=step, directory=directory, work=work)
        return replace(trained, step=step + trained.step, work=work)


class _Feedback(Training[FeedbackTrainer]):
    """The feedback of one training."""

    def __init__(self, config: FeedbackTrainer, job: TrainingJob) -> None:
        super().__init__(config, job)
        self.examples = cast(InstructionExamples, job.examples)
        rows, replicated = job.partitioner.batch_sharding, job.partitioner.replicated
        param_shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state.params)
        # One program for each length of prompts.
        self.sample = jax.jit(
            self._draw, in_shardings=(param_shardings, rows, rows), out_shardings=replicated
        )

    def _draw(self, params: Any, prompts_BxL: jax.Array, keys_BxSx2: jax.Array) -> Any:
        decoded = sample_decode(
            self.job.model,
            params,
            prompts_BxL,
            keys_BxSx2,
            self.examples.buckets.max_target_length,
            Restriction(self.config.temperature, self.config.top_k, self.config.top_p),
            eos_id=EOS_ID,
            unroll_layers=target_platform() == "cpu",
        )
        return decoded.tokens, decoded.lengths

    def _begin(self, state: TrainState, log: TrainingLog) -> None:
        """Measures the supervised checkpoint, which the feedback may make worse."""
        self.job = replace(self.job, params=None)
        if self.checkpoints.latest_step is None and self.job.evaluate is not None:
            dev = self._evaluate(log, 0, state.params)
            log.flush()
            self.checkpoints.save(0, state, dev)

    def _stream(self, start: int) -> Iterator[np.ndarray]:
        """Yields each step's indices of examples."""
        size = self.config.batch_size
        count = self.total_steps * size
        order = indices_in_order(self.examples, seed=self.job.seed, num_examples=count)
        for step in range(start, self.total_steps):
            yield np.array([order[i] for i in range(step * size, (step + 1) * size)])

    def _update(
        self, state: TrainState, item: np.ndarray, scalars: StepScalars
    ) -> tuple[TrainState, Metrics, TrainingWork]:
        # Every process reads all rows, to pad them alike, but judges and feeds its own.
        examples = [self.examples[int(index)] for index in item]
        batch = self.examples.collate(examples)
        answers = self._answers(state, batch["inputs"], item)
        since = time.perf_counter()  # the device waits for judgments
        together = [
            (prompt, answer)
            for (prompt, _), own in zip(examples, answers, strict=True)
            for answer in own
        ]
        answers_NxT = self.examples.collate(together)["targets"]
        batch["answers"] = answers_NxT.reshape(len(item), self.config.num_samples, -1)
        work = _real_work(self.job.model.config, examples, answers)
        work += TrainingWork(padded_tokens=sum(array.size for array in batch.values()))
        rows = self.job.partitioner.own_rows(len(item))
        batch = {name: array[rows] for name, array in batch.items()}
        judged = map(self._rewards, item[rows], answers[rows])
        batch["rewards"] = np.array(list(judged), np.float32)
        fed = self.job.partitioner.shard_batch(batch)
        work += TrainingWork(host_wait=time.perf_counter() - since)
        state, metrics = self.train_step(state, fed, scalars)
        return state, metrics, work

    def _answers(
        self, state: TrainState, prompts_BxL: np.ndarray, indices: np.ndarray
    ) -> list[list[list[int]]]:
        """Returns every prompt's sampled token ids, with their end-of-sequence."""
        step, size = int(state.step), self.config.num_samples
        keys = [
            key_data(
                randomness.stable_hash(self.job.seed, "sample", step, place, int(index), sample)
            )
            for place, index in enumerate(indices)
            for sample in range(size)
        ]
        keys_BxSx2 = np.array(keys, np.uint32).reshape(len(indices), size, 2)
        rows = self.job.partitioner.own_rows(len(indices))
        fed = self.job.partitioner.shard_batch((prompts_BxL[rows], keys_BxSx2[rows]))
        tokens, lengths = jax.tree.map(np.asarray, self.sample(state.params, *fed))
        flat = [ids[:length] for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        return [flat[i : i + size] for i in range(0, len(flat), size)]

    def _rewards(self, index: int, answers: list[list[int]]) -> list[float]:
        """Judges the answers to an example."""
        return [
            self.config.reward(self.examples.decode(answer), self.examples.references(int(index)))
            for answer in answers
        ]


def _real_work(
    config: ModelConfig, examples: Sequence[Any], answers: Sequence[Any]
) -> TrainingWork:
    """Returns what a step costs, apart from padding.

    Drawing is one forward pass; learning from the answers and from the references is three each.
    """
    tokens, flops = 0, 0.0
    for (prompt, target), own in zip(examples, answers, strict=True):
        encoder = config.flops_per_example(len(prompt), 0)
        written = [config.flops_per_example(len(prompt), len(a)) - encoder for a in own]
        flops += 4 * (encoder + sum(written))
        flops += 3 * config.flops_per_example(len(prompt), len(target))
        tokens += len(prompt) + len(target) + sum(map(len, own))
    return TrainingWork(steps=1, tokens=tokens, flops=float(flops))
