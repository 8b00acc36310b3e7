"""Checkpoints from strangers: nothing outside their folder is opened, no size is believed."""

import json
import shutil
import struct
import time
import tracemalloc

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import tensorstore
from hypothesis import given
from hypothesis import strategies as st
from shared_data import SHARED, needs_shared
from tiny_hugging_face import config_of, edit_json, random_params

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import (
    checkpoints,
    hugging_face,
    orbax_checkpoint,
    t5x_legacy,
    weights,
)

TABLE = np.arange(24, dtype=np.float32).reshape(6, 4)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
# Names of folders in which URLs would see encodings, fragments, queries and pipes.
STRANGE = ["we #i?r|d", "50%", "a%2fb%41", "two  blanks", "gs: //x", "\u6771\u4eac [1]"]


def write_zarr(folder, values, **metadata):
    store = {"driver": "file", "path": f"{folder}/"}
    chunks = {"shape": values.shape, "chunks": [3, 4], "dtype": values.dtype.str, **metadata}
    spec = {"driver": "zarr", "kvstore": store, "metadata": chunks}
    tensorstore.open(spec, create=True).result().write(values).result()


def write_legacy(folder, path="target.token_embedder.embedding"):
    """Writes a checkpoint whose index names `path` as its array's folder."""
    folder.mkdir(parents=True)
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": path}}
    target = {"token_embedder": {"embedding": spec}}
    index = {"version": 3, "optimizer": {"target": target, "state": {"step": 3}}}
    (folder / "checkpoint").write_bytes(msgpack.packb(index))
    write_zarr(folder / "target.token_embedder.embedding", TABLE)
    return folder


def table_of(path):
    return checkpoints.open_checkpoint(path).load()["token_embedder"]["embedding"]


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_of_the_folder_itself(tmp_path, name):
    params = {"token_embedder": {"embedding": TABLE}}
    legacy = write_legacy(tmp_path / name / "legacy" / "checkpoint_3")
    orbax = orbax_checkpoint.write(tmp_path / name / "orbax", params, 3)
    weights.save_weights(tmp_path / name / "x" / "model.safetensors", params)
    for place in (legacy, legacy.parent, orbax, orbax.parent, tmp_path / name / "x"):
        np.testing.assert_array_equal(table_of(place), TABLE)


@pytest.mark.parametrize(
    "path", ["%2e%2e%2f%2e%2e%2fother", "..%2fother", "..", "a\\b", "%2e%2e", "other\x00", "%00"]
)
def test_names_in_a_legacy_index_that_lead_out(tmp_path, path):
    write_zarr(tmp_path / "other", TABLE)
    folder = write_legacy(tmp_path / "stranger" / "checkpoint_3", path)
    with pytest.raises(UserError, match="array folder in .*/checkpoint_3/checkpoint "):
        t5x_legacy.open_params(folder)


@pytest.mark.parametrize("path", ["../../other", str, "file:///other", "gs://bucket/other"])
def test_only_the_last_part_of_a_path_counts(tmp_path, path):
    write_zarr(tmp_path / "other", TABLE)
    path = str(tmp_path / "other") if path is str else path
    folder = write_legacy(tmp_path / "stranger" / "checkpoint_3", path)
    with pytest.raises(UserError, match="cannot be read .there is no such folder"):
        t5x_legacy.open_params(folder)


@pytest.mark.parametrize("linked", ["", "0.0", ".zarray", "../checkpoint"])
def test_links_in_a_legacy_checkpoint(tmp_path, linked):
    folder = write_legacy(tmp_path / "stranger" / "checkpoint_3")
    inside = folder / "target.token_embedder.embedding" / linked
    outside = tmp_path / "outside"
    shutil.move(inside, outside)
    inside.symlink_to(outside)
    with pytest.raises(UserError, match="is a link that leads out of its folder"):
        t5x_legacy.open_params(folder)


def test_a_linked_step(tmp_path):
    write_legacy(tmp_path / "outside" / "checkpoint_3")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint_3").symlink_to("../outside/checkpoint_3")
    with pytest.raises(UserError, match="leads out"):
        checkpoints.open_checkpoint(tmp_path / "run")
    # The user may name it by a link.
    np.testing.assert_array_equal(table_of(tmp_path / "run" / "checkpoint_3"), TABLE)


@pytest.mark.parametrize(
    "index",
    [
        {"version": 3, "optimizer": [1]},
        {"version": 3, "optimizer": {"target": 7}},
        {"version": 3, "optimizer": {"target": {"a": {"kvstore": 7, "driver": 1}}}},
        {"version": [3]},
        {"version": 3, "optimizer": {"target": {"a": {"": 1.0}}}},
        {"version": 3, "optimizer": {"target": {"a": 1.0, "b": "text"}}},
        {"version": 3, "optimizer": {"target": {"a.b": 1.0, "a": 1.0}}},
    ],
)
def test_foreign_indices(tmp_path, index):
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(index))
    with pytest.raises(UserError):
        t5x_legacy.open_params(tmp_path)
    deep = b"\x81\xa1a" * 900 + b"\x01"
    (tmp_path / "checkpoint").write_bytes(b"\x82\xa7version\x03\xa9optimizer\x81\xa6target" + deep)
    with pytest.raises(UserError):
        t5x_legacy.open_params(tmp_path)


@pytest.mark.parametrize("shape, chunks", [([2**40, 4], [3, 4]), ([6, 4], [2**31, 2**31])])
def test_sizes_of_a_legacy_array(tmp_path, shape, chunks):
    folder = write_legacy(tmp_path / "checkpoint_3")
    edit_json(folder / "target.token_embedder.embedding" / ".zarray", shape=shape, chunks=chunks)
    with pytest.raises(UserError, match="would take|cannot be read"):
        t5x_legacy.open_params(folder)


def test_links_and_names_in_an_orbax_checkpoint(tmp_path):
    params = {"token_embedder": {"embedding": TABLE}}
    folder = orbax_checkpoint.write(tmp_path / "run", params, 3)
    index = folder / "state" / "_METADATA"
    whole = index.read_text()
    index.write_text(whole.replace('"key": "embedding"', '"key": "../../../other"'))
    with pytest.raises(UserError, match="_METADATA names '../../../other', which may lead out"):
        orbax_checkpoint.open_params(folder)
    index.write_text(whole)
    data = folder / "state" / "d"
    shutil.move(data, tmp_path / "outside")
    data.symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="state/d is a link that leads out"):
        orbax_checkpoint.open_params(folder)


# --- Hugging Face ---


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    config = config_of("t5_1_1")
    folder = tmp_path_factory.mktemp("t5")
    hugging_face.write(folder, random_params(config), config, max_shard_bytes=9000)
    return folder


@pytest.fixture
def folder(t5_folder, tmp_path):
    return shutil.copytree(t5_folder, tmp_path / "folder")


def test_weights_are_linked_in_or_out(folder, tmp_path):
    shard = sorted(folder.glob("model-*"))[1]
    shutil.move(shard, tmp_path / "outside")
    shard.symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of its folder"):
        hugging_face.open_params(folder)
    shutil.copyfile(tmp_path / "outside", folder / "again")
    shard.unlink()
    shard.symlink_to("again")
    hugging_face.open_params(folder)
    shutil.move(folder / "config.json", tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(UserError, match="config.json is a link that leads out"):
        hugging_face.open_params(folder)


def test_an_index_that_names_files_elsewhere(folder, tmp_path):
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    shutil.copyfile(folder / next(iter(names.values())), tmp_path / "x.safetensors")
    for file in ("../x.safetensors", str(tmp_path / "x.safetensors"), 7, "..", "a/b"):
        edit_json(index, weight_map={**names, "shared.weight": file})
        with pytest.raises(UserError, match="file of 'shared.weight' in "):
            hugging_face.open_params(folder)
    edit_json(index, weight_map=[1])
    with pytest.raises(UserError, match="no weight_map"):
        hugging_face.open_params(folder)


@pytest.mark.parametrize(
    "name", ["num_layers", "num_decoder_layers", "vocab_size", "d_model", "d_ff", "d_kv"]
)
def test_sizes_beyond_the_file_are_refused_at_once(folder, name):
    edit_json(folder / "config.json", **{name: 2**31 - 1})
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(UserError, match="not the model that it describes"):
            hugging_face.open_params(folder)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "model-00001-of-00008.safetensors"]
)
def test_git_lfs_pointers(folder, name):
    path = folder / name if name.endswith("json") else sorted(folder.glob("model-*"))[0]
    path.write_bytes(POINTER)
    with pytest.raises(UserError, match="is a Git LFS pointer.*git lfs pull"):
        hugging_face.open_params(folder)


def test_byte_order_marks_and_other_encodings(folder):
    path = folder / "config.json"
    text = path.read_text()
    path.write_bytes(text.encode("utf-8-sig"))
    assert hugging_face.open_params(folder).config == config_of("t5_1_1")
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match="config.json.*not UTF-8 text .UTF-16"):
        hugging_face.open_params(folder)
    path.write_bytes(b'{"model_type": "t5\xe9"}')
    with pytest.raises(UserError, match="config.json.*line 1: not UTF-8 text"):
        hugging_face.open_params(folder)


# --- safetensors ---


def write_header(path, header, data=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def entry(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([2], 0, 8), "b": entry([2], 4, 12)},  # one over the other
        {"a": entry([2], 0, 8), "b": entry([1], 12, 16)},  # a gap
        {"a": entry([2**62, 2**62], 0, 16)},
        {"a": entry([4], 0, 2**63)},
        {"a": entry([-4], 0, 16)},
        {"a": entry([-2, -2], 0, 16)},
        {"a": entry([True] * 4, 0, 16)},
        {"a": entry([4.0], 0, 16)},
        {"a": entry("4", 0, 16)},
        {"a": entry([4], 16, 0)},
        {"a": entry([1] * 9, 0, 4)},
        {"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"shape": [4], "data_offsets": [0, 16]}},
        {"a": 7},
        [],
        b'{"a": NaN}',
        b"[" * 5000,
        b'{"a": 1, "a": 1}',
        {},
    ],
)
def test_safetensors_headers(tmp_path, header):
    path = tmp_path / "x.safetensors"
    write_header(path, header, bytes(16))
    with pytest.raises(UserError, match=r"x\.safetensors"):
        weights.open_tensors(path)


def test_empty_and_single_tensors(tmp_path):
    values = {
        "empty": np.zeros((0, 5), np.float32),
        "none": np.zeros((3, 0, 2), ml_dtypes.bfloat16),
        "one": np.array(7, np.float32),
        "odd": np.arange(3, dtype=np.float16),
        "rows": np.arange(12, dtype=np.float64).reshape(3, 4),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(values, path)
    read = weights.open_tensors(path)
    assert set(read) == set(values)
    for name, value in values.items():
        array = read[name].whole()
        assert (array.dtype, array.shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(array, value)
    np.testing.assert_array_equal(read["rows"].read((slice(1, 3), slice(2, 4))), [[6, 7], [10, 11]])
    weights.save_weights(tmp_path / "ours.safetensors", values)
    ours = safetensors.numpy.load_file(tmp_path / "ours.safetensors")
    assert all(np.array_equal(ours[name], value) for name, value in values.items())
    (tmp_path / "no.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="not a complete safetensors"):
        weights.open_tensors(tmp_path / "no.safetensors")


def test_very_many_tensors_are_quick(tmp_path):
    count = 10_000
    header = {f"x.{i}": entry([1], 4 * i, 4 * i + 4) for i in range(count)}
    header["token_embedder.embedding"] = entry([0, 4], 4 * count, 4 * count)
    path = tmp_path / "x.safetensors"
    write_header(path, header, np.arange(count, dtype="<f4").tobytes())
    started = time.monotonic()
    loaded = weights.open_weights(path).load(list(header))
    assert time.monotonic() - started < 5
    assert [loaded[f"x.{i}"][0] for i in range(0, count, 999)] == list(range(0, count, 999))


HEADER = json.dumps({"token_embedder.embedding": entry([6, 4], 0, 96)}).encode()
WHOLE = struct.pack("<Q", len(HEADER)) + HEADER + TABLE.tobytes()


@given(st.data())
def test_damaged_safetensors_are_read_or_refused(tmp_path_factory, data):
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(HEADER) + 8))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    try:
        arrays = weights.open_tensors(path)
    except UserError as error:
        assert "\n" not in str(error) and "damaged.safetensors" in str(error)
        return
    assert sum(array.whole().nbytes for array in arrays.values()) <= len(damaged)


# --- special ids ---


@pytest.mark.parametrize(
    ("name", "value", "token"),
    [
        ("eos_token_id", 2, "another token ends a sequence"),
        ("eos_token_id", [1, 2], "another token ends"),
        ("pad_token_id", 1, "another token pads or begins"),
        ("decoder_start_token_id", 3, "another token pads or begins"),
        ("eos_token_id", True, "True, but of T5"),
        ("pad_token_id", "<pad>", "'<pad>', but of T5"),
    ],
)
def test_other_special_ids_of_a_t5_are_refused_by_name(folder, name, value, token):
    edit_json(folder / "config.json", **{name: value})
    with pytest.raises(UserError, match=f"config.json has {name} = .*{token}"):
        checkpoints.open_checkpoint(folder)
    edit_json(folder / "config.json", **{name: None})
    checkpoints.open_checkpoint(folder)


@needs_shared
@pytest.mark.parametrize(
    ("case", "name"), [("codet5_like", "eos_token_id = 2"), ("madlad_like", "pad_token_id = 1")]
)
def test_the_cases_of_other_special_ids(folder, case, name):
    shutil.copyfile(
        SHARED / "cases" / "bug_reports" / "t5_special_ids" / f"{case}.json", folder / "config.json"
    )
    with pytest.raises(UserError, match=f"config.json has {name}"):
        checkpoints.open_checkpoint(folder)
