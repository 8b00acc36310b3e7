"""Whatever a stranger's checkpoint states, it is read or refused, and nothing outside is opened."""

import copy
import json
import os
import resource
import shutil

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_strangers import TABLE, entry, write_header, write_legacy, write_zarr
from tiny_hugging_face import config_of, random_params
from tiny_llama import config_of as llama_config
from tiny_llama import needs_gguf, needs_tokenizers, write_gguf, write_tokenizer
from tiny_llama import random_params as llama_params
from tiny_t5_tokenizer import write as write_t5_tokenizer

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import (
    checkpoints,
    hugging_face,
    hugging_face_folder,
    llama_settings,
    llama_weights,
    orbax_checkpoint,
)
from ait_jax.models.checkpoints.loaded_model import load_model
from ait_jax.prompts import gguf_header, t5_tokenizer, tokenizer_files

HOSTILE = st.sampled_from([
    None, True, -1, 0, 1, 2, 2**31, 2**63, 1e308, 0.5, "", "..", "../../other", "/etc/passwd",
    "%2e%2e%2f%2e%2e%2fother", "\u202e\x1b[31m", "x" * 500, [], {}, [[]], [0], {"a": {"b": [1]}},
    {"content": 7}, "other", "linear", "yarn", "file:///etc/passwd", [2**40, 2**40],
])  # fmt: skip
MOST_BYTES = 200e6


@st.composite
def changed(draw, value):
    """Returns a JSON value with one of its parts, however deep, replaced, repeated or left out."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return value
        key = draw(st.sampled_from(list(keys)))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and draw(st.integers(0, 3)):
            place = inner
            continue
        if draw(st.booleans()) and isinstance(place, dict):
            other = draw(HOSTILE)
            place[str(other)[:300]] = place.pop(key)
        else:
            place[key] = draw(HOSTILE)
        return value


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of checkpoints, and others beside it that none of them may open."""
    base = tmp_path_factory.mktemp("base")
    write_zarr(base / "other", TABLE)
    write_legacy(base / "stranger" / "legacy" / "checkpoint_3")
    params = {"token_embedder": {"embedding": TABLE}}
    orbax_checkpoint.write(base / "stranger" / "orbax", params, 3)
    config = config_of("t5_1_1")
    (base / "stranger" / "t5").mkdir()
    hugging_face.write(base / "stranger" / "t5", random_params(config), config, 9000)
    return base


def check(base, read):
    """Calls a reader: a UserError at most, little memory, and no file beside the folder opened."""
    outside = [path for path in (base / "other").rglob("*") if path.is_file()]
    for path in outside:
        os.utime(path, (1, 2))  # a read sets the first one, if it is older than the second
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) <= 4000
    # In kB on Linux. tracemalloc is not safe beside TensorStore's threads.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_BYTES / 1000
    assert {path.stat().st_atime for path in outside} == {1.0}


def test_the_watch_sees_reads(base):
    path = base / "other" / ".zarray"
    os.utime(path, (1, 2))
    path.read_bytes()
    if path.stat().st_atime == 1.0:
        pytest.skip("this file system does not note reads")


@given(st.data())
def test_legacy_indices(base, data):
    folder = base / "stranger" / "legacy" / "checkpoint_3"
    whole = msgpack.unpackb((folder / "checkpoint").read_bytes())
    spare = (folder / "checkpoint").read_bytes()
    try:
        index = msgpack.packb(data.draw(changed(whole)))
        (folder / "checkpoint").write_bytes(index)
        check(base, lambda: checkpoints.open_checkpoint(folder).load())
    finally:
        (folder / "checkpoint").write_bytes(spare)


@given(st.data())
def test_json_of_arrays_and_trees(base, data):
    file = data.draw(st.sampled_from([
        "legacy/checkpoint_3/target.token_embedder.embedding/.zarray",
        "orbax/checkpoint_3/state/_METADATA",
    ]))  # fmt: skip
    path = base / "stranger" / file
    spare = path.read_bytes()
    try:
        path.write_text(json.dumps(data.draw(changed(json.loads(spare)))))
        step = base / "stranger" / "/".join(file.split("/")[:2])
        check(base, lambda: checkpoints.open_checkpoint(step).load())
    finally:
        path.write_bytes(spare)


@given(st.data())
def test_json_of_a_t5(base, data):
    folder = base / "stranger" / "t5"
    file = data.draw(st.sampled_from(["config.json", "model.safetensors.index.json"]))
    spare = (folder / file).read_bytes()
    try:
        (folder / file).write_text(json.dumps(data.draw(changed(json.loads(spare)))))

        def read():
            tensors = hugging_face_folder.open_tensors(folder)
            settings = hugging_face_folder.read_settings(folder)
            config = hugging_face.to_config(settings, folder / "config.json")
            hugging_face._check_sizes(tensors, config, folder)

        check(base, read)
    finally:
        (folder / file).write_bytes(spare)


NAMES = st.lists(
    st.sampled_from([
        "encoder", "decoder", "layers", "layers_0", "layers_1", "layers_999999999",
        "layers_" + "9" * 5000, "mlp", "attention", "query", "kernel", "wo", "relpos_bias",
        "rel_embedding", "token_embedder", "embedding", "logits_dense", "",
    ]),
    min_size=1,
    max_size=5,
).map(".".join)  # fmt: skip
SHAPES = st.lists(st.integers(0, 3), max_size=4)


@given(st.dictionaries(NAMES, SHAPES, max_size=6), st.booleans())
def test_names_and_shapes_of_arrays(base, shapes, whole):
    needed = {
        "token_embedder.embedding": [3, 2],
        "encoder.relpos_bias.rel_embedding": [1, 32],
        "encoder.layers_0.attention.query.kernel": [2, 2],
        "encoder.layers_0.mlp.wo.kernel": [3, 2],
    }
    shapes = (needed if whole else {"token_embedder.embedding": [3, 2]}) | shapes
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = entry(shape, end, end + size)
        end += size
    path = base / "stranger" / "x.safetensors"
    write_header(path, header, bytes(end))
    check(base, lambda: load_model(path))


@pytest.fixture(scope="module")
def llama(base):
    folder = base / "stranger" / "llama"
    folder.mkdir()
    write_tokenizer(folder)
    config = llama_config()
    llama_weights.write(folder, llama_params(config), config, tokenizer_files.read(folder))
    return folder


@needs_tokenizers
@given(st.data())
def test_json_of_a_llama(base, llama, data):
    names = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    file = data.draw(st.sampled_from(names))
    spare = (llama / file).read_bytes()
    try:
        content = data.draw(
            changed(json.loads(spare) | {"rope_scaling": {"type": "yarn", "factor": 2}})
        )
        (llama / file).write_text(json.dumps(content))

        def read():
            settings = hugging_face_folder.read_settings(llama)
            llama_settings.to_config(settings, llama / "config.json")
            tokenizer_files.read(llama)

        check(base, read)
        check(base, lambda: t5_tokenizer.is_place(llama))
    finally:
        (llama / file).write_bytes(spare)


@needs_tokenizers
@given(st.data())
def test_json_of_a_t5_tokenizer(base, monkeypatch, data):
    folder = write_t5_tokenizer(base / "stranger" / "words", sentinels=3)
    file = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(data.draw(changed(content))))
    # The trial is another test's.
    monkeypatch.setattr(t5_tokenizer.tokenizer_trial, "_try", _refuse)
    check(base, lambda: t5_tokenizer.T5Tokenizer(folder / "tokenizer.json", 3))


def _refuse(_data, source, _texts):
    raise UserError(f"{source}: not tried")


@needs_gguf
@given(st.data())
def test_gguf_headers(base, data):
    path = base / "stranger" / "x.gguf"
    whole = base / "stranger" / "whole.gguf"
    if not whole.exists():
        config = llama_config()
        order = tokenizer_files.TokenOrder(0, 2)
        write_gguf(whole, llama_weights.to_tensors(llama_params(config), config, order), config)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, 9000))
        size = data.draw(st.sampled_from([1, 2, 4, 8]))
        content[place : place + size] = data.draw(st.binary(min_size=size, max_size=size))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    gguf_header._read_local.cache_clear()

    def read():
        opened = checkpoints.open_checkpoint(path)
        name = next(iter(opened.stored.shapes))
        assert np.asarray(opened.stored.load([name])[name]).nbytes < MOST_BYTES
        tokenizer_files.read(path)

    check(base, read)


def test_copies_are_as_they_were(base):
    """The tests above put back what they change."""
    checkpoints.open_checkpoint(base / "stranger" / "t5")
    shutil.rmtree(base / "other")
    step = base / "stranger" / "legacy"
    np.testing.assert_array_equal(
        checkpoints.open_checkpoint(step).load()["token_embedder"]["embedding"], TABLE
    )
