"""Checkpoints of T5X and our own: read whole, or refused with what is wrong."""

import shutil

import flax
import jax
import msgpack
import numpy as np
import pytest
from shared_data import GOLDEN_T5X, needs_shared

from ait_jax.errors import UserError
from ait_jax.models import parameters, t5
from ait_jax.models.checkpoints import checkpoints, orbax_checkpoint, t5x_legacy, weights

CONFIG = t5.T5Config(
    vocab_size=48,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=4,
    mlp_dim=16,
    mlp_activations=("gelu", "linear"),
)
FORMS = ["legacy_checkpoint", "orbax_checkpoint"]


def assert_equal(params, expected):
    params, expected = parameters.flatten(params), parameters.flatten(expected)
    assert list(params) == list(expected)
    for name, value in expected.items():
        assert isinstance(params[name], np.ndarray) and params[name].dtype == np.float32
        np.testing.assert_array_equal(params[name], value)


@pytest.fixture(scope="module")
def golden():
    return flax.traverse_util.unflatten_dict(dict(np.load(GOLDEN_T5X / "params.npz")), sep="/")


@pytest.fixture
def legacy(tmp_path):
    return writable_copy(GOLDEN_T5X / "legacy_checkpoint", tmp_path / "legacy")


@pytest.fixture
def orbax(tmp_path):
    return writable_copy(GOLDEN_T5X / "orbax_checkpoint", tmp_path / "orbax")


def writable_copy(source, target):
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(np.asarray, parameters.init_params(t5.Transformer(CONFIG), 0)[0])


@needs_shared
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["", "checkpoint_150"])
def test_t5x_forms_equal_the_golden_parameters(golden, form, place):
    assert_equal(checkpoints.open_checkpoint(GOLDEN_T5X / form / place).load(), golden)


def read(form, path):
    stored = form.open_params(path)
    return parameters.unflatten(stored.load(stored.shapes))


@needs_shared
def test_readers_of_one_form(golden):
    legacy = GOLDEN_T5X / "legacy_checkpoint" / "checkpoint_150"
    assert_equal(read(t5x_legacy, str(legacy)), golden)
    assert_equal(checkpoints.open_checkpoint(legacy / "checkpoint").load(), golden)
    orbax = GOLDEN_T5X / "orbax_checkpoint" / "checkpoint_150"
    assert_equal(read(orbax_checkpoint, str(orbax)), golden)
    assert_equal(read(orbax_checkpoint, orbax / "state"), golden)


def test_own_trainer_checkpoint(tmp_path, params, monkeypatch):
    import orbax.checkpoint as ocp

    @flax.struct.dataclass
    class State:
        step: np.ndarray
        params: dict
        opt_state: tuple

    with ocp.CheckpointManager(
        tmp_path, options=ocp.CheckpointManagerOptions(step_prefix="checkpoint")
    ) as manager:
        for step in (2, 10):
            scaled = jax.tree.map(lambda x, s=step: x * s, params)
            state = State(np.int32(step), scaled, ({"mu": params},))
            manager.save(step, args=ocp.args.StandardSave(state))
    monkeypatch.chdir(tmp_path.parent)
    expected = jax.tree.map(lambda x: x * 10, params)
    assert_equal(checkpoints.open_checkpoint(tmp_path.name).load(), expected)
    two = checkpoints.open_checkpoint(tmp_path / "checkpoint_2").load()
    assert_equal(two, jax.tree.map(lambda x: x * 2, params))


def test_safetensors_file_and_folder(tmp_path, params):
    weights.save_weights(tmp_path / "model.safetensors", params)
    assert_equal(checkpoints.open_checkpoint(tmp_path / "model.safetensors").load(), params)
    assert_equal(checkpoints.open_checkpoint(str(tmp_path)).load(), params)


@needs_shared
def test_newest_complete_checkpoint_is_taken(legacy, golden):
    (legacy / "checkpoint_900").mkdir()
    (legacy / "checkpoint_1000.tmp-1718").mkdir()
    shutil.copytree(legacy / "checkpoint_150", legacy / "checkpoint_20")
    assert checkpoints.find(legacy)[1].name == "checkpoint_150"
    assert_equal(checkpoints.open_checkpoint(legacy).load(), golden)
    with pytest.raises(UserError, match="checkpoint_900 is an incomplete checkpoint"):
        checkpoints.open_checkpoint(legacy / "checkpoint_900").load()


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        checkpoints.open_checkpoint(tmp_path / "nowhere").load()
    with pytest.raises(UserError, match="No checkpoint in"):
        checkpoints.open_checkpoint(tmp_path).load()
    (tmp_path / "checkpoint_5").mkdir()
    with pytest.raises(UserError, match="only incomplete checkpoints .checkpoint_5"):
        checkpoints.open_checkpoint(tmp_path).load()
    with pytest.raises(UserError, match="'checkpoint' is missing"):
        t5x_legacy.open_params(tmp_path)
    with pytest.raises(UserError, match="'_METADATA' is missing"):
        orbax_checkpoint.open_params(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="not a complete safetensors"):
        checkpoints.open_checkpoint(tmp_path / "notes.txt").load()


EMBEDDING = "target.token_embedder.embedding"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@needs_shared
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda d: cut(d / "checkpoint"), "truncated"),
        (lambda d: (d / "checkpoint").write_bytes(b""), "truncated"),
        (lambda d: cut(d / EMBEDDING / "0.0"), "token_embedder.embedding"),
        (lambda d: (d / EMBEDDING / "0.0").unlink(), "embedding.*chunk 0.0 is missing"),
        (lambda d: cut(d / EMBEDDING / ".zarray"), "token_embedder.embedding"),
        (lambda d: shutil.rmtree(d / EMBEDDING), "token_embedder.embedding"),
        (lambda d: (d / "target.decoder.decoder_norm.scale" / "0").unlink(), "decoder_norm"),
    ],
)
def test_damaged_legacy_checkpoint(legacy, damage, message):
    damage(legacy / "checkpoint_150")
    with pytest.raises(UserError, match=message):
        checkpoints.open_checkpoint(legacy).load()


@needs_shared
def test_damaged_optimizer_state_does_not_matter(legacy, golden):
    shutil.rmtree(legacy / "checkpoint_150" / "state.param_states.token_embedder.embedding.v")
    assert_equal(checkpoints.open_checkpoint(legacy).load(), golden)


@needs_shared
@pytest.mark.parametrize(
    "damage",
    [
        lambda d: cut(d / "state" / "_METADATA"),
        lambda d: cut(next((d / "state" / "d").iterdir())),
        lambda d: max((d / "state").rglob("d/*"), key=lambda p: p.stat().st_size).unlink(),
        lambda d: (d / "state" / "manifest.ocdbt").unlink(),
    ],
)
def test_damaged_orbax_checkpoint(orbax, damage):
    damage(orbax / "checkpoint_150")
    with pytest.raises(UserError, match="copy the checkpoint again|Copy the checkpoint again"):
        checkpoints.open_checkpoint(orbax).load()


def write_index(directory, index):
    directory.mkdir()
    (directory / "checkpoint").write_bytes(msgpack.packb(index))


def test_foreign_and_hostile_indices(tmp_path):
    write_index(tmp_path / "old", {"version": 0, "target": {}})
    with pytest.raises(UserError, match="version 0"):
        checkpoints.open_checkpoint(tmp_path / "old").load()
    write_index(tmp_path / "list", [1, 2])
    with pytest.raises(UserError, match="version 0"):
        checkpoints.open_checkpoint(tmp_path / "list").load()
    write_index(tmp_path / "empty", {"version": 3, "optimizer": {"state": {}}})
    with pytest.raises(UserError, match="no parameters"):
        checkpoints.open_checkpoint(tmp_path / "empty").load()
    hostile = {"driver": "zarr", "kvstore": {"driver": "file", "path": "a/.."}}
    write_index(tmp_path / "up", {"version": 3, "optimizer": {"target": {"x": hostile}}})
    with pytest.raises(UserError, match="starts with a dot"):
        checkpoints.open_checkpoint(tmp_path / "up").load()


def test_orbax_without_parameters(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_3", {"x": np.ones(3, np.float32)})
    with pytest.raises(UserError, match="without parameters"):
        checkpoints.open_checkpoint(tmp_path).load()
