"""The three programs of an experiment, compiled for a mesh, and the largest batches that fit it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from ait_jax.models.interface import REMAT_POLICIES, changed
from ait_jax.plan.compiled_program import CompiledProgram, bytes_per_chip, measure
from ait_jax.plan.planned import DECODE, TRAIN, Planned
from ait_jax.runtime import reporter
from ait_jax.runtime.hardware import Chip
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import rows_per_batch
from ait_jax.scorer.engine import DECODING_BATCH, Engine
from ait_jax.trainer.step import StepScalars

# What is left free: the memory of a larger batch is estimated from that of a smaller one.
_MARGIN = 0.92
_MOST_TRIES = 3


@dataclass(frozen=True)
class Programs:
    """Compiles the programs of `planned` on `partitioner`'s mesh of `chip`s.

    Layers are scanned: the program then has one of each kind, compiled in seconds.
    """

    planned: Planned
    partitioner: Partitioner
    chip: Chip

    @property
    def chips(self) -> int:
        """How many chips the mesh has."""
        return self.partitioner.mesh.size

    @property
    def lengths(self) -> tuple[int, int]:
        """The longest prompt and answer, which every program is compiled for."""
        buckets = self.planned.buckets
        return buckets.max_source_length, buckets.max_target_length

    def score(self, name: str, tokens_per_batch: int) -> CompiledProgram:
        """Compiles teacher forcing or decoding; every row decodes to the longest answer."""
        source, target = self.lengths
        planned = self.planned
        engine = Engine(planned.model, self.partitioner, planned.buckets, tokens_per_batch)
        budget = tokens_per_batch * (DECODING_BATCH if name == DECODE else 1)
        rows = rows_per_batch(source, budget, self.partitioner.data_size)
        shape = (rows, source) if name == DECODE else (rows, source, target)
        config = engine.model.config
        return measure(
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

    def train(self, batch_size: int, num_microbatches: int, remat_policy: str) -> CompiledProgram:
        """Compiles a train step on rows of the longest prompts and answers."""
        trainer = replace(
            self.planned.training, batch_size=batch_size, num_microbatches=num_microbatches
        )
        trainer.check_batch_size(self.partitioner)
        model = changed(self.planned.model, scan_layers=True, remat_policy=remat_policy)
        step, begin = trainer.compiled_step(model, self.partitioner)
        state, *others = begin
        source, target = self.lengths
        batch = {
            name: jax.ShapeDtypeStruct(
                (batch_size, length), jnp.int32, sharding=self.partitioner.batch_sharding
            )
            for name, length in (("inputs", source), ("targets", target))
        }

        def compiled() -> jax.stages.Compiled:
            with self.partitioner.activate():
                scalar = partial(jax.ShapeDtypeStruct, ())
                scalars = StepScalars(scalar(jnp.uint32), scalar(jnp.float32))
                return step.whole.lower(*begin, batch, scalars).compile()

        share = batch_size / self.chips
        forward = model.config.flops_per_example(source, target) * share
        return measure(
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

    # What fits

    def largest_scoring_batch(self, first: CompiledProgram) -> CompiledProgram | None:
        """Returns the program of the largest TOKENS_PER_BATCH that fits; None where none does.

        Args:
          first: the program as configured.
        """
        tokens_per_row = first.settings["TOKENS_PER_BATCH"] / first.rows
        return self._largest(
            first,
            lambda rows: self.score(first.name, round(rows * tokens_per_row)),
            self.planned.scoring.prompts_per_chunk,
            first.memory.weights,
        )

    def best_train_step(self, first: CompiledProgram) -> CompiledProgram | None:
        """Returns the fastest train step of BATCH_SIZE examples that fits, None where none does.

        For every remat policy, the one that recomputes least first, the batch is divided into as
        few microbatches as fit; policies that recompute more are tried only while none has fitted,
        or microbatches were needed.
        """
        batch_size = first.rows
        best = None
        for policy in REMAT_POLICIES:
            settings = first.settings
            same = settings["REMAT_POLICY"] == policy and settings["NUM_MICROBATCHES"] == 1
            found = self._largest(
                first if same else _said(self.train(batch_size, 1, policy)),
                lambda rows, policy=policy: self.train(batch_size, batch_size // rows, policy),
                batch_size,
                self._fixed(first, 2),  # gradients, and their sums over microbatches
            )
            if found is not None and (best is None or found.roofline < best.roofline):
                best = found
            if best is not None and best.settings["NUM_MICROBATCHES"] == 1:
                break
        return best

    def largest_train_batch(self, best: CompiledProgram) -> CompiledProgram | None:
        """Returns the largest batch of one microbatch under the policy of `best`, if larger."""
        if best.settings["NUM_MICROBATCHES"] > 1:
            return None
        policy = best.settings["REMAT_POLICY"]
        found = self._largest(
            best, lambda rows: self.train(rows, 1, policy), 64 * best.rows, self._fixed(best, 1)
        )
        return found if found is not None and found.rows > best.rows else None

    def _fixed(self, program: CompiledProgram, gradients: int) -> float:
        """Returns the bytes that do not grow with the batch; gradients of adapters are few."""
        copies = 1 + gradients * self.planned.training.trains_all
        return copies * program.memory.weights + program.memory.optimizer

    def _largest(
        self,
        known: CompiledProgram,
        compile: Callable[[int], CompiledProgram],
        most: int,
        fixed: float,
    ) -> CompiledProgram | None:
        """Tries as many rows, up to `most`, as `known` suggests, and fewer while they do not fit.

        Args:
          fixed: bytes that do not grow with the rows.
        """
        multiple_of = self.partitioner.data_size
        fitting = known if known.fits else None
        given = known.rows // known.settings.get("NUM_MICROBATCHES", 1)
        per_row = max(known.memory.total - fixed, known.memory.total * 0.1) / given
        room = known.memory.capacity * _MARGIN - fixed
        rows = _power_of_two_times(multiple_of, min(room / per_row, most))
        for _ in range(_MOST_TRIES):
            if rows < multiple_of or (fitting is not None and rows <= given):
                break
            tried = _said(compile(rows))
            if tried.fits:
                return tried
            rows = _power_of_two_times(multiple_of, rows / 2)
        return fitting


def _power_of_two_times(multiple_of: int, rows: float) -> int:
    """Returns the largest multiple_of * 2**i that is at most `rows`; 0 where there is none."""
    if rows < multiple_of:
        return 0
    return multiple_of * 2 ** (int(rows / multiple_of).bit_length() - 1)


def _said(program: CompiledProgram) -> CompiledProgram:
    settings = ", ".join(f"{name} = {value}" for name, value in program.settings.items())
    needed = program.memory.total / 2**30
    verdict = "does not fit"
    if program.fits:
        verdict = f"fits, {program.roofline / program.rows:.2e} s a row"
    reporter.say(f"  tried {program.name}, {settings}: {needed:.1f} GiB, {verdict}")
    return program
