"""Answers to the prompts of one process: slots that are refilled as they empty."""

import gc
import math
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ait_jax.models import slots
from ait_jax.models.decoding import Rows
from ait_jax.models.interface import Model, runs_prefixes
from ait_jax.models.likelihood import PAD_ID
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.models.prefix_slots import Packed, PrefixModel
from ait_jax.models.prompt_slots import PromptModel
from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.runtime import preemption
from ait_jax.runtime.hardware import options_of_large_products
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.batching import LengthBuckets, Tokens, finer_lengths, pad_rows, padded_length
from ait_jax.scorer.program_cache import maps_are_scarce
from ait_jax.scorer.shared_prefixes import SharedPrefix
from ait_jax.scorer.slot_pools import ROWS, Budget, SlotPool, SlotShape, packed, pooled

# Rows of a slot. A slot waits for its slowest row, so a prefix of more rows is run more often.
MOST_MEMBERS = 16
_MEMBERS = (1, 2, 3, 4, 6, 8, 10, 12, 16)
# On a CPU slots may take at least this many bytes: a small model's steps spend most of their time
# on reading the weights, for however few rows.
_LEAST_ON_CPU = 2**30
# By how much slots may be too long; prefixes and prompts are run with less padding.
_SLOT_GROWTH, _PREFILL_GROWTH = 1.5, 1.25


class DecodedRow(NamedTuple):
    """The greedy answer to one prompt.

    Attributes:
      row: the prompt's place among the prompts.
      tokens: of the answer, end-of-sequence included if it came.
      log_likelihood: mean over the tokens, with end-of-sequence in place of the last.
      generated: mean over the tokens themselves, without padding.
    """

    row: int
    tokens: list[int]
    log_likelihood: float
    generated: float


class ContinuousDecoder:
    """Decodes greedily; see `slots`.

    Args:
      model: in the engine's form, one that `interface.decodes_in_slots`.
      buckets: the longest prompt and answer.
      tokens_per_batch: budget of tokens of all slots, answers included; on a CPU at least what
        fits into a gigabyte.

    Attributes:
      padded_tokens: prompt tokens that the device saw.
    """

    def __init__(
        self, model: Model, partitioner: Partitioner, buckets: LengthBuckets, tokens_per_batch: int
    ) -> None:
        self.partitioner = partitioner
        config: Any = model.config
        on_cpu = partitioner.platform == "cpu"
        self._shares = runs_prefixes(model)
        self._model = (PrefixModel if self._shares else PromptModel)(model, apart=on_cpu)
        length, at_a_time = buckets.max_answer_length, partitioner.data_size
        if on_cpu:
            bytes_per_token = config.kept_values * jnp.dtype(config.dtype).itemsize
            tokens_per_batch = max(tokens_per_batch, _LEAST_ON_CPU // bytes_per_token)
        weights = _step_weights(model) / config.kept_values
        self._budget = Budget(tokens_per_batch, length, at_a_time, weights)
        self.padded_tokens = 0
        lengths = (buckets.max_source_length,)
        self._slot_lengths = finer_lengths(lengths, _SLOT_GROWTH, multiple_of=32)
        self._prefill_lengths = finer_lengths(lengths, _PREFILL_GROWTH, multiple_of=32)
        self._begin = jax.jit(
            self._model.begin,
            static_argnames="lengths",
            compiler_options=options_of_large_products(partitioner.platform, config.dtype),
        )
        self._empty = jax.jit(partial(slots.empty, self._model), static_argnums=(1, 2))
        self._fill = jax.jit(slots.fill, donate_argnums=0)
        self._run = jax.jit(
            partial(slots.run, self._model, eos_id=EOS_ID),
            static_argnames="num_slots",
            donate_argnums=1,
        )
        self._chosen = jax.jit(slots.chosen, static_argnames="num_slots")
        # Once for many runs: taken apart in each of them, all parameters would be copied each time.
        self._step_params = jax.jit(self._model.step_params) if on_cpu else None

    def answers(
        self, params: Any, prompts: Sequence[Tokens], groups: Sequence[SharedPrefix]
    ) -> Iterator[DecodedRow]:
        """Yields the answers as they finish.

        Args:
          groups: of at most `MOST_MEMBERS` prompts each; of one each for a model that runs no
            prefixes.
        """
        pools = self._pools(prompts, groups)
        if not pools:
            return
        with self.partitioner.activate():
            step_params = self._step_params(params) if self._step_params else params
            for pool in pools:
                yield from self._pool(params, step_params, prompts, pool)

    def _pools(self, prompts: Sequence[Tokens], groups: Sequence[SharedPrefix]) -> list[SlotPool]:
        shapes, fitting = [], []
        for shared, members in groups:
            length, own = shared, max(len(prompts[member]) for member in members)
            if not self._shares:
                length = own
            elif len(members) == 1:
                # One alone is a prefix, all but the token that the answer follows.
                length = own - 1
            own -= length
            shapes.append(
                SlotShape(
                    padded_length(length, self._slot_lengths),
                    padded_length(len(members), _MEMBERS),
                    padded_length(own, self._slot_lengths) if own else 0,
                )
            )
            fitting.append(SharedPrefix(length, members))
        return pooled(shapes, fitting, self._budget)

    def _pool(
        self, params: Any, step_params: Any, prompts: Sequence[Tokens], pool: SlotPool
    ) -> Iterator[DecodedRow]:
        """Yields the answers to a pool's groups."""
        self._forget_if_maps_are_scarce()
        members, at_a_time = pool.shape.members, self._budget.multiple_of
        num_slots, length = self._budget.slots(pool), self._budget.answer
        state = self._empty(params, (num_slots, *pool.shape), length)
        waiting = deque(pool.groups)
        at_work: dict[int, SharedPrefix] = {}
        while waiting or at_work:
            preemption.check()
            free = [slot for slot in range(num_slots) if slot not in at_work]
            while waiting and len(free) >= at_a_time:
                places, free = free[:at_a_time], free[at_a_time:]
                groups = [waiting.popleft() for _ in range(min(at_a_time, len(waiting)))]
                at_work |= zip(places, groups, strict=False)  # places may stay empty
                begun = self._begun(params, prompts, groups, pool.shape)
                state = self._fill(state, begun, np.array(places, np.int32))
            fewer = self._budget.fewer(pool.shape, num_slots)
            if not waiting and len(at_work) <= fewer < num_slots:
                places = [*at_work, *free][:fewer]
                state = self._chosen(state, np.array(places, np.int32), num_slots=num_slots)
                at_work = dict(enumerate(at_work.values()))
                num_slots = fewer
                continue
            wanted = at_a_time
            if not waiting:
                wanted = num_slots - fewer or num_slots
            state = self._run(step_params, state, jnp.int32(wanted), num_slots=num_slots)
            rows = jax.tree.map(np.asarray, state.rows)
            for slot, group in list(at_work.items()):
                of_slot = slice(slot * members, (slot + 1) * members)
                if rows.done_B[of_slot].all():
                    del at_work[slot]
                    yield from _answers(group, Rows(*(x[of_slot] for x in rows)))

    def _forget_if_maps_are_scarce(self) -> None:
        if maps_are_scarce():
            for function in (self._begin, self._empty, self._fill, self._run, self._chosen):
                jitted: Any = function
                jitted.clear_cache()
            gc.collect()

    def _begun(
        self,
        params: Any,
        prompts: Sequence[Tokens],
        groups: Sequence[SharedPrefix],
        shape: SlotShape,
    ) -> slots.Begun:
        """Returns some groups, and empty ones up to as many as are filled at a time."""
        prefixes: list[Tokens] = [()] * self._budget.multiple_of
        own: list[list[Tokens]] = [[] for _ in prefixes]
        for place, (length, rows) in enumerate(groups):
            prefixes[place] = prompts[rows[0]][:length]
            own[place] = [prompts[row][length:] for row in rows]
        length = min(shape.prefix, padded_length(max(map(len, prefixes)), self._prefill_lengths))
        arrays: Any = pad_rows(prefixes, length)
        self.padded_tokens += arrays.size
        if self._shares:
            arrays = Packed(arrays, *_packed(own, shape.members, self._prefill_lengths))
            self.padded_tokens += arrays.tokens_RxQ.size
        arrays = self.partitioner.shard_batch(arrays)
        return self._begin(params, arrays, lengths=(shape.prefix, shape.own))


def _step_weights(model: Model) -> int:
    """Returns how many parameters a step reads."""
    shapes = abstract_params(model)[0]
    layers = [value for name, value in shapes["decoder"].items() if name.startswith("layers")]
    return num_params(layers) + math.prod(model.config.output_layer(shapes).kernel.shape)


def _packed(
    own: Sequence[Sequence[Tokens]], members: int, widths: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """Returns the other arrays of `Packed`: what stands behind each prefix, side by side in rows.

    Every prefix has the same number of packed rows.
    """
    lengths = [tuple(map(len, texts)) for texts in own]
    width = max(packed(of_one, widths).width for of_one in lengths if of_one)
    packings = [packed(of_one, (width,)).rows if of_one else () for of_one in lengths]
    num_rows = padded_length(max(map(len, packings)), ROWS)
    tokens, texts = np.zeros((2, len(own), num_rows, width), np.int32)
    begins, counts = np.zeros((2, len(own), members), np.int32)
    for place, rows in enumerate(packings):
        for row, numbers in enumerate(rows):
            at = 0
            for number, text in enumerate(numbers, 1):
                length = lengths[place][text]
                tokens[place, row, at : at + length] = own[place][text]
                texts[place, row, at : at + length] = number
                begins[place, text], counts[place, text] = row * width + at, length
                at += length
    return tokens.reshape(-1, width), texts.reshape(-1, width), begins, counts


def _answers(group: SharedPrefix, rows: Rows) -> Iterator[DecodedRow]:
    """Yields the answers of a group's members; a slot may have more rows than those."""
    of_rows = (x.tolist() for x in (rows.tokens_BxT, rows.count_B, rows.ended_sum_B, rows.sum_B))
    for member, tokens, count, ended, total in zip(group.members, *of_rows, strict=False):
        num_real = sum(token != PAD_ID for token in tokens)
        yield DecodedRow(member, tokens[:count], ended / max(count, 1), total / max(num_real, 1))
