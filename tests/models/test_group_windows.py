"""Attention inside of rows of groups against NumPy in float64, from what the groups are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ait_jax.models.group_windows import BLOCK, Groups, attend_windows, window_lengths, windows_of
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer.group_rows import GroupRows
from ait_jax.scorer.shared_prefixes import SharedPrefix

HEADS, KEY_HEADS, HEAD_DIM = 6, 2, 4
# (prefix, texts): groups that begin and end inside of blocks of 64, one without a prefix, one text
# longer than a block, one prefix longer than two.
GROUPS = [
    (150, (30, 5, 70)),
    (20, (3, 4)),
    (0, (25,)),
    (17, (1, 40, 9)),
    (33, (90, 12)),
    (70, (8,)),
]


@pytest.fixture(scope="module")
def rows() -> GroupRows:
    prompts, groups = [], []
    for length, own in GROUPS:
        groups.append(SharedPrefix(length, tuple(range(len(prompts), len(prompts) + len(own)))))
        prompts += [[2] * (length + text) for text in own]
    return GroupRows(groups, prompts, [[1]] * len(prompts), most=384)


@pytest.fixture(scope="module")
def case(rows):
    """Queries, keys and values of two rows, their groups, the length of their longest window."""
    shape, places = max(rows.shapes), [0, 1]
    _, *groups, _, _ = rows.arrays(shape, places)
    random = np.random.default_rng(0)
    length = shape[0]
    query = random.normal(size=(2, length, HEADS, HEAD_DIM))
    key = random.normal(size=(2, KEY_HEADS, HEAD_DIM, length))
    value = random.normal(size=(2, KEY_HEADS, length, HEAD_DIM))
    query, key, value = (jnp.asarray(x, jnp.float32) for x in (query, key, value))
    return (
        query,
        KeyValue(key, value),
        Groups(*map(jnp.asarray, groups)),
        shape[1],
        [rows.rows[p] for p in places],
    )


def float64(query, key_value, groups_of_rows, rows: GroupRows) -> np.ndarray:
    """Every text behind its prefix by itself; NaN where there is none."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, *key_value))
    result = np.full_like(query, np.nan)
    for row, groups in enumerate(groups_of_rows):
        at = 0
        for group in groups:
            prefix = list(range(at, at + group.length))
            at += group.length
            texts = [prefix]
            for member in group.members:
                own = len(rows.prompts[member]) - group.length
                texts.append([*prefix, *range(at, at + own)])
                at += own
            for text, head in ((t, h) for t in texts for h in range(HEADS)):
                logits = query[row, text, head] @ key[row, head // 3][:, text]
                causal = np.tri(len(text), dtype=bool)
                weights = np.where(causal, np.exp(logits), 0.0)
                weights /= weights.sum(axis=1, keepdims=True)
                result[row, text, head] = weights @ value[row, head // 3][text]
    return result


@pytest.mark.parametrize("in_steps", [False, True])
@pytest.mark.parametrize("data_size", [1, 2])
def test_every_text_sees_its_prefix_and_itself(case, rows, in_steps, data_size):
    query, key_value, groups, longest, groups_of_rows = case

    def attended(query, key_value, groups):
        return attend_windows(query, key_value, windows_of(groups, longest, in_steps=in_steps))

    partitioner = Partitioner(jax.device_count() // data_size)
    with partitioner.activate():
        placed = jax.device_put((query, key_value, groups), partitioner.batch_sharding)
        found = np.asarray(jax.jit(attended)(*placed))
    wanted = float64(query, key_value, groups_of_rows, rows)
    real = ~np.isnan(wanted[:, :, 0, 0])
    # A prefix of 17 tokens stands in both rows.
    assert real.sum() == sum(length + sum(texts) for length, texts in GROUPS) + 17
    assert not real.all()
    np.testing.assert_allclose(found[real], wanted[real], atol=1e-6)
    assert np.isfinite(found).all()


def test_steps_have_windows_of_several_lengths(case):
    _, _, groups, longest, _ = case
    windows = windows_of(groups, longest, in_steps=True)
    assert sorted(windows.blocks_BxC[0].tolist()) == list(range(windows.blocks_BxC.shape[1]))
    lengths = window_lengths(longest)
    assert (
        lengths[0] >= BLOCK and lengths[-1] == longest and len(set(windows.lengths_S.tolist())) > 1
    )
