"""Prompts in, answers or log-likelihoods out: compiled once per shape, sharded over the mesh."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from ait_jax.batching import LengthBuckets, Tokens, batches_by_length, pad_rows, padded_length
from ait_jax.hardware import peak_flops
from ait_jax.models.decoding import greedy_decode
from ait_jax.models.likelihood import mean_log_likelihood, shift_right
from ait_jax.models.t5 import Transformer, abstract_params, flops_per_example
from ait_jax.partitioning import Partitioner
from ait_jax.vocabulary import EOS_ID


@dataclass
class Work:
    """What an engine has read since the last `clear`, for throughput.

    Attributes:
      prompts: rows asked for.
      tokens: prompt tokens of them, without padding.
      padded_tokens: prompt tokens that the device saw.
      flops: model FLOPs of the real tokens (decoding counts the answer's tokens).
      seconds: from dispatch to the last result on the host.
    """

    prompts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0

    def clear(self) -> None:
        self.__init__()

    def summary(self) -> dict[str, float]:
        """Returns {} or the figures of timings.jsonl."""
        if not self.tokens:
            return {}
        return {
            "prompts": self.prompts,
            "tokens": self.tokens,
            "padding_fraction": round(1 - self.tokens / self.padded_tokens, 4),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "mfu": round(self.flops / self.seconds / peak_flops(), 4),
        }

    def describe(self) -> str:
        """Returns "" or the same as text for the terminal."""
        figures = self.summary()
        if not figures:
            return ""
        return (
            f", {figures['prompts']:,} prompts at {figures['tokens_per_second']:,.0f} tokens/s, "
            f"padding {figures['padding_fraction']:.0%}, MFU {figures['mfu']:.1%}"
        )


class Answers(NamedTuple):
    """Greedy answers to a list of prompts.

    Attributes:
      tokens: for every prompt the answer's ids, end-of-sequence left out.
      log_likelihoods: float32 [prompts], mean over the answer's tokens, end-of-sequence included.
      finished: bool [prompts], False where the longest answer came without end-of-sequence:
        there `log_likelihoods` is not the likelihood of the answer as it would be scored.
    """

    tokens: list[list[int]]
    log_likelihoods: np.ndarray
    finished: np.ndarray


class Engine:
    """Runs a model over many prompts; the parameters are given at every call.

    Args:
      buckets: the lengths that prompts and answers are padded to.
      tokens_per_batch: budget of padded input tokens of one batch.
    """

    def __init__(
        self,
        model: Transformer,
        partitioner: Partitioner,
        buckets: LengthBuckets,
        tokens_per_batch: int = 16384,
    ):
        self.model = model
        self.partitioner = partitioner
        self.buckets = buckets
        self.tokens_per_batch = tokens_per_batch
        self.work = Work()

    @cached_property
    def param_shardings(self) -> Any:
        return self.partitioner.param_shardings(*abstract_params(self.model))

    def place(self, params: Any) -> Any:
        """Puts host parameters on the mesh by the rules."""
        return jax.device_put(params, self.param_shardings)

    @cached_property
    def _decode(self):
        def decode(params, prompts_BxL):
            return greedy_decode(
                self.model, params, prompts_BxL, self.buckets.max_target_length, eos_id=EOS_ID
            )

        rows = self.partitioner.batch_sharding
        return jax.jit(decode, in_shardings=(self.param_shardings, rows), out_shardings=rows)

    @cached_property
    def _score(self):
        def score(params, prompts_BxL, targets_BxT):
            logits_BxTxV = self.model.apply(
                {"params": params},
                prompts_BxL,
                shift_right(targets_BxT),
                targets_BxT,
                enable_dropout=False,
            )
            return mean_log_likelihood(logits_BxTxV, targets_BxT)

        rows = self.partitioner.batch_sharding
        return jax.jit(score, in_shardings=(self.param_shardings, rows, rows), out_shardings=rows)

    def generate(self, params: Any, prompts: Sequence[Tokens]) -> list[list[int]]:
        """Returns the greedy answers' ids alone; see `decode`."""
        return self.decode(params, prompts).tokens

    def decode(self, params: Any, prompts: Sequence[Tokens]) -> Answers:
        """Decodes greedily.

        Args:
          prompts: token ids, each ending in end-of-sequence, at most `max_source_length`.
        """
        shapes = [(padded_length(len(p), self.buckets.inputs),) for p in prompts]
        answers: list[Any] = [None] * len(prompts)
        log_likelihoods = np.zeros(len(prompts), np.float32)
        finished = np.zeros(len(prompts), bool)
        for indices, decoded in self._run(self._decode, params, shapes, (prompts,)):
            log_likelihoods[indices] = decoded.log_likelihood
            finished[indices] = decoded.finished
            for index, row, length in zip(indices, decoded.tokens.tolist(), decoded.lengths.tolist()):
                answers[index] = row[: length - (row[length - 1] == EOS_ID)]
        self._count_flops(prompts, [[*answer, EOS_ID] for answer in answers])
        return Answers(answers, log_likelihoods, finished)

    def log_likelihoods(
        self, params: Any, prompts: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> np.ndarray:
        """Teacher-forces `targets` under `prompts`, both ending in end-of-sequence.

        Returns:
          float32 [len(prompts)]: mean log-likelihood of a target's tokens.
        """
        shapes = [
            (
                padded_length(len(p), self.buckets.inputs),
                padded_length(len(t), self.buckets.targets),
            )
            for p, t in zip(prompts, targets, strict=True)
        ]
        result = np.zeros(len(prompts), np.float32)
        for indices, values_B in self._run(self._score, params, shapes, (prompts, targets)):
            result[indices] = values_B
        self._count_flops(prompts, targets)
        return result

    def _run(self, compiled, params, shapes, columns):
        """Dispatches all batches, then yields (row indices, host arrays) of each."""
        start = time.perf_counter()
        pending = []
        with self.partitioner.activate():
            for shape, indices in batches_by_length(
                shapes, self.tokens_per_batch, self.partitioner.data_size
            ):
                arrays = [
                    pad_rows([column[i] for i in indices], length)
                    for column, length in zip(columns, shape)
                ]
                output = compiled(params, *self.partitioner.shard_batch(arrays))
                jax.tree.map(lambda array: array.copy_to_host_async(), output)
                pending.append((indices, output))
                self.work.padded_tokens += arrays[0].size
        for indices, output in pending:
            yield indices, jax.tree.map(np.asarray, output)
        self.work.seconds += time.perf_counter() - start

    def _count_flops(self, prompts: Sequence[Tokens], targets: Sequence[Tokens]) -> None:
        self.work.prompts += len(prompts)
        self.work.tokens += sum(map(len, prompts))
        self.work.flops += sum(
            flops_per_example(self.model.config, len(prompt), len(target))
            for prompt, target in zip(prompts, targets)
        )
