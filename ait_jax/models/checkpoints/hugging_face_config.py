"""config.json of Hugging Face's T5, in and out.

What transformers does with each field is in its models/t5/configuration_t5.py (4.x and 5.x).
"""

import json
from collections.abc import Mapping
from typing import Any

from ait_jax.errors import UserError
from ait_jax.models.checkpoints.safetensors_folder import CONFIG
from ait_jax.models.t5 import T5Config

# What transformers assumes where config.json is silent.
_T5_DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "feed_forward_proj": "relu",
    "dropout_rate": 0.1,
}
_DEFAULTS = {
    "t5": _T5_DEFAULTS,
    # mT5 is T5 1.1 with another vocabulary, and never scales its output.
    "mt5": _T5_DEFAULTS
    | {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
    | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
# What our network has built in.
FIXED = {
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
# Theirs to ours. Their "gelu" is the exact one, ours (T5X's) the approximation by tanh.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}


def read_settings(folder: Any) -> dict[str, Any]:
    """Returns config.json's fields, with transformers' defaults for what it leaves out.

    Raises:
        UserError: no config.json, a damaged one, or one of another architecture.
    """
    path = folder / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {CONFIG}; copy it from where the weights are.") from error
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is no JSON or a truncated one; copy it again.") from error
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        what = f"a {kind!r} model" if kind else "no model (model_type is missing)"
        raise UserError(
            f"{path} describes {what}; needed: model_type 't5', 'mt5', 'llama' or 'qwen2'."
        )
    given = {name: value for name, value in settings.items() if value is not None}
    return _DEFAULTS[kind] | given


def to_config(settings: Mapping[str, Any], folder: Any) -> T5Config:
    """Returns the T5Config that `read_settings` describe.

    Args:
        settings: from `read_settings`.
        folder: where they came from, for messages.

    Raises:
        UserError: values that are none, or of a network that ours is not.
    """
    path = folder / CONFIG
    sizes = {
        name: _size(settings, name, path)
        for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    }
    for name, value in FIXED.items():
        if settings.get(name, value) != value:
            raise UserError(f"{path} has {name} = {settings[name]!r}; this network has {value}.")
    rate = settings["dropout_rate"]
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise UserError(f"{path} has dropout_rate = {rate!r}; needed: from 0 to below 1.")
    decoder_layers = sizes["num_layers"]
    if "num_decoder_layers" in settings:
        decoder_layers = _size(settings, "num_decoder_layers", path)
    return T5Config(
        vocab_size=sizes["vocab_size"],
        emb_dim=sizes["d_model"],
        num_heads=sizes["num_heads"],
        num_encoder_layers=sizes["num_layers"],
        num_decoder_layers=decoder_layers,
        head_dim=sizes["d_kv"],
        mlp_dim=sizes["d_ff"],
        mlp_activations=_activations(settings, path),
        dropout_rate=float(rate),
        logits_via_embedding=_scales_output(settings),
    )


def _size(settings: Mapping[str, Any], name: str, path: Any) -> int:
    value = settings[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{path} has {name} = {value!r}; needed: a whole number above 0.")
    return value


def _activations(settings: Mapping[str, Any], path: Any) -> tuple[str, ...]:
    given = str(settings["feed_forward_proj"])
    gated, name = given.startswith("gated-"), given.removeprefix("gated-")
    # By transformers' own exception this one alone means the approximation.
    name = "gelu_new" if given == "gated-gelu" else name
    name = settings.get("dense_act_fn", name)
    if name not in _ACTIVATIONS:
        raise UserError(
            f"{path} has the activation {name!r} (feed_forward_proj = {given!r}), which this "
            f"network has not; it has {', '.join(_ACTIVATIONS)}."
        )
    return (_ACTIVATIONS[name], "linear") if gated else (_ACTIVATIONS[name],)


def _scales_output(settings: Mapping[str, Any]) -> bool:
    """Whether the decoder's output is scaled before the output layer, as where that is tied.

    transformers 5 says so itself, for it always writes tie_word_embeddings = true.
    """
    if settings["model_type"] == "mt5":
        return False
    tied = settings.get("tie_word_embeddings", True) is not False
    return bool(settings.get("scale_decoder_outputs", tied))


def to_settings(config: T5Config, dtype: str) -> dict[str, Any]:
    """Returns config.json's content; UserError for activations that Hugging Face's T5 lacks."""
    activations = config.mlp_activations
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())} | {"swish": "silu"}
    if len(activations) > 2 or activations[1:] not in ((), ("linear",)):
        raise UserError(
            f"T5Config.mlp_activations = {activations} has no place in Hugging Face's T5, which "
            "has one activation, or one and 'linear'."
        )
    name, gated = theirs[activations[0]], len(activations) == 2
    projection = ("gated-" if gated else "") + name
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": config.mlp_dim,
        "d_kv": config.head_dim,
        "d_model": config.emb_dim,
        "decoder_start_token_id": 0,
        "dense_act_fn": name,
        "dropout_rate": config.dropout_rate,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu" if projection == "gated-gelu_new" else projection,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": gated,
        **FIXED,
        "model_type": "t5",
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "pad_token_id": 0,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
