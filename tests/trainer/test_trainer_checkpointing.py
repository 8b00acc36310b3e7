"""Checkpoints: what is kept, what is chosen, what damage says, and donated buffers."""

import math
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import assert_trees_equal

from ait_jax.errors import UserError
from ait_jax.trainer.checkpointing import Checkpoints

STATE = {"step": jnp.int32(3), "params": {"w": jnp.arange(4096.0).reshape(64, 64)}}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def saved(directory, values, best_metric="rougeL"):
    """Saves checkpoints 1, 2, ... with these dev metrics (None: no evaluation)."""
    with Checkpoints(directory, best_metric) as checkpoints:
        for step, value in enumerate(values, start=1):
            checkpoints.save(step, STATE, None if value is None else {"rougeL": value})
        checkpoints.wait()
        return checkpoints.steps, checkpoints.chosen_step


@pytest.mark.parametrize(
    "values, kept, chosen",
    [
        ([0.5, 0.7, 0.7, 0.1, 0.2], [2, 4, 5], 2),
        ([0.1, 0.2, 0.3, 0.4], [3, 4], 4),
        ([0.4, None, None, None], [1, 3, 4], 1),
        ([math.nan, 0.0, math.nan, math.nan], [2, 3, 4], 2),
        ([None, None, 0.0], [2, 3], 3),
        ([-3.0, -2.0, -4.0, -5.0], [2, 3, 4], 2),
    ],
)
def test_the_latest_two_and_the_first_of_the_best(tmp_path, values, kept, chosen):
    assert saved(tmp_path, values) == (kept, chosen)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint_{step}" for step in kept]
    with Checkpoints(tmp_path, "rougeL") as again:
        assert (again.steps, again.chosen_step, again.latest_step) == (kept, chosen, kept[-1])


def test_without_a_metric_the_latest_counts(tmp_path):
    assert saved(tmp_path, [0.9, 0.1, 0.2], best_metric=None) == ([2, 3], 3)


def test_the_best_of_two_sittings(tmp_path):
    saved(tmp_path, [0.1, 0.8, 0.3])
    with Checkpoints(tmp_path, "rougeL") as checkpoints:
        checkpoints.save(4, STATE, {"rougeL": 0.8})
        checkpoints.save(5, STATE, {"rougeL": 0.2})
        checkpoints.wait()
        assert checkpoints.chosen_step == 2 and checkpoints.steps == [2, 4, 5]
        checkpoints.keep_only({2, 5})
        assert checkpoints.steps == [2, 5]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_2", "checkpoint_5"]


def test_nothing_saved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step is None
        with pytest.raises(UserError, match="No finished checkpoint in"):
            _ = checkpoints.chosen_step


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path):
    saved(tmp_path, [0.5, 0.6])
    shutil.copytree(tmp_path / "checkpoint_2", tmp_path / "checkpoint_3.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [1, 2]
        checkpoints.save(3, STATE, None)
        checkpoints.wait()
        assert_trees_equal(checkpoints.restore(abstract(STATE)), STATE)


def test_saving_is_not_disturbed_by_donation(tmp_path):
    """The trainer donates its state to the next step while the checkpoint is still written."""

    @jax.jit
    def fresh():
        return {str(i): jnp.arange(1_000_000, dtype=jnp.float32) + i for i in range(4)}

    step = jax.jit(lambda state: jax.tree.map(lambda x: x * 1.5 + 1, state), donate_argnums=0)
    # A copy of the values from arrays of their own: NumPy views would forbid the donation.
    expected = jax.tree.map(np.array, step(fresh()))
    control = step(fresh())
    step(control)
    # Donation must be real here, or the test shows nothing.
    assert all(leaf.is_deleted() for leaf in control.values())
    state = step(fresh())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, None)
        for _ in range(20):
            state = step(state)
        checkpoints.wait()
        assert_trees_equal(checkpoints.restore(abstract(state), 1), expected)


def test_every_truncation_is_an_error_or_harmless(tmp_path):
    saved(tmp_path / "whole", [0.5])
    files = [p for p in (tmp_path / "whole").rglob("*") if p.is_file()]
    refused = set()
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        damaged = copy / file.relative_to(tmp_path / "whole")
        os.truncate(damaged, damaged.stat().st_size // 2)
        try:
            with Checkpoints(copy, "rougeL") as checkpoints:
                assert_trees_equal(checkpoints.restore(abstract(STATE)), STATE)
        except UserError as error:
            assert "checkpoint_1 " in str(error) and "Delete that folder" in str(error)
            refused.add(file.name)
    assert {"metrics", "_METADATA", "manifest.ocdbt"} <= refused
    assert any(file.name in refused for file in files if file.parent.name == "d")


def test_a_checkpoint_of_another_model(tmp_path):
    saved(tmp_path, [0.5])
    other = {**STATE, "params": {"w": STATE["params"]["w"], "v": jnp.ones(2)}}
    message = "checkpoint_1 cannot be read.*another model"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore(abstract(other))


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to .*file.*MODEL_DIR"):
        Checkpoints(tmp_path / "file")


@pytest.mark.parametrize("name", ["run [1]", "we #i?r|d%41*"])
def test_any_name_of_the_folder(tmp_path, name):
    values = {"x": np.arange(3, dtype=np.float32)}
    with Checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(2, values, None)
        checkpoints.wait()
    assert (tmp_path / name / "checkpoint_2").is_dir()
    with Checkpoints(tmp_path / name) as again:
        restored = again.restore({"x": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(restored["x"], values["x"])
