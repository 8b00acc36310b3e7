"""Attention to several parts, all at once and in blocks, against NumPy in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ait_jax.models import grouped_attention
from ait_jax.models.grouped_attention import KeyValue, Part, attend
from ait_jax.runtime.partitioning import Partitioner

ROWS, QUERIES, HEADS, KEY_HEADS, HEAD_DIM = 12, 8, 6, 2, 4


@pytest.fixture(scope="module")
def case() -> tuple[jax.Array, list[Part]]:
    """A prefix for three rows each, a part of one length for all, and one seen causally."""
    random = np.random.default_rng(0)

    def part(rows: int, length: int, mask: np.ndarray) -> Part:
        key = random.normal(size=(rows, KEY_HEADS, HEAD_DIM, length))
        value = random.normal(size=(rows, KEY_HEADS, length, HEAD_DIM))
        return Part(
            KeyValue(*(jnp.asarray(x, jnp.float32) for x in (key, value))), jnp.asarray(mask)
        )

    query = jnp.asarray(random.normal(size=(ROWS, QUERIES, HEADS, HEAD_DIM)), jnp.float32)
    real = np.arange(10) < random.integers(4, 10, 4)[:, None]
    causal = np.arange(QUERIES)[:, None] >= np.arange(QUERIES)
    apart = random.random((ROWS, 1, 1)) < 0.5
    return query, [
        part(4, 10, real[:, None]),
        part(ROWS, 5, np.ones((1, 1, 5), bool)),
        part(ROWS, QUERIES, causal & (apart | np.eye(QUERIES, dtype=bool))),
    ]


def float64(query: jax.Array, parts: list[Part]) -> np.ndarray:
    query = np.asarray(query, np.float64)
    result = np.zeros_like(query)
    for row, head in np.ndindex(ROWS, HEADS):
        logits, values = [], []
        for (key, value), mask in parts:
            of_part = row * len(key) // ROWS
            product = query[row, :, head] @ np.asarray(key[of_part, head // 3], np.float64)
            seen = np.broadcast_to(mask, (len(key), *mask.shape[1:]))[of_part]
            logits.append(np.where(seen, product, -np.inf))
            values.append(np.asarray(value[of_part, head // 3], np.float64))
        weights = np.exp(np.concatenate(logits, axis=1))
        weights /= weights.sum(axis=1, keepdims=True)
        result[row, :, head] = weights @ np.concatenate(values)
    return result


def test_all_at_once(case):
    np.testing.assert_allclose(jax.jit(attend)(*case), float64(*case), atol=1e-6)


# A whole row, half of one, one query; one and three blocks a step.
@pytest.mark.parametrize("logits", [2**20, HEADS * QUERIES * 23 // 2, 1])
@pytest.mark.parametrize("at_once", [1, 3])
def test_blocks(case, logits, at_once, monkeypatch):
    monkeypatch.setattr(grouped_attention, "_BLOCK_LOGITS", logits)
    monkeypatch.setattr(grouped_attention, "_MOST_AT_ONCE", at_once)
    monkeypatch.setattr(grouped_attention.os, "cpu_count", lambda: 8)
    blocks = jax.jit(lambda *case: attend(*case, blocks_dtype=jnp.float32))(*case)
    np.testing.assert_allclose(blocks, float64(*case), atol=1e-6)


@pytest.mark.parametrize("num_partitions", [2, 4])
def test_blocks_take_rows_of_every_shard(case, num_partitions):
    partitioner = Partitioner(num_partitions)
    query, parts = case
    key_values = [part.key_value for part in parts]
    query, key_values = jax.device_put((query, key_values), partitioner.batch_sharding)

    def blocks(query, key_values):
        given = [Part(kv, part.mask) for kv, part in zip(key_values, parts, strict=True)]
        return attend(query, given, blocks_dtype=jnp.float32)

    with partitioner.activate():
        result = jax.jit(blocks, out_shardings=partitioner.batch_sharding)(query, key_values)
    np.testing.assert_allclose(result, float64(*case), atol=1e-6)


def test_blocks_have_the_plain_gradient(case, monkeypatch):
    monkeypatch.setattr(grouped_attention, "_BLOCK_LOGITS", HEADS * QUERIES * 23 // 2)
    query, parts = case

    def loss(query, key_values, **options):
        given = [Part(kv, part.mask) for kv, part in zip(key_values, parts, strict=True)]
        return jnp.sum(attend(query, given, **options) ** 2)

    arguments = (query, [part.key_value for part in parts])
    of_blocks = jax.jit(jax.grad(partial(loss, blocks_dtype=jnp.float32), (0, 1)))
    gradients, plain = of_blocks(*arguments), jax.jit(jax.grad(loss, (0, 1)))(*arguments)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), gradients, plain)


def test_products_of_blocks_in_bfloat16(case):
    blocks = jax.jit(partial(attend, blocks_dtype=jnp.bfloat16))(*case)
    assert blocks.dtype == jnp.float32
    np.testing.assert_allclose(blocks, float64(*case), atol=0.05)
    assert np.abs(blocks - float64(*case)).max() > 1e-4
