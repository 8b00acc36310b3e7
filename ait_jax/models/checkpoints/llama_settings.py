"""A decoder-only model's sizes in Hugging Face's config.json, in and out.

`FAMILIES` says what each model_type stands for. What transformers does with a field is in its
models/<model_type>/configuration_<model_type>.py (4.x and 5.x).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.models import layer_kinds
from ait_jax.models.checkpoints import rope_settings
from ait_jax.models.checkpoints.hugging_face_folder import (
    check_built_in,
    number,
    size,
    with_defaults,
)
from ait_jax.models.checkpoints.rope_settings import FULL, SLIDING
from ait_jax.models.interface import ModelConfig
from ait_jax.models.llama import LlamaConfig

Fields = dict[str, Any]

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
DERIVED = ("num_kv_heads", "head_dim")
MAX_LAYERS = 10_000
# What transformers assumes where config.json is silent, in most families.
_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
# What the network has built in, whatever the family.
_BUILT_IN = {"mlp_bias": False, "partial_rotary_factor": 1.0}


@dataclass(frozen=True)
class Family:
    """What a model_type of transformers is, among the networks of `LlamaConfig`.

    Attributes:
        architecture: the class that transformers loads.
        defaults: transformers', for fields that config.json leaves out.
        fields: of `LlamaConfig` that all its models have.
        built_in: fields of config.json that must have these values.
        layers: settings -> fields of kinds of layers.
    """

    architecture: str
    defaults: Mapping[str, Any]
    fields: Mapping[str, Any]
    built_in: Mapping[str, Any]
    layers: Callable[[Mapping[str, Any], Any], Fields]


def _all_global(given: Mapping[str, Any], path: Any) -> Fields:
    check_built_in(given, path, {"use_sliding_window": False})
    return {}


def _by_types(pattern: str) -> Callable[[Mapping[str, Any], Any], Fields]:
    """Returns what reads layer_types, or assumes a pattern; layers of L have a sliding_window."""

    def read(given: Mapping[str, Any], path: Any) -> Fields:
        depth = size(given, "num_hidden_layers", path)
        period = given.get("sliding_window_pattern")
        assumed = pattern
        if period is not None:
            assumed = "L" * (min(size(given, "sliding_window_pattern", path), MAX_LAYERS) - 1) + "G"
        letters = layer_kinds.spelled_out(assumed, min(depth, MAX_LAYERS))
        types = given.get("layer_types")
        if types is not None:
            letters = _letters(types, depth, path)
        fields: Fields = {"layer_pattern": layer_kinds.shortest(letters)}
        if layer_kinds.LOCAL in letters:
            fields["sliding_window"] = size(given, "sliding_window", path)
        return fields

    return read


def _letters(types: Any, depth: int, path: Any) -> str:
    letter_of = {FULL: layer_kinds.GLOBAL, SLIDING: layer_kinds.LOCAL}
    known = isinstance(types, list) and all(isinstance(x, str) and x in letter_of for x in types)
    if not known or len(types) != depth:
        raise UserError(
            f"{shown_path(path)} has layer_types = {shown(types)}; they must be {depth:,} times "
            f"{FULL!r} or {SLIDING!r}."
        )
    return "".join(letter_of[each] for each in types)


def _windows_above(given: Mapping[str, Any], path: Any) -> Fields:
    """Qwen's: the layers from max_window_layers on are local if use_sliding_window is set."""
    if given.get("use_sliding_window") is not True or given.get("sliding_window") is None:
        return {}
    if "layer_types" in given:
        return _by_types(layer_kinds.GLOBAL)(given, path)
    depth = min(size(given, "num_hidden_layers", path), MAX_LAYERS)
    above = given.get("max_window_layers", 28)
    letters = "".join("L" if layer >= above else "G" for layer in range(depth))
    if layer_kinds.LOCAL not in letters:
        return {}
    window = size(given, "sliding_window", path)
    return {"layer_pattern": layer_kinds.shortest(letters), "sliding_window": window}


def _without_positions(given: Mapping[str, Any], path: Any) -> Fields:
    """SmolLM3's: every fourth layer, or those with 0 in no_rope_layers, has no positions."""
    check_built_in(given, path, {"use_sliding_window": False})
    depth = size(given, "num_hidden_layers", path)
    rotated = given.get("no_rope_layers")
    if rotated is None:
        interval = size({"no_rope_layer_interval": 4, **given}, "no_rope_layer_interval", path)
        rotated = [int((layer + 1) % interval != 0) for layer in range(min(depth, MAX_LAYERS))]
    if not isinstance(rotated, list) or len(rotated) != depth or not set(rotated) <= {0, 1}:
        raise UserError(
            f"{shown_path(path)} has no_rope_layers = {shown(rotated)}; they must be {depth:,} "
            "times 0 or 1."
        )
    letters = "".join("G" if each else "N" for each in rotated)
    return {"layer_pattern": layer_kinds.shortest(letters)}


_GEMMA3 = {
    "mlp_activations": ("gelu", "linear"),
    "norms": "both",
    "qk_norm": "head",
    "scale_embeddings": True,
    "attention_softcap": None,
}
_OLMO = {"norms": "post", "qk_norm": "all"}
_SILU = {"hidden_act": "silu"}
_QWEN = _DEFAULTS | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
FAMILIES = {
    "llama": Family("LlamaForCausalLM", _DEFAULTS, {}, _SILU, _all_global),
    # LLaMA's network with biases of queries, keys and values; LLaMA's own biases, which are rare,
    # include the output's.
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _QWEN,
        {"attention_bias": True},
        _SILU,
        _windows_above,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _QWEN | {"head_dim": 128},
        {"qk_norm": "head"},
        _SILU | {"attention_bias": False},
        _windows_above,
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        _DEFAULTS
        | {"vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 36}
        | {"num_attention_heads": 16, "num_key_value_heads": 4, "rope_theta": 2e6}
        | {"max_position_embeddings": 32768, "tie_word_embeddings": True},
        {},
        _SILU | {"attention_bias": False},
        _without_positions,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _DEFAULTS
        | {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216}
        | {"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4}
        | {"head_dim": 256, "max_position_embeddings": 131072, "query_pre_attn_scalar": 256}
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 4096}
        | {"tie_word_embeddings": True},
        _GEMMA3,
        {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
        | {"use_bidirectional_attention": False, "attn_logit_softcapping": None},
        _by_types("LLLLLG"),
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        _DEFAULTS | {"vocab_size": 50304, "rms_norm_eps": 1e-5},
        _OLMO,
        _SILU | {"attention_bias": False},
        _all_global,
    ),
    "olmo3": Family(
        "Olmo3ForCausalLM",
        _DEFAULTS
        | {"vocab_size": 50304, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "sliding_window": 4096},
        _OLMO,
        _SILU | {"attention_bias": False},
        _by_types("LLLG"),
    ),
}


def family_of(config: LlamaConfig) -> str:
    """Returns the model_type whose network this is.

    Raises:
        UserError: there is none with these fields together.
    """
    if config.norms == "post":
        kind = "olmo3" if layer_kinds.LOCAL in config.layer_pattern else "olmo2"
    elif config.scale_embeddings:
        kind = "gemma3_text"
    elif config.qk_norm is not None:
        kind = "qwen3"
    elif layer_kinds.NO_POSITIONS in config.layer_pattern:
        kind = "smollm3"
    else:
        bias = config.attention_bias and not config.attention_output_bias
        kind = "qwen2" if bias else "llama"
    usual = {name: getattr(LlamaConfig, name) for name in _GEMMA3}
    for name, value in (usual | dict(FAMILIES[kind].fields)).items():
        if getattr(config, name) != value:
            raise UserError(
                f"LlamaConfig.{name} = {shown(getattr(config, name))} does not exist in Hugging "
                f"Face's {kind}, which has {shown(value)}; no family has these fields together."
            )
    return kind


def to_config(settings: Mapping[str, Any], path: Any) -> LlamaConfig:
    """Returns the configuration that a config.json describes.

    Raises:
        UserError: another kind of model, values of the wrong type or of another network.
    """
    known = {kind: family.defaults for kind, family in FAMILIES.items()}
    given = with_defaults(settings, path, known)
    kind = given["model_type"]
    family = FAMILIES[kind]
    check_built_in(given, path, {**_BUILT_IN, **family.built_in})
    sizes = sizes_of(given, _SIZES, path)
    if sizes["emb_dim"] % sizes["num_heads"] and "head_dim" not in given:
        raise UserError(
            f"{shown_path(path)} has no head_dim, and hidden_size is not a multiple of its heads."
        )
    theta, scaling, local_theta = rope_settings.read(given, path)
    layers = family.layers(given, path)
    if kind == "olmo3":
        local_theta = local_theta or theta  # what scales rotations is for global layers alone
    has_local = layer_kinds.LOCAL in layers.get("layer_pattern", "")
    bias = kind == "llama" and given.get("attention_bias") is True
    fields: Fields = {
        "norm_epsilon": number(given, "rms_norm_eps", path),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "local_rope_theta": local_theta if has_local else None,
        "logits_via_embedding": given.get("tie_word_embeddings") is True,
        "attention_bias": bias,
        "attention_output_bias": bias,
    }
    if given.get("final_logit_softcapping") is not None:
        fields["logits_softcap"] = number(given, "final_logit_softcapping", path)
    if kind == "gemma3_text":
        scalar = number(given, "query_pre_attn_scalar", path)
        fields["query_scale"] = None if scalar == sizes["head_dim"] else scalar**-0.5
    return config_of(sizes | fields | layers | dict(family.fields), path)


def sizes_of(given: Mapping[str, Any], names: Mapping[str, str], path: Any) -> Fields:
    """Returns the sizes that `names` calls by theirs and ours."""
    sizes = {
        ours: size(given, name, path)
        for name, ours in names.items()
        if name in given or ours not in DERIVED
    }
    derived = {"num_kv_heads": sizes["num_heads"]}
    derived["head_dim"] = sizes["emb_dim"] // sizes["num_heads"]
    return {**derived, **sizes}


def config_of(fields: Mapping[str, Any], path: Any) -> LlamaConfig:
    """Returns the configuration; errors name the file."""
    if fields["num_layers"] > MAX_LAYERS:
        raise UserError(
            f"{shown_path(path)} has {fields['num_layers']:,} layers; no model has that many."
        )
    try:
        return LlamaConfig(**fields)
    except UserError as error:
        raise UserError(f"{shown_path(path)}: {error}") from error


def to_settings(
    config: LlamaConfig, *, dtype: str, ids: Mapping[str, int | None]
) -> dict[str, Any]:
    """Returns config.json's fields for a network.

    Args:
        dtype: torch's name of what the weights are stored as.
        ids: "bos_token_id", "eos_token_id", "pad_token_id" in the model's own order.

    Raises:
        UserError: transformers has no such network.
    """
    kind = family_of(config)
    settings: dict[str, Any] = {
        "architectures": [FAMILIES[kind].architecture],
        **{
            theirs: getattr(config, ours)
            for theirs, ours in _SIZES.items()
            if getattr(config, ours) is not None
        },
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "model_type": kind,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
        "use_cache": True,
        **FAMILIES[kind].built_in,
        **ids,
    }
    if kind == "llama":
        settings |= {"attention_bias": config.attention_bias, "mlp_bias": False}
    settings |= _layer_settings(config, kind)
    if kind == "gemma3_text":
        scale = config.query_scale or config.head_dim**-0.5
        scalar = round(scale**-2, 6)
        settings["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
        settings["final_logit_softcapping"] = config.logits_softcap
    if config.rope_scaling is not None:
        settings |= rope_settings.written(config.rope_scaling)
    if config.local_rope_theta is not None:
        # transformers 5 reads this; of the fields above it would assume one theta.
        scaling = settings.get("rope_scaling", {"rope_type": "default"})
        settings["rope_parameters"] = {
            FULL: {**scaling, "rope_theta": config.rope_theta},
            SLIDING: {"rope_type": "default", "rope_theta": config.local_rope_theta},
        }
    return dict(sorted(settings.items()))


def _layer_settings(config: LlamaConfig, kind: str) -> dict[str, Any]:
    """Returns the fields that say what kinds of layers there are."""
    letters = layer_kinds.spelled_out(config.layer_pattern, config.num_layers)
    if kind == "smollm3":
        return {"no_rope_layers": [int(letter != layer_kinds.NO_POSITIONS) for letter in letters]}
    if layer_kinds.LOCAL not in letters:
        return {}
    types = [SLIDING if letter == layer_kinds.LOCAL else FULL for letter in letters]
    found: dict[str, Any] = {"layer_types": types, "sliding_window": config.sliding_window}
    if kind == "gemma3_text":
        found["rope_local_base_freq"] = config.local_rope_theta
    if kind in ("qwen2", "qwen3"):
        found |= {"use_sliding_window": True, "max_window_layers": letters.index("L")}
    return found


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
