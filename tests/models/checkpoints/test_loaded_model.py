"""`ait-jax convert` of LLaMA models: GGUF and folders in, folders out, checkpoints of trainings."""

import numpy as np
import pytest
from converting import assert_equal, convert
from tiny_hugging_face import edit_json
from tiny_llama import (
    config_of,
    needs_gguf,
    needs_torch,
    random_params,
    write_gguf,
    write_tokenizer,
)

import gin
from ait_jax.commands import subcommand
from ait_jax.models import parameters
from ait_jax.models.checkpoints import (
    checkpoints,
    llama_weights,
    logits_check,
    orbax_checkpoint,
)
from ait_jax.prompts import tokenizer_files
from ait_jax.prompts.token_order import TokenOrder
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.runtime import files

pytestmark = needs_gguf


@pytest.fixture(autouse=True)
def no_process_settings(monkeypatch, clean_gin):
    monkeypatch.setattr(
        subcommand, "start_jax", lambda **_: None
    )  # it configures this process's JAX


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setattr(logits_check, "has_torch", lambda: False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config = config_of()
    write_gguf(
        path, llama_weights.to_tensors(random_params(config), config, TokenOrder(0, 2)), config
    )
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint as a training that began with `file` writes it."""
    folder = tmp_path_factory.mktemp("run")
    params = random_params(config_of(), seed=1)
    return orbax_checkpoint.write(folder, params, 7), params


def test_gguf_to_folder(file, tmp_path, capsys, without_torch):
    out = tmp_path / "out"
    code, said, _ = convert(capsys, file, out, "--to=hf", "--max_shard_size=50KB")
    assert code == 0 and "GGUF file" in said and "largest difference 0.0e+00" in said
    assert_equal(checkpoints.open_checkpoint(out).load(), checkpoints.open_checkpoint(file).load())
    there, here = tokenizer_files.read(out).special, tokenizer_files.read(file).special
    assert (there.ids, there.order) == (here.ids, here.order)
    # Its gin file makes the model and its vocabulary.
    gin.parse_config_file(str(out / "model.gin"))
    model = gin.query_parameter("%MODEL").scoped_configurable_fn()
    words = gin.query_parameter("%VOCABULARY").scoped_configurable_fn()
    assert model.config.rope_theta == 1000.0 and model.config.num_kv_heads == 2
    expected = TokenizersVocabulary(str(file), words.chat)
    assert words.encode_source("Hi 12", 99) == expected.encode_source("Hi 12", 99)
    # And back: what a folder's files say is copied.
    code, _, _ = convert(capsys, out, tmp_path / "again", "--to=hf", "--dtype=bfloat16")
    assert code == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@needs_torch
def test_a_trained_checkpoint_to_transformers(file, trained, tmp_path, capsys):
    place, params = trained
    code, said, error = convert(capsys, place, tmp_path / "out", "--to=hf", f"--like={file}")
    assert code == 0, error
    assert "checked with Hugging Face's torch model of what was written" in said
    assert_equal(checkpoints.open_checkpoint(tmp_path / "out").load(), params)


@pytest.mark.parametrize("to", ["t5x", "safetensors"])
def test_a_trained_checkpoint_to_our_forms(file, trained, tmp_path, capsys, without_torch, to):
    place, params = trained
    code, _, error = convert(
        capsys, place, tmp_path / "out", f"--to={to}", f"--like={file}", "--vocab_size=512"
    )
    assert code == 0, error
    read = parameters.flatten(checkpoints.open_checkpoint(tmp_path / "out").load())
    assert read["decoder.token_embedder.embedding"].shape == (512, 32)
    wide = params["decoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    np.testing.assert_array_equal(read["decoder.layers_0.mlp.wo.kernel"], wide)
    assert TokenizersVocabulary(str(tmp_path / "out")).encode("x")
    again = convert(capsys, tmp_path / "out", tmp_path / "more", "--to=hf", f"--like={file}")
    assert again[0] == 0, again[2]


def test_refused(file, trained, tmp_path, capsys, without_torch):
    place, out = trained[0], tmp_path / "out"
    for arguments, problem in (
        ((place, out, "--to=hf"), "add --like=MODEL"),
        ((place, out, "--to=hf", f"--like={place}"), "does not state a LLaMA's sizes"),
        ((file, out, "--to=hf", f"--like={file}"), "leave --like"),
        ((file, out, "--to=hf", "--vocab_size=100"), "is less than the"),
    ):
        code, _, error = convert(capsys, *arguments)
        assert code == 2 and problem in error and not out.exists()
    (tmp_path / "other").mkdir()
    write_tokenizer(tmp_path / "other", eos_token="<repo_name>", chat_template=None)
    code, _, error = convert(
        capsys, file, out, "--to=hf", f"--vocabulary_path={tmp_path / 'other'}"
    )
    assert code == 2 and "other padding or end-of-sequence tokens" in error


@pytest.mark.parametrize("to", ["hf", "t5x", "safetensors"])
def test_a_bad_tokenizer_is_refused_before_anything_is_written(
    tmp_path, capsys, without_torch, monkeypatch, to
):
    folder = tmp_path / "a"
    folder.mkdir()
    write_tokenizer(folder)
    config = config_of()
    llama_weights.write(folder, random_params(config), config, tokenizer_files.read(folder))
    edit_json(folder / "tokenizer.json", pre_tokenizer={"type": "hostile"})
    monkeypatch.setattr(files, "new_folder", None)
    code, _, err = convert(capsys, folder, tmp_path / "b", f"--to={to}")
    assert code == 2 and "tokenizers cannot read its tokenizer" in err
    assert err.count("\n") == 1 and not (tmp_path / "b").exists()
