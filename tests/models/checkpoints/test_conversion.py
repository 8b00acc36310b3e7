"""`ait-jax convert`: every form into every other, compared, and nothing left where it fails."""

import dataclasses
import functools
import json
from functools import partial

import jax
import ml_dtypes
import numpy as np
import pytest
from converting import assert_equal, convert
from shared_data import GOLDEN_T5X, needs_shared
from tiny_hugging_face import VARIANTS, config_of, edit_json, needs_torch, random_params
from tiny_llama import needs_tokenizers
from tiny_t5_tokenizer import write
from tiny_training import OnDevices

from ait_jax import assets, cli
from ait_jax.commands import subcommand
from ait_jax.config import configuration
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.models import parameters, t5
from ait_jax.models.checkpoints import (
    checkpoints,
    conversion,
    hugging_face,
    logits_check,
    orbax_checkpoint,
    weights,
)
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.rounds import scoring
from ait_jax.runtime import files

TO = ["hf", "t5x", "safetensors"]


@pytest.fixture(autouse=True)
def no_process_settings(monkeypatch, clean_gin):
    monkeypatch.setattr(
        subcommand, "start_jax", lambda **_: None
    )  # it configures this process's JAX


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setattr(logits_check, "has_torch", lambda: False)


@pytest.fixture
def source(tmp_path, without_torch):
    """A safetensors file of a T5 1.1, and the parameters in it."""
    params = random_params(config_of("t5_1_1"))
    weights.save_weights(tmp_path / "source.safetensors", params)
    return tmp_path / "source.safetensors", params


def read(folder):
    """What a run that is given the folder as INIT_CHECKPOINT gets."""
    return checkpoints.open_checkpoint(folder).load()


@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back(tmp_path, capsys, without_torch, variant, to):
    config = config_of(variant)
    params = random_params(config, 1)
    weights.save_weights(tmp_path / "a.safetensors", params)
    flags = [f"--mlp_activations={','.join(config.mlp_activations)}"]
    first = tmp_path / "a.safetensors"
    code, out, err = convert(capsys, first, tmp_path / "b", f"--to={to}", *flags)
    assert code == 0, err
    assert f"{parameters.num_params(params):,} parameters" in out
    assert "checked with our network: logits of 3 prompts" in out
    assert "largest difference 0.0e+00" in out
    assert_equal(read(tmp_path / "b"), params)
    flags = [] if to == "hf" else flags
    code, _, err = convert(capsys, tmp_path / "b", tmp_path / "c", "--to=safetensors", *flags)
    assert code == 0, err
    assert first.read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob(".tmp-*"))


@needs_shared
@pytest.mark.parametrize("form", ["legacy_checkpoint", "orbax_checkpoint"])
@pytest.mark.parametrize("to", TO)
def test_t5x_checkpoints_keep_t5x_logits(tmp_path, capsys, without_torch, form, to):
    code, _out, err = convert(capsys, GOLDEN_T5X / form, tmp_path / "b", f"--to={to}")
    assert code == 0, err
    config, params = config_of_made(tmp_path / "b"), read(tmp_path / "b")
    io = np.load(GOLDEN_T5X / "io.npz")
    tokens = [io[f"{side}_tokens"] for side in ("encoder_input", "decoder_input", "decoder_target")]
    forward = jax.jit(partial(t5.Transformer(config).apply, enable_dropout=False))
    logits = forward({"params": params}, *tokens)
    real = tokens[2] > 0
    np.testing.assert_allclose(np.asarray(logits)[real], io["logits"][real], atol=1e-4, rtol=0)
    if to == "t5x":
        assert (tmp_path / "b" / "checkpoint_150" / "state" / "_METADATA").is_file()


def config_of_made(folder):
    """The T5Config that a converted folder's gin file makes."""
    import gin

    text = (folder / "model.gin").read_text().replace('"bfloat16"', '"float32"')
    text = text.replace("%gin.REQUIRED", "'not needed'")
    (folder / "float32.gin").write_text(text)
    files_given = ("experiments/score.gin", str(folder / "float32.gin"))
    configuration.parse(GinFlags(files_given), files_given[0], unused=scoring.UNUSED_MACROS)
    config = gin.get_configurable(t5.T5Config)()
    gin.clear_config()
    return config


@pytest.mark.parametrize("to", TO)
def test_dtypes_on_disk(tmp_path, capsys, source, to):
    path, params = source
    code, out, err = convert(capsys, path, tmp_path / "b", f"--to={to}", "--dtype=bfloat16")
    assert code == 0, err
    assert "rounding to bfloat16 changed logits by" in out
    assert "before and after writing, largest difference 0.0e+00" in out
    kept = checkpoints.open_checkpoint(tmp_path / "b").load(dtype=None)
    assert {x.dtype for x in jax.tree.leaves(kept)} == {np.dtype(ml_dtypes.bfloat16)}
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    assert_equal(kept, rounded)
    assert_equal(read(tmp_path / "b"), rounded)
    # What has been rounded stays so, in float32 too or as it is.
    code, out, _ = convert(capsys, tmp_path / "b", tmp_path / "c", "--to=hf", "--dtype=keep")
    assert code == 0 and "bfloat16" in out.splitlines()[0]
    assert_equal(checkpoints.open_checkpoint(tmp_path / "c").load(dtype=None), rounded)
    assert json.loads((tmp_path / "c" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_values_that_float16_cannot_hold(tmp_path, capsys, source):
    path, params = source
    params["token_embedder"]["embedding"][:] *= 1e6
    weights.save_weights(path, params)
    code, _, err = convert(capsys, path, tmp_path / "b", "--to=hf", "--dtype=float16")
    assert code == 2 and "are not finite" in err and "--dtype=float32" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.safetensors"]


def test_scanned_layers(tmp_path, capsys, source):
    path, params = source
    stacked = parameters.match_layout(params, scan_layers=True)
    assert "layers" in stacked["encoder"]
    weights.save_weights(path, stacked)
    assert convert(capsys, path, tmp_path / "b", "--to=hf")[0] == 0
    assert_equal(read(tmp_path / "b"), params)


def test_biases_of_every_layer_are_another_network(tmp_path, capsys, source):
    path, params = source
    biases = np.arange(2 * 2 * 32, dtype=np.float32).reshape(2, 2, 32)
    stack = {"relpos_bias": {"rel_embedding": biases}}
    others = {"token_embedder": params["token_embedder"]}
    weights.save_weights(path, {**others, "encoder": {"encoder": stack}})
    code, _, err = convert(capsys, path, tmp_path / "b", "--to=hf")
    assert code == 2 and "position biases of their own" in err and not (tmp_path / "b").exists()


def test_the_mini_model_with_its_vocabulary(tmp_path, capsys, without_torch, clean_gin):
    flags = ["--to=hf", f"--vocabulary_path={assets.mini_vocabulary()}", "--max_shard_size=3MB"]
    code, out, err = convert(capsys, assets.mini_weights(), tmp_path / "b", *flags)
    assert code == 0, err
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 2
    ids = Vocabulary(assets.mini_vocabulary()).vocab_size
    assert f"VOCABULARY_PATH = {tmp_path / 'b' / 'spiece.model'}: {ids:,} ids, 100 sentinels" in out
    assert "not checked with Hugging Face's torch model: torch and transformers are not" in out
    assert f"wrote {tmp_path / 'b' / 'model.gin'}: the model, its checkpoint and its" in out
    assert_equal(read(tmp_path / "b"), read(assets.mini_weights()))
    # The vocabulary goes along; back again as T5X has it.
    code, out, err = convert(capsys, tmp_path / "b", tmp_path / "c", "--to=t5x")
    assert code == 0, err
    assert (tmp_path / "c" / "sentencepiece.model").read_bytes() == (
        (tmp_path / "b" / "spiece.model").read_bytes()
    )
    assert str(tmp_path / "c" / "checkpoint_0") in out
    config = config_of_made(tmp_path / "c")
    restore_params(tmp_path / "c", t5.Transformer(config), OnDevices())


@needs_tokenizers
@pytest.mark.parametrize("to", TO)
def test_a_t5_with_tokenizer_json_alone(tmp_path, capsys, without_torch, to):
    config = config_of("t5_1_1")
    folder = write(tmp_path / "a", sentinels=20)
    hugging_face.write(folder, random_params(config), config)
    code, out, err = convert(capsys, folder, tmp_path / "b", f"--to={to}")
    assert code == 0, err
    theirs = Vocabulary(str(folder), extra_ids=20)
    path = tmp_path / "b" / "tokenizer.json"
    assert f"VOCABULARY_PATH = {path}: {theirs.vocab_size} ids, 20 sentinels among them" in out
    gin_file = (tmp_path / "b" / "model.gin").read_text()
    assert repr(str(path)) in gin_file and "vocabulary.Vocabulary.extra_ids = 20" in gin_file
    ours = Vocabulary(str(path), extra_ids=20)
    text = "In this task, you <extra_id_3> are"
    assert ours.encode_source(text, 99) == theirs.encode_source(text, 99)
    settings = (folder / "tokenizer_config.json").read_bytes()
    assert (tmp_path / "b" / "tokenizer_config.json").read_bytes() == settings


@needs_tokenizers
@pytest.mark.parametrize("to", TO)
def test_a_bad_tokenizer_is_refused_before_anything_is_written(
    tmp_path, capsys, without_torch, monkeypatch, to
):
    config = config_of("t5_1_1")
    folder = write(tmp_path / "a", sentinels=20)
    hugging_face.write(folder, random_params(config), config)
    edit_json(folder / "tokenizer.json", pre_tokenizer={"type": "hostile"})
    monkeypatch.setattr(files, "new_folder", None)
    code, _, err = convert(capsys, folder, tmp_path / "b", f"--to={to}")
    assert code == 2 and "tokenizers cannot read its tokenizer" in err
    assert err.count("\n") == 1 and not (tmp_path / "b").exists()


def test_the_gin_file_scores(tmp_path, capsys, without_torch, clean_gin, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--to=t5x", f"--vocabulary_path={assets.mini_vocabulary()}"]
    assert convert(capsys, assets.mini_weights(), "out", *flags)[0] == 0
    made = []
    monkeypatch.setattr(scoring, "run", lambda built, config, page: made.append(built))
    arguments = ["score", "--gin_file=experiments/score.gin", "--gin_file=out/model.gin"]
    assert cli.main([*arguments, "--gin.mini.load_pool.instances_per_task=2"]) == 0
    assert made[0].init_checkpoint == "out/checkpoint_0"
    assert made[0].vocabulary.path == "out/sentencepiece.model"
    assert made[0].vocabulary.vocab_size == Vocabulary(assets.mini_vocabulary()).vocab_size
    assert made[0].model.config.emb_dim == 128 and made[0].model.config.logits_via_embedding


def test_more_and_fewer_rows(tmp_path, capsys, without_torch):
    config = config_of("unpadded")
    params = random_params(config)
    hugging_face.write(files_folder(tmp_path / "a"), params, config)
    code, _, err = convert(capsys, tmp_path / "a", tmp_path / "b", "--to=t5x", "--vocab_size=128")
    assert code == 0, err
    table = read(tmp_path / "b")["token_embedder"]["embedding"]
    kernel = read(tmp_path / "b")["decoder"]["logits_dense"]["kernel"]
    assert table.shape == (128, 16) and kernel.shape == (16, 128)
    np.testing.assert_array_equal(table[:100], params["token_embedder"]["embedding"])
    assert not table[100:].any() and not kernel[:, 100:].any()
    code, _, err = convert(capsys, tmp_path / "b", tmp_path / "c", "--to=hf", "--vocab_size=100")
    assert code == 0, err
    assert_equal(read(tmp_path / "c"), params)


def files_folder(path):
    path.mkdir()
    return path


def test_the_vocabulary_fits_the_rows(tmp_path, capsys, source):
    path, _ = source
    vocabulary = f"--vocabulary_path={assets.mini_vocabulary()}"
    code, _, err = convert(capsys, path, tmp_path / "b", "--to=hf", vocabulary)
    assert code == 2 and "the token table only 128 rows" in err
    code, _, err = convert(capsys, path, tmp_path / "b", "--to=hf", "--vocabulary_path=nowhere")
    assert code == 2 and "No SentencePiece model at 'nowhere'" in err
    flags = ("--to=hf", vocabulary, "--vocab_size=1000")
    code, _, err = convert(capsys, assets.mini_weights(), tmp_path / "b", *flags)
    assert code == 2 and "--vocab_size=1000 is less than the" in err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("to", TO)
def test_a_writer_that_changes_values_is_found_out(tmp_path, capsys, source, monkeypatch, to):
    path, params = source
    off = jax.tree.map(np.copy, params)
    off["decoder"]["layers_1"]["mlp"]["wo"]["kernel"][3, 5] += 0.1

    def spoiled(write, position):
        def writes(*arguments, **keywords):
            arguments = list(arguments)
            if "spoil" in str(arguments[0]):
                arguments[position] = off
            return write(*arguments, **keywords)

        return writes

    monkeypatch.setattr(hugging_face, "write", spoiled(hugging_face.write, 1))
    monkeypatch.setattr(orbax_checkpoint, "write", spoiled(orbax_checkpoint.write, 1))
    if to == "safetensors":
        monkeypatch.setattr(weights, "save_weights", spoiled(weights.save_weights, 1))
    code, _, err = convert(capsys, path, tmp_path / "spoil", f"--to={to}")
    assert code == 2 and "checked with our network" in err and "nothing was written" in err
    assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["source.safetensors"]


def test_targets_that_are_refused(tmp_path, capsys, source):
    path, _ = source
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for target, message in (
        (tmp_path / "full", "is a folder with files in it"),
        (path, "is a file"),
        ("gs://bucket/a", "is not a local folder"),
        (path / "b", "cannot write"),
    ):
        code, _out, err = convert(capsys, path, target, "--to=hf")
        assert code == 2 and message in err and err.count("\n") == 1
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_an_empty_folder_and_what_a_killed_run_left(tmp_path, capsys, source):
    path, params = source
    (tmp_path / "b").mkdir()
    (tmp_path / ".tmp-b").mkdir()
    (tmp_path / ".tmp-b" / "old.safetensors").write_text("half")
    assert convert(capsys, path, tmp_path / "b", "--to=hf")[0] == 0
    assert not (tmp_path / ".tmp-b").exists() and not (tmp_path / "b" / "old.safetensors").exists()
    assert_equal(read(tmp_path / "b"), params)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shard(folder, number):
    return sorted(folder.glob("model-*.safetensors"))[number - 1]


def pickle_only(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never opened")


def half_a_checkpoint(folder):
    for path in folder.iterdir():
        path.unlink()
    (folder / "checkpoint_5").mkdir()


BAD_SOURCES = {
    "bert": lambda d: edit_json(d / "config.json", model_type="bert"),
    "pickle": pickle_only,
    "missing shard": lambda d: shard(d, 2).unlink(),
    "truncated shard": lambda d: cut(shard(d, 3)),
    "wrong shape": lambda d: edit_json(d / "config.json", d_ff=32),
    "nothing": lambda d: [path.unlink() for path in d.iterdir()],
    "half a checkpoint": half_a_checkpoint,
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_sources(tmp_path, capsys, without_torch, case):
    config = config_of("t5_1_1")
    folder = files_folder(tmp_path / "a")
    hugging_face.write(folder, random_params(config), config, max_shard_bytes=9000)
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    BAD_SOURCES[case](folder)
    code, out, err = convert(capsys, folder, tmp_path / "b", "--to=t5x")
    assert code == 2 and out == ""
    assert err.startswith("ait-jax: ") and err.count("\n") == 1 and str(folder) in err
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a"], "the following arguments are required: TARGET, --to"),
        (["a", "b", "--to=torch"], "invalid choice: 'torch'"),
        (["nowhere", "b", "--to=hf"], "No checkpoint at nowhere"),
        (["nowhere", "b", "--to=hf", "--max_shard_size=big"], "--max_shard_size=big is not a size"),
        (["nowhere", "b", "--to=hf", "--vocab_size=many"], "invalid int value"),
        (["nowhere", "b", "--to=hf", "--gin.A=1"], "takes no gin flags"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = convert(capsys, *arguments)
    assert code == 2 and message in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


def test_activations_against_config_json(tmp_path, capsys, without_torch):
    config = config_of("t5_1_1")
    hugging_face.write(files_folder(tmp_path / "a"), random_params(config), config)
    flags = ("--to=hf", "--mlp_activations=relu")
    code, _, err = convert(capsys, tmp_path / "a", tmp_path / "b", *flags)
    assert code == 2 and "leave the flag out" in err
    weights.save_weights(tmp_path / "c.safetensors", random_params(config))
    code, _, err = convert(capsys, tmp_path / "c.safetensors", tmp_path / "b", *flags)
    assert code == 2 and "Likely wrong: T5Config.mlp_activations" in err


def test_another_model_as_init_checkpoint(tmp_path):
    config = config_of("unpadded")
    hugging_face.write(tmp_path, random_params(config), config)
    with pytest.raises(UserError, match="Likely wrong: T5Config.vocab_size"):
        restore_params(tmp_path, t5.Transformer(config_of("t5_1_1")), OnDevices())


def test_differences_are_seen_and_nan_is_one():
    ones = np.ones((2, 3), np.float32)
    assert logits_check.largest_difference(ones, ones) == 0
    assert logits_check.largest_difference(ones, ones - np.eye(2, 3)) == 1
    assert logits_check.largest_difference(ones, ones * np.nan) == np.inf
    with pytest.raises(UserError, match="above 1.0e-04"):
        conversion._judged("x", float("inf"), 1e-4)


def test_prompts_reach_beyond_the_last_bucket():
    asked = logits_check.prompts(50)
    assert asked.inputs.shape == (3, 160) and (asked.inputs > 0).sum() == 160 + 48 + 9
    assert 0 < asked.inputs.max() < 50 and asked.decoder_inputs[0, 0] == 0
    np.testing.assert_array_equal(asked.decoder_inputs[:, 1:], asked.targets[:, :-1])
    assert asked.real(np.zeros((3, 24, 60))).shape == (35, 50)


def test_new_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), files.new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with files.new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"


# --- with Hugging Face's and T5X's own programs ---


@needs_torch
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_network_is_asked_on_both_sides(tmp_path, capsys, variant):
    config = config_of(variant)
    hugging_face.write(files_folder(tmp_path / "a"), random_params(config), config)
    code, out, err = convert(capsys, tmp_path / "a", tmp_path / "b", "--to=hf", "--dtype=bfloat16")
    assert code == 0, err
    for side in ("of the original", "of what was written"):
        line = next(line for line in out.splitlines() if f"torch model {side}" in line)
        assert 0 < float(line.rpartition(" ")[2]) < 1e-4
    code, out, err = convert(
        capsys, tmp_path / "a", tmp_path / "c", "--to=t5x", "--skip_torch_check"
    )
    assert code == 0 and "not checked with Hugging Face's torch model: --skip_torch_check" in out


@needs_torch
def test_their_network_finds_a_wrong_mapping(tmp_path, capsys, monkeypatch):
    """Our own reading back cannot: it would undo the same mistake."""
    weights.save_weights(tmp_path / "a.safetensors", random_params(config_of("t5_1_1")))
    right = hugging_face.names_and_shapes

    def swapped(config):
        table = dict(right(config))
        one, other = (f"encoder.block.0.layer.0.SelfAttention.{x}.weight" for x in "qk")
        table[one], table[other] = table[other], table[one]
        return table

    monkeypatch.setattr(hugging_face, "names_and_shapes", swapped)
    code, _, err = convert(capsys, tmp_path / "a.safetensors", tmp_path / "b", "--to=hf")
    assert code == 2 and "checked with Hugging Face's torch model of what was written" in err
    assert not (tmp_path / "b").exists()


@needs_torch
def test_their_tokenizer_gives_our_ids(tmp_path, capsys):
    import transformers

    flags = ["--to=hf", f"--vocabulary_path={assets.mini_vocabulary()}"]
    assert convert(capsys, assets.mini_weights(), tmp_path / "b", *flags)[0] == 0
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b", local_files_only=True)
    ours = Vocabulary(assets.mini_vocabulary())
    for text in ("Name the colour of the sky.", "two  spaces", "3 + 4 = <extra_id_0> end"):
        assert theirs(text).input_ids == [*ours.encode(text), 1]
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    assert theirs.convert_tokens_to_ids("<extra_id_0>") == ours.sentinel(0)
    assert theirs.convert_tokens_to_ids("<extra_id_99>") == ours.sentinel(99)


@pytest.mark.t5x
def test_t5x_restores_what_was_written_for_it(tmp_path, capsys, without_torch):
    import flax
    from t5x import adafactor, partitioning, state_utils, train_state
    from t5x import checkpoints as t5x_checkpoints

    # T5X's own mesh splits heads over all 8 of the virtual devices.
    config = dataclasses.replace(config_of("t5_1_1"), num_heads=8, head_dim=2)
    expected = random_params(config)
    (tmp_path / "checkpoint_7").mkdir()
    weights.save_weights(tmp_path / "checkpoint_7" / "model.safetensors", expected)
    assert convert(capsys, tmp_path, tmp_path / "b", "--to=t5x")[0] == 0

    tokens = np.ones((1, 1), np.int32)
    variables = t5.Transformer(config).init(
        jax.random.PRNGKey(1), tokens, tokens, tokens, enable_dropout=False
    )
    state = train_state.InferenceState.create(flax.core.freeze(variables))
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    manager = t5x_checkpoints.OrbaxCheckpointManagerInterface(
        str(tmp_path / "b"), state, partitioner
    )
    assert manager.latest_step() == 7
    restored = manager.restore(path=str(tmp_path / "b" / "checkpoint_7"))
    assert int(restored.step) == 7
    assert_equal(flax.core.unfreeze(restored.params), expected)

    # And in training, with an optimizer state from scratch, as README says.
    optimizer = adafactor.Adafactor(
        logical_factor_rules=adafactor.standard_logical_factor_rules(), step_offset=0
    )
    state = train_state.FlaxOptimTrainState.create(optimizer, flax.core.freeze(variables))
    manager = t5x_checkpoints.OrbaxCheckpointManagerInterface(
        str(tmp_path / "b"), state, partitioner
    )
    restored = manager.restore(
        path=str(tmp_path / "b" / "checkpoint_7"),
        fallback_state=state.state_dict(),
        state_transformation_fns=[
            functools.partial(state_utils.apply_assignment_map, assignment_map=())
        ],
    )
    assert int(restored.step) == 7
    assert_equal(flax.core.unfreeze(restored.params), expected)
    leaves = jax.tree.leaves(restored.param_states)
    assert leaves and not any(np.asarray(leaf).any() for leaf in leaves)
