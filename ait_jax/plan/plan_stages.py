"""The three programs of an experiment, compiled for a mesh: train step, teacher forcing, decode."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ait_jax.models.interface import changed
from ait_jax.plan.compiled_stage import CompiledStage, bytes_per_chip, compile_stage
from ait_jax.plan.planned import Planned
from ait_jax.runtime.hardware import Chip
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import rows_per_batch
from ait_jax.scorer.engine import DECODING_BATCH, Engine

TRAIN, FORCE, DECODE = "train step", "teacher forcing", "decode"
STAGES = (TRAIN, FORCE, DECODE)
_ANY_STEPS = 1000  # of a schedule over a training: a step costs the same whatever they are


@dataclass(frozen=True)
class PlanStages:
    """Compiles the stages of `planned` on `partitioner`'s mesh of `chip`s.

    Layers are scanned: the program then has one of each kind, compiled in seconds.
    """

    planned: Planned
    partitioner: Partitioner
    chip: Chip

    @property
    def chips(self) -> int:
        return self.partitioner.mesh.size

    @property
    def lengths(self) -> tuple[int, int]:
        """The longest prompt and answer, which every stage is compiled for."""
        buckets = self.planned.buckets
        return buckets.max_source_length, buckets.max_target_length

    def scoring_rows(self, name: str, tokens_per_batch: int) -> int:
        """Returns the rows of a batch of teacher forcing or decoding."""
        budget = tokens_per_batch * (DECODING_BATCH if name == DECODE else 1)
        return rows_per_batch(self.lengths[0], budget, self.partitioner.data_size)

    def score(self, name: str, tokens_per_batch: int) -> CompiledStage:
        """Compiles teacher forcing or decoding; every row decodes to the longest answer."""
        source, target = self.lengths
        planned = self.planned
        engine = Engine(planned.model, self.partitioner, planned.buckets, tokens_per_batch)
        rows = self.scoring_rows(name, tokens_per_batch)
        shape = (rows, source) if name == DECODE else (rows, source, target)
        config = engine.model.config
        return compile_stage(
            name,
            lambda: engine.compile(shape),
            self.chip,
            weights=bytes_per_chip(engine.placed_params),
            unknown_trips=target,
            rows=rows,
            lengths=self.lengths,
            chips=self.chips,
            ideal_flops=config.flops_per_example(source, target) * rows / self.chips,
            settings={"TOKENS_PER_BATCH": tokens_per_batch},
        )

    def train(self, batch_size: int, num_microbatches: int, remat_policy: str) -> CompiledStage:
        """Compiles a train step on rows of the longest prompts and answers."""
        trainer = self.planned.trainer
        self.partitioner.check_batch_size(
            batch_size // num_microbatches, f"{trainer.gin_name}.batch_size / num_microbatches"
        )
        model = changed(self.planned.model, scan_layers=True, remat_policy=remat_policy)
        optimizer = trainer.optimizer(trainer.schedule_over(_ANY_STEPS))
        step, begin = trainer.compiled_step(model, optimizer, self.partitioner, num_microbatches)
        state, *others = begin
        source, target = self.lengths
        batch = {
            name: jax.ShapeDtypeStruct(
                (batch_size, length), jnp.int32, sharding=self.partitioner.batch_sharding
            )
            for name, length in (("inputs", source), ("targets", target))
        }

        def compiled():
            with self.partitioner.activate():
                return step.lower(*begin, batch, jax.ShapeDtypeStruct((), jnp.uint32)).compile()

        share = batch_size / self.chips
        forward = model.config.flops_per_example(source, target) * share
        return compile_stage(
            TRAIN,
            compiled,
            self.chip,
            weights=bytes_per_chip((state.params, others)),
            optimizer=bytes_per_chip(state.opt_state),
            rows=batch_size,
            lengths=self.lengths,
            chips=self.chips,
            ideal_flops=trainer.forward_passes * forward,
            recomputed_flops=model.config.recomputed_flops(source, target) * share,
            settings={
                "BATCH_SIZE": batch_size,
                "NUM_MICROBATCHES": num_microbatches,
                "REMAT_POLICY": remat_policy,
            },
        )
