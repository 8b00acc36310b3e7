"""Prompts in, answers or log-likelihoods out: compiled once per shape, sharded over the mesh."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ait_jax.models import monte_carlo_dropout
from ait_jax.models.decoding import Decoded, greedy_decode
from ait_jax.models.group_windows import BLOCK, Groups
from ait_jax.models.interface import Model, decodes_in_slots, runs_prefixes
from ait_jax.models.likelihood import (
    fused_mean_log_likelihood,
    fused_token_log_likelihoods,
    shift_right,
)
from ait_jax.models.parameters import abstract_params, match_layout
from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.runtime import preemption, reporter
from ait_jax.runtime.hardware import options_of_large_products, target_platform
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import (
    LengthBuckets,
    PaddedRows,
    Tokens,
    finer_lengths,
)
from ait_jax.scorer.continuous import MOST_MEMBERS, ContinuousDecoder, DecodedRow
from ait_jax.scorer.group_rows import GroupRows
from ait_jax.scorer.processes import fetch, slots_of_all_processes
from ait_jax.scorer.program_cache import ProgramCache
from ait_jax.scorer.shared_prefixes import SharedPrefix, grouped
from ait_jax.scorer.work import Work

# Batches given to the device before the first of them is fetched: enough that it never waits
# for the host, few enough that their temporary buffers fit.
_IN_FLIGHT = 3
# In the place of a target length: no target.
_ENCODE_ONLY = 0
# Behind the lengths of prompts and targets: what dropout draws rows with, and a mark that it does.
_DROPPING = (3, 0)
# A step of decoding reads all weights for one token of each row, so its batches are larger by this.
DECODING_BATCH = 2


class Answers(NamedTuple):
    """Greedy answers to a list of prompts.

    Attributes:
      tokens: for every prompt the answer's ids, end-of-sequence left out.
      log_likelihoods: float32 [prompts], mean over the answer's tokens and end-of-sequence. An
        answer that reached the longest length without it has it in place of its last token, as
        it would be scored.
      generated: float32 [prompts], mean over the tokens that were decoded, without padding: the
        perplexity baseline's. None is unknown.
    """

    tokens: list[list[int]]
    log_likelihoods: np.ndarray
    generated: np.ndarray | None = None


class Engine:
    """Runs a model over many prompts.

    Every call is given parameters from `place` and this process's texts: token ids that end in
    end-of-sequence, at most `max_source_length`.

    Args:
      model: any form of it; the engine uses its own (`ModelConfig.for_scoring`).
      buckets: their last lengths are the longest prompt and answer; the engine's own lengths
        lie closer together.
      tokens_per_batch: budget of padded input tokens of one batch of teacher forcing, targets
        included where prefixes are shared; decoding takes twice as many.
      length_growth: every padded prompt length is at most this many times the one before.
      share_prefixes: run what several prompts begin with once, if the model can.
      in_slots: when an answer ends, decode another in its place, if the model can and one process
        alone runs it.
    """

    def __init__(
        self,
        model: Model,
        partitioner: Partitioner,
        buckets: LengthBuckets,
        tokens_per_batch: int = 8192,
        length_growth: float = 1.06,
        share_prefixes: bool = True,
        in_slots: bool = True,
    ) -> None:
        config = model.config.for_scoring(partitioner.platform)
        self.model = model.clone(config=config)
        self.partitioner = partitioner
        self.buckets = buckets
        self.input_lengths = finer_lengths(buckets.inputs, length_growth)
        self.target_lengths = finer_lengths(buckets.targets, 2.0)
        self.tokens_per_batch = tokens_per_batch
        self.shares_prefixes = share_prefixes and runs_prefixes(self.model)
        self.work = Work()
        self._programs = ProgramCache(self.compile)
        self._in_slots = in_slots and decodes_in_slots(self.model)

    @cached_property
    def _decoder(self) -> ContinuousDecoder:
        budget = DECODING_BATCH * self.tokens_per_batch
        return ContinuousDecoder(self.model, self.partitioner, self.buckets, budget)

    @cached_property
    def placed_params(self) -> Any:
        """Shapes, dtypes and shardings of what `place` returns.

        Matrices are kept in the dtype of the multiplication, which is what they are cast to in
        every pass; norms, biases and position biases stay float32. On a CPU all are float32: XLA
        would make that of stacked bfloat16 matrices at the start of every batch.
        """
        on_cpu = self.partitioner.platform == "cpu"
        shapes, axes = abstract_params(self.model)
        shardings = self.partitioner.param_shardings(shapes, axes)

        def placed(path: Any, shape: Any, sharding: Any) -> jax.ShapeDtypeStruct:
            small = path[-1].key in ("scale", "rel_embedding", "bias")
            dtype = shape.dtype if small or on_cpu else self.model.config.dtype
            return jax.ShapeDtypeStruct(shape.shape, dtype, sharding=sharding)

        return jax.tree_util.tree_map_with_path(placed, shapes, shardings)

    def place(self, params: Any) -> Any:
        """Puts parameters, from the host or a mesh, on the engine's mesh in the engine's form."""
        wanted = self.placed_params

        def convert(params: Any) -> Any:
            params = match_layout(params, self.model.config.scan_layers)
            return jax.tree.map(lambda leaf, to: leaf.astype(to.dtype), params, wanted)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)
        return jax.jit(convert, out_shardings=shardings)(params)

    def decode(self, params: Any, prompts: Sequence[Tokens]) -> Answers:
        """Decodes greedily."""
        # One process alone knows which slots are free.
        in_slots = self._in_slots and jax.process_count() == 1
        decoded = (self._decode_in_slots if in_slots else self._decode_in_batches)(params, prompts)
        answers: list[list[int]] = [[] for _ in prompts]
        log_likelihoods, generated = np.zeros((2, len(prompts)), np.float32)
        for answer in decoded:
            log_likelihoods[answer.row] = answer.log_likelihood
            generated[answer.row] = answer.generated
            finished = answer.tokens[-1:] == [EOS_ID]
            answers[answer.row] = answer.tokens[:-1] if finished else answer.tokens
        self._count(prompts, [[*answer, EOS_ID] for answer in answers])
        return Answers(answers, log_likelihoods, generated)

    def _decode_in_batches(self, params: Any, prompts: Sequence[Tokens]) -> Iterator[DecodedRow]:
        budget = DECODING_BATCH * self.tokens_per_batch
        job = PaddedRows((prompts, self.input_lengths), tokens_per_batch=budget)
        for rows, slots, decoded in self._run("answers", params, job):
            names = ("tokens", "lengths", "ended_log_likelihood", "log_likelihood")
            columns = (getattr(decoded, name)[slots].tolist() for name in names)
            for row, ids, length, ended, generated in zip(rows, *columns, strict=True):
                yield DecodedRow(row, ids[:length], ended, generated)

    def _decode_in_slots(self, params: Any, prompts: Sequence[Tokens]) -> Iterator[DecodedRow]:
        """Yields the answers as they finish, with shared prefixes run once."""
        start = time.perf_counter()
        groups = [SharedPrefix(0, (row,)) for row in range(len(prompts))]
        if self.shares_prefixes:
            groups = grouped(prompts, most_members=MOST_MEMBERS)
        self._decoder.padded_tokens = 0
        self.work.device_busy()
        with reporter.activity("answers", len(prompts)) as show:
            for done, answer in enumerate(self._decoder.answers(params, prompts, groups), 1):
                show(done)
                yield answer
        self.work.device_idle()
        self.work.padded_tokens += self._decoder.padded_tokens
        self.work.seconds += time.perf_counter() - start
        self._count_shared(groups)

    def log_likelihoods(
        self,
        params: Any,
        prompts: Sequence[Tokens],
        targets: Sequence[Tokens],
        drawn_rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Teacher-forces `targets`, which also end in end-of-sequence, under `prompts`.

        Args:
          drawn_rows: int32 [len(prompts), 3], one dropout for every row
            (`monte_carlo_dropout.drawn_rows`); None drops nothing.

        Returns:
          float32 [len(prompts)]: mean log-likelihood of a target's tokens.
        """
        result = np.zeros(len(prompts), np.float32)
        if self.shares_prefixes and drawn_rows is None:
            for row, value in self._in_groups(params, prompts, targets):
                result[row] = value
        else:
            columns = [(prompts, self.input_lengths), (targets, self.target_lengths)]
            if drawn_rows is not None:
                marks: list[Tokens] = [()] * len(prompts)
                columns += [(list(drawn_rows), _DROPPING[:1]), (marks, _DROPPING[1:])]
            job = PaddedRows(*columns, tokens_per_batch=self.tokens_per_batch)
            for rows, slots, values in self._run("likelihoods", params, job):
                result[rows] = values[slots]
        self._count(prompts, targets)
        return result

    def _in_groups(
        self, params: Any, prompts: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> Iterator[tuple[int, float]]:
        """Yields (row, mean log-likelihood), with what prompts share run once."""
        longest = self.buckets.max_source_length + self.buckets.max_target_length
        at_a_time = self.partitioner.data_size
        most = max(longest, self.tokens_per_batch // at_a_time)
        at_a_time //= self.partitioner.row_groups[1]
        job = GroupRows(grouped(prompts), prompts, targets, most, at_a_time)
        for rows, slots, values in self._run("likelihoods", params, job):
            for row, slot in zip(rows, slots, strict=True):
                yield from job.means(row, values[slot])
        self._count_shared([group for row in job.rows for group in row])

    def embed(self, params: Any, texts: Sequence[Tokens]) -> np.ndarray:
        """Returns the mean of the (encoder's) last layer over the real tokens of each text.

        Decoder-only models weigh tokens by position (SGPT: Muennighoff, 2022).

        Returns:
          float32 [len(texts), emb_dim].
        """
        result = np.zeros((len(texts), self.model.config.emb_dim), np.float32)
        columns = (texts, self.input_lengths), ([()] * len(texts), (_ENCODE_ONLY,))
        job = PaddedRows(*columns, tokens_per_batch=self.tokens_per_batch)
        for rows, slots, values in self._run("embeddings", params, job):
            result[rows] = values[slots]
        self.work.prompts += len(texts)
        self.work.tokens += sum(map(len, texts))
        self.work.flops += sum(self.model.config.reading_flops(len(text)) for text in texts)
        return result

    def _run(
        self, what: str, params: Any, job: PaddedRows | GroupRows
    ) -> Iterator[tuple[list[int], list[int], Any]]:
        """Yields (rows, their places in the batch, host arrays) of every batch."""
        start = time.perf_counter()
        groups = self.partitioner.row_groups[1]
        slots = slots_of_all_processes(job.shapes)
        shapes = [shape for shape, _ in slots]
        waiting = deque(job.batches(shapes, groups, self.partitioner.data_size // groups))
        program_of = self._programs.in_order((len(b) * groups, *shape) for shape, b in waiting)
        pending: deque[tuple[list[int | None], Any]] = deque()
        done = 0
        with reporter.activity(what, len(job.shapes)) as show:
            while waiting or pending:
                preemption.check()
                if waiting and len(pending) < _batches_in_flight():
                    shape, places = waiting.popleft()
                    rows = [slots[place][1] for place in places]
                    arrays = job.arrays(shape, rows)
                    waited = time.perf_counter()
                    program = program_of((len(rows) * groups, *shape))
                    self.work.device_busy(time.perf_counter() - waited)
                    batch = self.partitioner.shard_batch(arrays)
                    output = program(params, *batch)
                    jax.tree.map(lambda array: array.copy_to_host_async(), output)
                    self.work.padded_tokens += job.padded_tokens(arrays, rows)
                    pending.append((rows, output))
                    continue
                rows, output = pending.popleft()
                fetched = jax.tree.map(fetch, output)
                real = [(row, slot) for slot, row in enumerate(rows) if row is not None]
                done += len(real)
                show(done)
                yield [row for row, _ in real], [slot for _, slot in real], fetched
        self.work.device_idle()
        self.work.seconds += time.perf_counter() - start

    def compile(self, shape: tuple[int, ...]) -> jax.stages.Compiled:
        """Compiles decoding for (rows, input length), scoring for (rows, input, target length).

        A target length of 0 stands for embedding texts. Scoring of groups that share prefixes is
        (rows, *a shape of `GroupRows`).
        """
        rows, *lengths = shape
        function: Callable[..., Any] = self._decode if len(lengths) == 1 else self._score
        sizes = [(rows, length) for length in lengths]
        if lengths[1:] == [_ENCODE_ONLY]:
            function, sizes = self._embed, sizes[:1]
        elif tuple(lengths[2:]) == _DROPPING:
            function, sizes = self._score_dropping, sizes[:3]
        elif len(lengths) == 3:
            length, longest_window, num_targets = lengths
            function = partial(self._score_groups, longest_window)
            sizes = [(rows, length)] * 4
            sizes += [(rows, length // BLOCK, 3), (rows, num_targets), (rows, num_targets)]
        sharding = self.partitioner.batch_sharding
        arrays = [jax.ShapeDtypeStruct(size, jnp.int32, sharding=sharding) for size in sizes]
        options: dict[str, str | bool] = {}
        if function != self._decode:
            dtype = self.model.config.dtype
            options.update(options_of_large_products(self.partitioner.platform, dtype))
        with self.partitioner.activate():
            jitted = jax.jit(function, out_shardings=sharding)
            lowered = jitted.lower(self.placed_params, *arrays)
            return lowered.compile(compiler_options=options)

    def _decode(self, params: Any, prompts_BxL: jax.Array) -> Decoded:
        return greedy_decode(
            self.model,
            params,
            prompts_BxL,
            self.buckets.max_answer_length,
            eos_id=EOS_ID,
            unroll_layers=target_platform() == "cpu",
        )

    def _score(
        self, params: Any, prompts_BxL: jax.Array, targets_BxT: jax.Array, **options: Any
    ) -> jax.Array:
        hidden_BxTxE = self.model.apply(
            {"params": params},
            prompts_BxL,
            shift_right(targets_BxT),
            targets_BxT,
            enable_dropout=False,
            return_hidden=True,
            **options,
        )
        output = self.model.config.output_layer(params)
        return fused_mean_log_likelihood(hidden_BxTxE, output, targets_BxT)

    def _score_dropping(
        self, params: Any, prompts_BxL: jax.Array, targets_BxT: jax.Array, rows_Bx3: jax.Array
    ) -> jax.Array:
        with monte_carlo_dropout.dropping(rows_Bx3):
            return self._score(
                params, prompts_BxL, targets_BxT, rngs=monte_carlo_dropout.layer_keys()
            )

    def _score_groups(self, longest_window: int, params: Any, *arrays: jax.Array) -> jax.Array:
        """Returns the targets' token log-likelihoods (B, T); arrays as of `GroupRows.arrays`."""
        tokens_BxN, *of_groups, places_BxT, targets_BxT = arrays
        groups = Groups(*of_groups)
        hidden_BxNxE = self.model.apply(
            {"params": params}, tokens_BxN, groups, longest_window, method="extend_within"
        )
        hidden_BxTxE = jnp.take_along_axis(hidden_BxNxE, places_BxT[..., None], axis=1)
        output = self.model.config.output_layer(params)
        return fused_token_log_likelihoods(hidden_BxTxE, output, targets_BxT)

    def _embed(self, params: Any, texts_BxL: jax.Array) -> jax.Array:
        hidden_BxLxE = self.model.apply(
            {"params": params}, texts_BxL, enable_dropout=False, method="represent"
        )
        weights_BxL = (texts_BxL > 0).astype(jnp.float32)
        if runs_prefixes(self.model):  # a later token has seen more of the text
            weights_BxL *= 1 + jnp.arange(texts_BxL.shape[1])
        sum_BxE = jnp.einsum("bl,ble->be", weights_BxL, hidden_BxLxE.astype(jnp.float32))
        return sum_BxE / jnp.maximum(weights_BxL.sum(axis=1), 1)[:, None]  # rows may be empty

    def _count(self, prompts: Sequence[Tokens], targets: Sequence[Tokens]) -> None:
        self.work.prompts += len(prompts)
        self.work.tokens += sum(map(len, prompts))
        self.work.flops += sum(
            self.model.config.flops_per_example(len(prompt), len(target))
            for prompt, target in zip(prompts, targets, strict=True)
        )

    def _count_shared(self, groups: Sequence[SharedPrefix]) -> None:
        """Subtracts what `_count` counted of prefixes that were not run again."""
        for length, members in groups:
            again = len(members) - 1
            self.work.shared_tokens += again * length
            self.work.flops -= again * self.model.config.reading_flops(length)


def _batches_in_flight() -> int:
    # CPU devices run programs in any order: one process would wait for another that is already
    # on the next batch.
    alone = jax.process_count() == 1 or jax.default_backend() != "cpu"
    return _IN_FLIGHT if alone else 1
