"""The scorer's engine with a stopwatch, through its public methods only."""

import time
from pathlib import Path
from typing import Any

import common
import workload

from ait_jax.models.t5 import Transformer
from ait_jax.pool import TaskPool
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.scorer import Scorer


class TimedEngine(Engine):
    """Adds up what its two calls took since the last `restart`.

    Attributes:
      decode_seconds, teacher_forcing_seconds: in `decode` and in `log_likelihoods`.
      decoded_lengths: tokens of every answer, end-of-sequence included.
    """

    @classmethod
    def of(
        cls,
        model: Transformer,
        tokens_per_batch: int | None = None,
        buckets: LengthBuckets | None = None,
    ) -> "TimedEngine":
        """Makes one on all devices, with the engine's own defaults where None is given."""
        given = {} if tokens_per_batch is None else {"tokens_per_batch": tokens_per_batch}
        engine = cls(model, Partitioner(), buckets or LengthBuckets(), **given)
        engine.restart()
        return engine

    def restart(self) -> None:
        self.decode_seconds = self.teacher_forcing_seconds = 0.0
        self.decoded_lengths: list[int] = []
        self.work.clear()

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        answers = super().decode(*args, **kwargs)
        self.decode_seconds += time.perf_counter() - start
        most = self.buckets.max_answer_length
        self.decoded_lengths += [min(len(tokens) + 1, most) for tokens in answers.tokens]
        return answers

    def log_likelihoods(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        values = super().log_likelihoods(*args, **kwargs)
        self.teacher_forcing_seconds += time.perf_counter() - start
        return values


def score(
    pool: TaskPool,
    path: Path,
    engine: Engine,
    params: Any,
    *,
    instances: int,
    perturbations: int,
    vocabulary: Vocabulary | None = None,
) -> float:
    """Scores every task of `pool`; returns the seconds it took, tokenizing and writing included.

    Args:
      vocabulary: of prompts and answers; None is the benchmarks' own.
    """
    scorer = Scorer(num_instances=instances, num_perturbations=perturbations)
    start = time.perf_counter()
    encoding = TkInstructEncoding(max_source_length=engine.buckets.max_source_length)
    asker = Asker(engine, params, pool, vocabulary or workload.vocabulary(), encoding, common.SEED)
    scorer.score(asker, list(pool), path, round_index=workload.ROUND)
    return time.perf_counter() - start
