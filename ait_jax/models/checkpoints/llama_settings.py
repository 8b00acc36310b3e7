"""A LLaMA's sizes in files: config.json of Hugging Face, in and out; GGUF's metadata, in.

What transformers does with each field is in its models/llama/configuration_llama.py (4.x and
5.x); the metadata's names are in ggml's docs/gguf.md.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.models import rotary
from ait_jax.models.checkpoints.hugging_face_folder import (
    check_built_in,
    number,
    size,
    with_defaults,
)
from ait_jax.models.interface import ModelConfig
from ait_jax.models.llama import LlamaConfig
from ait_jax.prompts.gguf_header import Header

# What transformers assumes where config.json is silent.
_LLAMA_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
_DEFAULTS = {
    "llama": _LLAMA_DEFAULTS,
    # LLaMA's network with biases of queries, keys and values; LLaMA's own biases, which are rare,
    # include the output's.
    "qwen2": _LLAMA_DEFAULTS
    | {"vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32}
    | {"max_position_embeddings": 32768},
}
MODEL_TYPES = tuple(_DEFAULTS)
# config.json's names of sizes, and ours.
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "emb_dim",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": "max_position",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
}
# Of the sizes, those that follow from others where files are silent.
_DERIVED = ("num_kv_heads", "head_dim")
# What the network has built in.
_BUILT_IN = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "use_sliding_window": False,
}
_ROPE_THETA = 10000.0
_MAX_LAYERS = 10_000


def to_config(settings: Mapping[str, Any], path: Any) -> LlamaConfig:
    """Returns the configuration that a config.json describes.

    Raises:
        UserError: another kind of model, values of the wrong type or of another network.
    """
    given = with_defaults(settings, path, _DEFAULTS)
    kind = given["model_type"]
    check_built_in(given, path, _BUILT_IN)
    sizes = _sizes(given, _SIZES, path)
    if sizes["emb_dim"] % sizes["num_heads"] and "head_dim" not in given:
        raise UserError(
            f"{shown_path(path)} has no head_dim, and hidden_size is not a multiple of its heads."
        )
    rope, scaling = _rope(given, path)
    bias = given.get("attention_bias") is True or kind == "qwen2"
    return _config(
        sizes
        | {
            "norm_epsilon": number(given, "rms_norm_eps", path),
            "rope_theta": rope,
            "rope_scaling": scaling,
            "logits_via_embedding": given.get("tie_word_embeddings") is True,
            "attention_bias": bias,
            "attention_output_bias": bias and kind == "llama",
        },
        path,
    )


def _sizes(given: Mapping[str, Any], names: Mapping[str, str], path: Any) -> dict[str, Any]:
    """Returns the sizes that `names` calls by theirs and ours."""
    sizes = {
        ours: size(given, name, path)
        for name, ours in names.items()
        if name in given or ours not in _DERIVED
    }
    derived = {"num_kv_heads": sizes["num_heads"]}
    derived["head_dim"] = sizes["emb_dim"] // sizes["num_heads"]
    return {**derived, **sizes}


def _config(fields: Mapping[str, Any], path: Any) -> LlamaConfig:
    if fields["num_layers"] > _MAX_LAYERS:
        raise UserError(
            f"{shown_path(path)} has {fields['num_layers']:,} layers; no model has that many."
        )
    try:
        return LlamaConfig(**fields)
    except UserError as error:
        raise UserError(f"{shown_path(path)}: {error}") from error


def _rope(settings: Mapping[str, Any], path: Any) -> tuple[float, rotary.Scaling | None]:
    """Returns rope_theta, and what scales the rotations.

    transformers 5 writes both into rope_parameters, 4 into rope_theta and rope_scaling.
    """
    name = "rope_parameters" if "rope_parameters" in settings else "rope_scaling"
    rope = settings.get(name) or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"{shown_path(path)} has {name} = {shown(rope)}; it must be an object.")
    rope = {key: value for key, value in rope.items() if value is not None}
    check_built_in(rope, path, {"partial_rotary_factor": 1.0})
    theta = number({"rope_theta": _ROPE_THETA, **settings, **rope}, "rope_theta", path)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise UserError(
            f"{shown_path(path)} has {name} of type {shown(kind)}; ait-jax knows 'default', "
            f"{', '.join(map(repr, _SCALINGS))}."
        )
    length = "original_max_position_embeddings"
    if kind == "dynamic":
        rope[length] = settings["max_position_embeddings"]
    elif kind == "yarn":
        rope = {length: settings["max_position_embeddings"], **rope}
        rope |= {length: settings[length]} if length in settings else {}
        rope |= _yarn_magnitude(rope, path)
    scaling, names = _SCALINGS[kind]
    needed = [key for key in names if key in _NEEDED and key not in rope]
    if needed:
        raise UserError(f"{shown_path(path)} has {name} of type {shown(kind)} without {needed[0]}.")
    values: dict[str, Any] = {names[key]: number(rope, key, path) for key in names if key in rope}
    if "original_max_position" in values:
        values["original_max_position"] = int(values["original_max_position"])
    if kind == "yarn":
        values["truncate"] = rope.get("truncate") is not False
    return theta, scaling(**values)


def _yarn_magnitude(rope: Mapping[str, Any], path: Any) -> dict[str, float]:
    """Returns attention_factor where two others state it, as DeepSeek's do."""
    if "attention_factor" in rope or not (rope.get("mscale") and rope.get("mscale_all_dim")):
        return {}
    names = ("factor", "mscale", "mscale_all_dim")
    factor, above, below = (number(rope, name, path) if name in rope else 1.0 for name in names)
    ratio = rotary.yarn_magnitude(factor, above) / rotary.yarn_magnitude(factor, below)
    return {"attention_factor": ratio}


_FACTOR = {"factor": "factor"}
_LENGTH = {"original_max_position_embeddings": "original_max_position"}
# What scales rotations: by config.json's rope_type, the class, config.json's names and ours.
_SCALINGS: dict[str, tuple[Any, dict[str, str]]] = {
    "linear": (rotary.LinearScaling, _FACTOR),
    "dynamic": (rotary.DynamicScaling, _FACTOR | _LENGTH),
    "llama3": (
        rotary.Llama3Scaling,
        _FACTOR | {name: name for name in ("low_freq_factor", "high_freq_factor")} | _LENGTH,
    ),
    "yarn": (
        rotary.YarnScaling,
        _FACTOR | _LENGTH | {name: name for name in ("attention_factor", "beta_fast", "beta_slow")},
    ),
}
_NEEDED = {"factor", "low_freq_factor", "high_freq_factor", *_LENGTH}


def to_settings(
    config: LlamaConfig, *, dtype: str, ids: Mapping[str, int | None]
) -> dict[str, Any]:
    """Returns config.json's fields for a network.

    Args:
        dtype: torch's name of what the weights are stored as.
        ids: "bos_token_id", "eos_token_id", "pad_token_id" in the model's own order.
    """
    kind = "qwen2" if config.attention_bias and not config.attention_output_bias else "llama"
    settings: dict[str, Any] = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        **{
            theirs: getattr(config, ours)
            for theirs, ours in _SIZES.items()
            if getattr(config, ours) is not None
        },
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_type": kind,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
        "use_cache": True,
        **ids,
    }
    if kind == "llama":
        settings |= {"attention_bias": config.attention_bias, "mlp_bias": False}
    scaling = config.rope_scaling
    if scaling is not None:
        kind = next(kind for kind, (known, _) in _SCALINGS.items() if isinstance(scaling, known))
        given = {key: getattr(scaling, ours) for key, ours in _SCALINGS[kind][1].items()}
        if isinstance(scaling, rotary.YarnScaling):
            given["truncate"] = scaling.truncate
        if isinstance(scaling, rotary.DynamicScaling):
            settings["max_position_embeddings"] = given.popitem()[1]
        given = {key: value for key, value in given.items() if value is not None}
        settings["rope_scaling"] = {"rope_type": kind, **given}
    return dict(sorted(settings.items()))


def check_same(found: LlamaConfig, config: ModelConfig, place: Any) -> None:
    """Checks that a model is the network that the files at `place` describe.

    Raises:
        UserError: names every field that differs, with both values.
    """
    if not isinstance(config, LlamaConfig):
        kind = type(config).__name__.removesuffix("Config")
        raise UserError(
            f"{shown_path(place)} is a decoder-only model, but MODEL is a {kind}: give a "
            "gin/models file of its kind, or one that `ait-jax convert` wrote."
        )
    differing = [
        f"LlamaConfig.{name} = {shown(getattr(config, name))} (there {shown(value)})"
        for name, value in found.network().items()
        if getattr(config, name) != value
    ]
    if differing:
        values = ", ".join(differing)
        raise UserError(
            f"{shown_path(place)} does not fit the model: {values}; set the values found there."
        )


# --- GGUF ---

ARCHITECTURE = "llama"
_GGUF_SIZES = {
    "embedding_length": "emb_dim",
    "attention.head_count": "num_heads",
    "block_count": "num_layers",
    "feed_forward_length": "mlp_dim",
    "context_length": "max_position",
    "attention.head_count_kv": "num_kv_heads",
    "attention.key_length": "head_dim",
}


def config_of_gguf(header: Header) -> LlamaConfig:
    """Returns the configuration that a GGUF file's metadata describe.

    Raises:
        UserError: another architecture, values of the wrong type or of another network.
    """
    kind, path = header.value("general.architecture", str), header.path
    if kind != ARCHITECTURE:
        raise UserError(
            f"{shown_path(path)} holds a {shown(kind)} model (general.architecture); ait-jax "
            f"reads {shown(ARCHITECTURE)}."
            f"{nearest(kind, [ARCHITECTURE])}"
        )
    given = {name.removeprefix(f"{kind}."): value for name, value in header.metadata.items()}
    if given.get("expert_count"):
        raise UserError(f"{shown_path(path)} is a mixture of experts, which this network is not.")
    scaled, scaling = given.get("rope.scaling.type", "none"), None
    if scaled == "linear":
        given.setdefault("rope.scaling.factor", 1.0)
        scaling = rotary.LinearScaling(_decimal(number(given, "rope.scaling.factor", path)))
    elif scaled != "none" or "rope_freqs.weight" in header.tensors:
        raise UserError(
            f"{shown_path(path)} scales its rotations (llama.rope.scaling.type, rope_freqs), as "
            "Llama 3.1 and later do, which ait-jax does not read from GGUF. Give the same model's "
            "Hugging Face folder."
        )
    needed = [name for name, ours in _GGUF_SIZES.items() if ours not in _DERIVED]
    for name in (*needed, "attention.layer_norm_rms_epsilon"):
        header.value(f"{kind}.{name}", (int, float))
    sizes = _sizes(given, _GGUF_SIZES, path)
    given.setdefault("rope.freq_base", _ROPE_THETA)
    if given.get("rope.dimension_count", sizes["head_dim"]) != sizes["head_dim"]:
        raise UserError(
            f"{shown_path(path)} rotates {given['rope.dimension_count']} of {sizes['head_dim']} "
            "dimensions (llama.rope.dimension_count); this network rotates all."
        )
    table = header.tensors.get("token_embd.weight")
    if table is None:
        raise UserError(f"{shown_path(path)} lacks token_embd.weight; copy or download it again.")
    return _config(
        sizes
        | {
            "vocab_size": table.shape[0],
            "norm_epsilon": _decimal(number(given, "attention.layer_norm_rms_epsilon", path)),
            "rope_theta": _decimal(number(given, "rope.freq_base", path)),
            "rope_scaling": scaling,
            "logits_via_embedding": "output.weight" not in header.tensors,
            "attention_bias": "blk.0.attn_q.bias" in header.tensors,
            "attention_output_bias": "blk.0.attn_output.bias" in header.tensors,
        },
        path,
    )


def _decimal(value: float) -> float:
    """Returns the decimal number that a float32 was written as: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))
