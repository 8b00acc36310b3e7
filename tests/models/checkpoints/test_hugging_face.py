"""Hugging Face's folders: round trips, their own network on both sides, broken ones refused."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from tiny_hugging_face import GATED, VARIANTS, config_of, edit_json, needs_torch, random_params
from tiny_training import OnDevices

from ait_jax.errors import UserError
from ait_jax.models import parameters, t5
from ait_jax.models.checkpoints import checkpoints, hugging_face, logits_check
from ait_jax.models.checkpoints.restore import restore_params

Q = "encoder.block.0.layer.0.SelfAttention.q.weight"


def assert_equal(params, expected):
    params, expected = parameters.flatten(params), parameters.flatten(expected)
    assert list(params) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(params[name], value)


def tensors_in(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.numpy.load_file(path)
    return tensors


def rewrite(folder, **changes):
    """Sets tensors of a folder's only file; None takes one away."""
    tensors = {**tensors_in(folder), **{k.replace("__", "."): v for k, v in changes.items()}}
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items() if x is not None}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def read(folder, dtype=np.float32):
    checkpoint = checkpoints.open_checkpoint(folder)
    return checkpoint.config, checkpoint.load(dtype)


@pytest.fixture
def folder(tmp_path):
    """T5 1.1 in one file."""
    config = config_of("t5_1_1")
    hugging_face.write(tmp_path, random_params(config), config)
    return tmp_path


@pytest.fixture
def tied(tmp_path):
    """T5 1.0 in one file."""
    config = config_of("t5_1_0")
    hugging_face.write(tmp_path, random_params(config), config)
    return tmp_path


@pytest.fixture
def sharded(tmp_path):
    config = config_of("t5_1_1")
    hugging_face.write(tmp_path, random_params(config), config, max_shard_bytes=9000)
    return tmp_path


@pytest.mark.parametrize("max_shard_bytes", [10**9, 9000, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(tmp_path, variant, max_shard_bytes):
    config = config_of(variant)
    params = random_params(config)
    hugging_face.write(tmp_path, params, config, max_shard_bytes=max_shard_bytes)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    if max_shard_bytes == 10**9:
        assert files == ["model.safetensors"]
        assert not (tmp_path / "model.safetensors.index.json").exists()
    else:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 1
        assert set(index["weight_map"].values()) == set(files)
        assert index["metadata"]["total_size"] == 4 * parameters.num_params(params)
        big = [p for p in tmp_path.glob("*.safetensors") if p.stat().st_size > max_shard_bytes * 2]
        assert all(len(safetensors.numpy.load_file(path)) == 1 for path in big)
    read_config, values = read(str(tmp_path))
    assert read_config == config
    assert_equal(values, params)
    restored = restore_params(tmp_path, t5.Transformer(config), OnDevices(2, num_devices=8))
    assert_equal(jax.tree.map(np.asarray, restored.params), params)


@pytest.mark.parametrize("dtype, kind", [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)])
def test_small_dtypes(tmp_path, dtype, kind):
    config = config_of("t5_1_1")
    params = random_params(config)
    small = jax.tree.map(lambda x: x.astype(kind), params)
    hugging_face.write(tmp_path, small, config)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == dtype
    kept = read(tmp_path, dtype=None)[1]
    assert kept["token_embedder"]["embedding"].dtype == kind
    expected = params["token_embedder"]["embedding"].astype(kind)
    np.testing.assert_array_equal(kept["token_embedder"]["embedding"], expected)
    wide = read(tmp_path)[1]["token_embedder"]["embedding"]
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, expected.astype(np.float32))


def test_names_of_the_smallest_t5_1_1(tmp_path):
    config = t5.T5Config(
        vocab_size=4, emb_dim=3, num_heads=1, num_encoder_layers=1, num_decoder_layers=1,
        head_dim=2, mlp_dim=5, mlp_activations=GATED,
    )  # fmt: skip
    params = random_params(config)
    hugging_face.write(tmp_path, params, config)
    attention = [f"{x}.weight" for x in ("q", "k", "v", "o")]
    expected = {"shared.weight": (4, 3), "lm_head.weight": (4, 3)}
    decoder = ["SelfAttention", "EncDecAttention"]
    for stack, kinds in (("encoder", ["SelfAttention"]), ("decoder", decoder)):
        layer = f"{stack}.block.0.layer"
        bias = f"{layer}.0.SelfAttention.relative_attention_bias.weight"
        expected |= {f"{stack}.final_layer_norm.weight": (3,), bias: (32, 1)}
        for number, kind in enumerate([*kinds, "DenseReluDense"]):
            expected[f"{layer}.{number}.layer_norm.weight"] = (3,)
            if kind == "DenseReluDense":
                expected |= {
                    f"{layer}.{number}.{kind}.wi_0.weight": (5, 3),
                    f"{layer}.{number}.{kind}.wi_1.weight": (5, 3),
                    f"{layer}.{number}.{kind}.wo.weight": (3, 5),
                }
            else:
                for name in attention:
                    shape = (3, 2) if name[0] == "o" else (2, 3)
                    expected[f"{layer}.{number}.{kind}.{name}"] = shape
    tensors = tensors_in(tmp_path)
    assert {name: x.shape for name, x in tensors.items()} == expected
    kernel = params["decoder"]["layers_0"]["encoder_decoder_attention"]["key"]["kernel"]
    name = "decoder.block.0.layer.1.EncDecAttention.k.weight"
    np.testing.assert_array_equal(tensors[name], kernel.T)
    np.testing.assert_array_equal(tensors["shared.weight"], params["token_embedder"]["embedding"])


def test_generation_config(folder):
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip


def test_copies_of_a_tied_table_are_accepted(tied):
    config, params = read(tied)
    table = tensors_in(tied)["shared.weight"]
    copies = dict(lm_head__weight=table, encoder__embed_tokens__weight=table)
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tied, **copies, decoder__embed_tokens__weight=table, **{unused: np.ones((32, 2))})
    assert read(tied)[0] == config
    assert_equal(read(tied)[1], params)
    rewrite(tied, shared__weight=None)
    assert_equal(read(tied)[1], params)
    rewrite(tied, encoder__embed_tokens__weight=table + 1)
    with pytest.raises(UserError, match="embed_tokens.weight differs from the token table"):
        read(tied)


def test_what_config_json_leaves_out(folder):
    edit_json(folder / "config.json", num_decoder_layers=None, dropout_rate=None)
    assert read(folder)[0] == config_of("t5_1_1")


def test_tied_but_not_scaled(folder):
    """transformers 5 writes this of an untied T5 1.1 whose output layer equals its table."""
    edit_json(folder / "config.json", tie_word_embeddings=True, scale_decoder_outputs=False)
    config, params = read(folder)
    assert not config.logits_via_embedding
    rewrite(folder, lm_head__weight=None)
    config, params = read(folder)
    kernel = params["decoder"]["logits_dense"]["kernel"]
    assert not config.logits_via_embedding
    np.testing.assert_array_equal(kernel, params["token_embedder"]["embedding"].T)


def test_mt5_is_t5_1_1(folder):
    config, params = read(folder)
    edit_json(folder / "config.json", model_type="mt5", feed_forward_proj=None, dense_act_fn=None)
    edit_json(folder / "config.json", tie_word_embeddings=None)
    assert read(folder)[0] == config
    assert_equal(read(folder)[1], params)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_config(**changes):
    return lambda folder: edit_json(folder / "config.json", **changes)


def pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BAD_FOLDERS = {
    "bert": (set_config(model_type="bert"), "describes a 'bert' model"),
    "gpt2": (set_config(model_type="gpt2"), "describes a 'gpt2' model"),
    "umt5": (set_config(model_type="umt5"), "describes a 'umt5' model"),
    "no type": (set_config(model_type=None), "describes no model"),
    "damaged config": (lambda d: cut(d / "config.json"), "config.json is not JSON, or truncated"),
    "list": (lambda d: (d / "config.json").write_text("[1]"), "config.json is not a JSON object"),
    "size": (set_config(d_model="16"), "has d_model = '16'; it must be a whole number"),
    "epsilon": (set_config(layer_norm_epsilon=1e-5), "layer_norm_epsilon = 1e-05; this network"),
    "buckets": (set_config(relative_attention_num_buckets=16), "num_buckets = 16"),
    "exact gelu": (set_config(dense_act_fn="gelu"), "the activation 'gelu'"),
    "dropout": (set_config(dropout_rate=1.5), "dropout_rate = 1.5"),
    "pickle": (pickle_only, "only as pytorch_model.bin, a pickle.*convert it to safetensors"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "truncated": (lambda d: cut(d / "model.safetensors"), "not a complete safetensors file"),
    "other sizes": (
        set_config(vocab_size=132),
        r"shared.weight is \(128, 16\).*should be \(132, 16\)",
    ),
    "fewer layers": (set_config(num_layers=1), "holds unexpected encoder.block.1.layer"),
    "more layers": (set_config(num_decoder_layers=3), "lacks decoder.block.2.layer"),
    "not gated": (
        set_config(feed_forward_proj="relu", dense_act_fn=None),
        "lacks .*DenseReluDense.wi.w",
    ),
    "tied after all": (
        set_config(tie_word_embeddings=True),
        "lm_head.weight differs from the token table .shared",
    ),
    "no output": (lambda d: rewrite(d, lm_head__weight=None), "lacks lm_head.weight"),
    "no table": (lambda d: rewrite(d, shared__weight=None), "lacks shared.weight"),
    "wrong shape": (
        lambda d: rewrite(d, **{Q: np.ones((16, 8), np.float32)}),
        r"SelfAttention.q.weight is \(16, 8\); by the sizes it states it should be \(16, 16\)",
    ),
    "integers": (lambda d: rewrite(d, **{Q: np.ones((16, 16), np.int32)}), "of dtype I32"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(folder, case):
    damage, message = BAD_FOLDERS[case]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        checkpoints.open_checkpoint(folder).load()
    assert "\n" not in str(caught.value)


def shard(folder, number):
    return sorted(folder.glob("model-*.safetensors"))[number - 1]


def edit_map(change):
    def damage(folder):
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return damage


BAD_SHARDS = {
    "missing": (lambda d: shard(d, 2).unlink(), "lacks model-00002"),
    "truncated": (lambda d: cut(shard(d, 2)), "not a complete safetensors"),
    "index": (lambda d: cut(d / "model.safetensors.index.json"), "not JSON, or truncated"),
    "empty index": (edit_map(lambda m: m.clear()), "lacks any file"),
    "elsewhere": (edit_map(lambda m: m.update({Q: "../model.safetensors"})), "path separator"),
    "no name": (edit_map(lambda m: m.update({Q: 3})), "not a string"),
    "moved": (
        edit_map(lambda m: m.update({"lm_head.weight": m["shared.weight"]})),
        "does not hold lm_head.weight, against|holds lm_head.weight, against",
    ),
    "forgotten": (edit_map(lambda m: m.pop(Q)), "holds .*q.weight, against"),
}


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_bad_shards(sharded, case):
    damage, message = BAD_SHARDS[case]
    damage(sharded)
    with pytest.raises(UserError, match=message) as caught:
        checkpoints.open_checkpoint(sharded).load()
    assert "\n" not in str(caught.value)


def test_weights_without_config_json(folder):
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="Hugging Face's: give the folder, with its config.json"):
        checkpoints.open_checkpoint(folder).load()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="No config.json in"):
        checkpoints.open_checkpoint(folder).load()


def test_networks_that_hugging_face_has_not(tmp_path):
    config = t5.T5Config(vocab_size=8, mlp_activations=("relu", "gelu"))
    with pytest.raises(UserError, match="mlp_activations = .'relu', 'gelu'. does not exist"):
        hugging_face.to_settings(config, "float32")


# --- Hugging Face's own network ---


def theirs_of(variant):
    """A random torch T5 with every value away from its initial one."""
    import torch
    import transformers

    config = config_of(variant)
    settings = hugging_face.to_settings(config, "float32")
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings)).eval()
    if not config.logits_via_embedding:
        # transformers 5 ties the output layer of every T5 that is not read from a file.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.3)
    return model


@needs_torch
@pytest.mark.parametrize("max_shard_size", ["1GB", "9KB"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_folders_give_their_logits(tmp_path, variant, max_shard_size):
    import torch

    model, config = theirs_of(variant), config_of(variant)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "9KB")
    asked = logits_check.prompts(config.vocab_size)
    with torch.no_grad():
        expected = asked.real(
            model(
                input_ids=torch.tensor(asked.inputs, dtype=torch.long),
                attention_mask=torch.tensor(asked.inputs > 0, dtype=torch.long),
                decoder_input_ids=torch.tensor(asked.decoder_inputs, dtype=torch.long),
            ).logits.numpy()
        )
    read_config, params = read(tmp_path)
    assert read_config == config
    ours = logits_check.our_logits(params, read_config, asked)
    assert np.std(expected) > 0.2  # tied ones are scaled down
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)
    # The same configuration as transformers 4 writes it.
    edit_json(
        tmp_path / "config.json",
        tie_word_embeddings=config.logits_via_embedding,
        scale_decoder_outputs=None,
    )
    assert read(tmp_path)[0] == config


@needs_torch
@pytest.mark.parametrize("max_shard_bytes", [10**9, 9000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_our_folders_give_our_logits_there(tmp_path, variant, max_shard_bytes):
    config = config_of(variant)
    params = random_params(config, 3)
    hugging_face.write(tmp_path, params, config, max_shard_bytes=max_shard_bytes)
    asked = logits_check.prompts(config.vocab_size)
    theirs = logits_check.torch_logits(tmp_path, asked)
    ours = logits_check.our_logits(params, config, asked)
    assert np.std(ours) > 0.2
    np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=0)


@needs_torch
def test_a_folder_that_transformers_refuses(folder):
    shutil.copy(folder / "config.json", folder / "x.json")
    cut(folder / "model.safetensors")
    with pytest.raises(UserError, match="transformers cannot read"):
        logits_check.torch_logits(folder, logits_check.prompts(128))
