"""LLaMA's Hugging Face folders: round trips, transformers' own network, sharded, broken ones."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from tiny_hugging_face import edit_json
from tiny_llama import config_of, needs_tokenizers, needs_torch, random_params, write_tokenizer

from ait_jax.errors import UserError
from ait_jax.models import parameters
from ait_jax.models.checkpoints import (
    checkpoints,
    hugging_face,
    hugging_face_folder,
    llama_settings,
    llama_weights,
    logits_check,
)
from ait_jax.models.checkpoints.restore import restore_params
from ait_jax.models.llama import LlamaTransformer
from ait_jax.models.rotary import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling
from ait_jax.prompts import tokenizer_files
from ait_jax.runtime.partitioning import Partitioner

pytestmark = needs_tokenizers
VARIANTS = {
    "tied": {},
    "separate": dict(logits_via_embedding=False),
    "qwen2": dict(attention_bias=True),
    "biased": dict(attention_bias=True, attention_output_bias=True, logits_via_embedding=False),
    "llama_3_2": dict(rope_scaling=Llama3Scaling(factor=4.0, original_max_position=64)),
    "linear": dict(rope_scaling=LinearScaling(factor=4.0)),
    "dynamic": dict(rope_scaling=DynamicScaling(factor=4.0, original_max_position=256)),
    "yarn": dict(rope_scaling=YarnScaling(factor=4.0, original_max_position=64, beta_fast=16.0)),
    "qwen3": dict(qk_norm="head"),
    "qwen2_local": dict(attention_bias=True, layer_pattern="GL", sliding_window=5),
    "smollm3": dict(layer_pattern="GN"),
    "olmo2": dict(norms="post", qk_norm="all", logits_via_embedding=False),
    "olmo3": dict(
        norms="post", qk_norm="all", layer_pattern="LG", sliding_window=5, local_rope_theta=1000.0,
        rope_scaling=YarnScaling(factor=4.0, original_max_position=64),
    ),
    "gemma3": dict(
        norms="both", qk_norm="head", mlp_activations=("gelu", "linear"), scale_embeddings=True,
        layer_pattern="LG", sliding_window=5, local_rope_theta=50.0, query_scale=0.5,
    ),
    "gemma3_scaled": dict(
        norms="both", qk_norm="head", mlp_activations=("gelu", "linear"), scale_embeddings=True,
        layer_pattern="LG", sliding_window=5, local_rope_theta=50.0,
        rope_scaling=LinearScaling(factor=4.0), logits_softcap=2.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return tokenizer_files.read(folder)


def written(folder, tokenizer, variant="tied", dtype=np.float32, **options):
    config = config_of(**VARIANTS[variant])
    params = jax.tree.map(lambda x: x.astype(dtype), random_params(config))
    llama_weights.write(folder, params, config, tokenizer, **options)
    return config, params


def test_the_error_names_what_is_read(tmp_path):
    known = {*hugging_face._DEFAULTS, *llama_settings.FAMILIES}
    assert set(hugging_face_folder.MODEL_TYPES) == known
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="a 'gemma3' model; .*Did you mean 'gemma3_text'"):
        checkpoints.open_checkpoint(tmp_path)


def assert_equal(params, expected):
    params, expected = parameters.flatten(params), parameters.flatten(expected)
    assert list(params) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(params[name], value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(tmp_path, tokenizer, variant):
    config, params = written(tmp_path, tokenizer, variant, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    opened = checkpoints.open_checkpoint(tmp_path)
    assert opened.form == "hugging_face" and opened.config == config
    assert_equal(checkpoints.open_checkpoint(tmp_path).load(), params)
    # The rows are in the model's own order there: our 0 pads and 1 ends.
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    table = safetensors.numpy.load_file(tmp_path / index[llama_weights.TABLE])[llama_weights.TABLE]
    own = tokenizer.special.order.to_own(range(config.vocab_size))
    np.testing.assert_array_equal(
        table[own], parameters.flatten(params)["decoder.token_embedder.embedding"]
    )


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision(tmp_path, tokenizer, dtype):
    _, params = written(tmp_path, tokenizer, dtype=dtype)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == np.dtype(dtype).name
    assert_equal(checkpoints.open_checkpoint(tmp_path).load(), params)
    kept = parameters.flatten(checkpoints.open_checkpoint(tmp_path).load(dtype=None))
    assert {array.dtype for array in kept.values()} == {np.dtype(dtype)}


@needs_torch
@pytest.mark.parametrize("variant", ["separate", "qwen2", *list(VARIANTS)[4:]])
def test_logits_are_transformers(tmp_path, tokenizer, variant):
    config, params = written(tmp_path, tokenizer, variant)
    asked = logits_check.prompts(config.vocab_size)
    ours = logits_check.our_logits(params, config, asked)
    theirs = logits_check.torch_logits(tmp_path, asked, tokenizer.special.order)
    assert logits_check.largest_difference(ours, theirs) < 1e-4 * np.abs(theirs).max()
    # Tokens in the wrong order would show.
    other = logits_check.torch_logits(tmp_path, asked, type(tokenizer.special.order)())
    assert logits_check.largest_difference(ours, other) > 0.01


@needs_torch
def test_transformers_reads_the_tokenizer_and_writes_what_is_read(tmp_path, tokenizer):
    import torch
    import transformers

    (tmp_path / "ours").mkdir()
    config, params = written(tmp_path / "ours", tokenizer, "separate")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32
    )
    assert (words.eos_token_id, model.generation_config.eos_token_id) == (2, 2)
    words.save_pretrained(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "theirs")
    again = checkpoints.open_checkpoint(tmp_path / "theirs")
    assert again.config == config
    assert_equal(checkpoints.open_checkpoint(tmp_path / "theirs").load(), params)


def test_restore_onto_a_mesh(tmp_path, tokenizer):
    _config, params = written(tmp_path, tokenizer, "separate")
    for scan_layers in (False, True):
        model = LlamaTransformer(config_of(**VARIANTS["separate"], scan_layers=scan_layers))
        restored = restore_params(tmp_path, model, Partitioner(num_partitions=2))
        table = restored.params["decoder"]["token_embedder"]["embedding"]
        assert not table.sharding.is_fully_replicated
        np.testing.assert_array_equal(
            table, parameters.flatten(params)["decoder.token_embedder.embedding"]
        )
    layers = restored.params["decoder"]["layers"]
    np.testing.assert_array_equal(
        layers["mlp"]["wo"]["kernel"][1], params["decoder"]["layers_1"]["mlp"]["wo"]["kernel"]
    )
    for changes, field in (
        (dict(rope_theta=10000.0), "LlamaConfig.rope_theta = 10000.0 .there 1000.0"),
        (dict(norm_epsilon=1e-6), "LlamaConfig.norm_epsilon"),
        (dict(num_heads=8, head_dim=4, num_kv_heads=4), "num_heads = 8 .there 4.*head_dim = 4"),
    ):
        wrong = LlamaTransformer(config_of(**{**VARIANTS["separate"], **changes}))
        with pytest.raises(UserError, match=field):
            restore_params(tmp_path, wrong, Partitioner())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(model_type="mamba"), "describes a 'mamba' model"),
        (dict(model_type=["llama"]), "model"),
        (dict(hidden_act="gelu"), "hidden_act = 'gelu'; this network has 'silu'"),
        (dict(mlp_bias=True), "mlp_bias"),
        (dict(num_attention_heads=0), "num_attention_heads = 0"),
        (dict(num_key_value_heads=3), "config.json: LlamaConfig.num_kv_heads = 3 does not divide"),
        (dict(vocab_size=2**60), "vocab_size"),
        (dict(rms_norm_eps="x"), "rms_norm_eps"),
        (dict(rope_scaling={"rope_type": "yarn"}), "of type 'yarn' without factor"),
        (dict(rope_scaling={"rope_type": "longrope"}), "of type 'longrope'"),
        (dict(rope_scaling={"rope_type": "linear", "factor": -2}), "factor = -2"),
        (dict(rope_parameters={"partial_rotary_factor": 0.5}), "partial_rotary_factor = 0.5"),
        (dict(rope_scaling={"rope_type": "llama3", "factor": 8}), "without low_freq_factor"),
        (dict(tie_word_embeddings=False), "lacks lm_head.weight"),
        (dict(num_hidden_layers=3), "lacks model.layers.2"),
        (dict(num_hidden_layers=1), "holds unexpected model.layers.1"),
        (dict(intermediate_size=60), "by the sizes it states"),
    ],
)
def test_other_configurations_are_refused(tmp_path, tokenizer, changes, problem):
    written(tmp_path, tokenizer)
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=problem):
        checkpoints.open_checkpoint(tmp_path)


def test_damaged_folders_are_refused(tmp_path, tokenizer):
    written(tmp_path, tokenizer)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"\xff" * 64, b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="not a complete safetensors"):
            checkpoints.open_checkpoint(tmp_path)
    path.write_bytes(data)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="No tokenizer.json"):
        checkpoints.open_checkpoint(tmp_path)
    path.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="a pickle, which is never opened"):
        checkpoints.open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (dict(type="linear", factor=2), LinearScaling(2.0)),
        (dict(rope_type="dynamic", factor=2.0), DynamicScaling(2.0, 256)),
        (dict(rope_type="yarn", factor=4.0), YarnScaling(4.0, 256)),
        (
            dict(
                type="yarn", factor=40, original_max_position_embeddings=64, mscale=1.0,
                mscale_all_dim=0.5, beta_fast=None, truncate=False,
            ),
            # The ratio of 0.1 * mscale * ln(40) + 1 for both.
            YarnScaling(40.0, 64, 1.3688879 / 1.1844440, truncate=False),
        ),
    ],
)  # fmt: skip
def test_how_files_state_scaled_rotations(tmp_path, tokenizer, given, expected):
    written(tmp_path, tokenizer)
    edit_json(tmp_path / "config.json", rope_scaling=given)
    found = checkpoints.open_checkpoint(tmp_path).config.rope_scaling
    assert type(found) is type(expected)
    for name, value in dataclasses.asdict(expected).items():
        assert getattr(found, name) == (pytest.approx(value, rel=1e-6) if value else value)
