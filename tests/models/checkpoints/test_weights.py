"""safetensors files: ours read by the library, the library's read by us, broken ones refused."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ait_jax.errors import UserError
from ait_jax.models import parameters
from ait_jax.models.checkpoints import checkpoints, weights

PARAMS = {
    "token_embedder": {"embedding": np.linspace(-3, 3, 24, dtype=np.float32).reshape(6, 4)},
    "decoder": {
        "layers_0": {"self_attention": {"query": {"kernel": np.eye(4, dtype=np.float32) / 3}}}
    },
}
QUERY = "decoder.layers_0.self_attention.query.kernel"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip_and_names(path):
    weights.save_weights(path, PARAMS, metadata={"seed": "3", "command": "ait-jax pretrain"})
    read = checkpoints.open_checkpoint(path).load()
    np.testing.assert_array_equal(
        read["token_embedder"]["embedding"], PARAMS["token_embedder"]["embedding"]
    )
    with safetensors.safe_open(path, framework="np") as file:
        assert sorted(file.keys()) == [QUERY, "token_embedder.embedding"]
        assert file.metadata() == {"seed": "3", "command": "ait-jax pretrain"}
        np.testing.assert_array_equal(file.get_tensor(QUERY), np.eye(4, dtype=np.float32) / 3)


def test_flat_names_and_device_arrays_are_accepted(path):
    weights.save_weights(path, parameters.flatten(PARAMS))
    nested = path.read_bytes()
    device = {"token_embedder": {"embedding": jnp.asarray(PARAMS["token_embedder"]["embedding"])}}
    weights.save_weights(path, {**PARAMS, **device})
    assert path.read_bytes() == nested


def test_bfloat16_on_disk(path):
    weights.save_weights(path, jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), PARAMS))
    assert path.stat().st_size < 40 * 2 + 400
    embedding = checkpoints.open_checkpoint(path).load()["token_embedder"]["embedding"]
    expected = PARAMS["token_embedder"]["embedding"].astype(ml_dtypes.bfloat16)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, expected.astype(np.float32))
    kept = checkpoints.open_checkpoint(path).load(dtype=None)["token_embedder"]["embedding"]
    assert kept.dtype == ml_dtypes.bfloat16


def test_same_content_gives_same_bytes(path):
    metadata = {f"key{i}": str(i) for i in range(20)}
    weights.save_weights(path, PARAMS, metadata=metadata)
    first = path.read_bytes()
    reordered = {name: PARAMS[name] for name in reversed(PARAMS)}
    weights.save_weights(path, reordered, metadata=dict(reversed(metadata.items())))
    assert path.read_bytes() == first
    assert (8 + int.from_bytes(first[:8], "little")) % 8 == 0


def test_nothing_but_the_file_is_left(path):
    weights.save_weights(path, PARAMS)
    weights.save_weights(path, PARAMS)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_every_truncation_is_refused(path):
    weights.save_weights(path, PARAMS, metadata={"a": "b"})
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a complete safetensors"):
            weights.open_weights(path)


def test_foreign_files_are_refused(path):
    path.write_bytes(b"not a safetensors file, but long enough to look like one")
    with pytest.raises(UserError, match="not a complete safetensors"):
        weights.open_weights(path)
    safetensors.numpy.save_file({"shared.weight": np.ones((2, 2), np.float32)}, path)
    with pytest.raises(UserError, match="Hugging Face"):
        weights.open_weights(path)
    safetensors.numpy.save_file({"x": np.ones((2, 2), np.float32)}, path)
    with pytest.raises(UserError, match="token_embedder.embedding"):
        weights.open_weights(path)
    safetensors.numpy.save_file({"token_embedder.embedding": np.ones((2, 2), np.int32)}, path)
    with pytest.raises(UserError, match="I32"):
        weights.open_weights(path)
    clash = {"token_embedder.embedding": np.ones(2), "token_embedder.embedding.x": np.ones(2)}
    safetensors.numpy.save_file(clash, path)
    with pytest.raises(UserError, match="both as an array and as a group"):
        weights.open_weights(path)


def test_missing_file_and_folder(tmp_path):
    for place in (tmp_path / "no.safetensors", tmp_path):
        with pytest.raises(UserError, match="No weights to read"):
            weights.open_weights(place)


def test_wrong_arguments(path):
    with pytest.raises(UserError, match="Did you mean 'bfloat16'"):
        weights.stored_dtype("bfloat")
    with pytest.raises(UserError, match="of dtype int32; weights are floating-point"):
        weights.save_weights(path, {"steps": np.zeros(2, np.int32)})
    assert not path.exists()


def test_header_is_plain_json(path):
    weights.save_weights(path, PARAMS)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["token_embedder.embedding"]["shape"] == [6, 4]
