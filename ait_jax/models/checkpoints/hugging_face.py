"""Hugging Face's T5 folders, in and out: config.json and safetensors, whole or in shards.

The networks are the same; names, the kernels' orientation and the configuration differ. The
reference is transformers' models/t5/modeling_t5.py and configuration_t5.py (4.x and 5.x).
"""

import re
from collections.abc import Mapping
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.models.checkpoints import hugging_face_folder
from ait_jax.models.checkpoints.hugging_face_folder import CONFIG, MAX_SHARD_BYTES, OUTPUT, size
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams, stored_params
from ait_jax.models.interface import Params
from ait_jax.models.parameters import flatten
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.runtime import files

VOCABULARY = "spiece.model"

_TABLE = "shared.weight"
# Copies of the token table that files may hold under these names too.
_TABLE_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# In T5 1.0's files, and used by no version of the network.
_UNUSED = re.compile(
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)

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
# config.json's names of sizes, and ours.
_SIZES = {
    "vocab_size": "vocab_size",
    "d_ff": "mlp_dim",
    "d_kv": "head_dim",
    "d_model": "emb_dim",
    "num_decoder_layers": "num_decoder_layers",
    "num_heads": "num_heads",
    "num_layers": "num_encoder_layers",
}
# What our network has built in.
_BUILT_IN = {
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
# T5's special ids, which our programs have built in, too.
_SPECIAL_IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
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


# --- the mapping ---

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
_MLP = ("DenseReluDense", "mlp", "pre_mlp_layer_norm", {n: n for n in ("wi", "wi_0", "wi_1", "wo")})
# A layer's parts in order: their name, ours, that of the norm before, kernels.
_PARTS = {
    "encoder": (("SelfAttention", "attention", "pre_attention_layer_norm", _ATTENTION), _MLP),
    "decoder": (
        ("SelfAttention", "self_attention", "pre_self_attention_layer_norm", _ATTENTION),
        (
            "EncDecAttention",
            "encoder_decoder_attention",
            "pre_cross_attention_layer_norm",
            _ATTENTION,
        ),
        _MLP,
    ),
}


def names_and_shapes(config: T5Config) -> hugging_face_folder.Names:
    """Returns {name in Hugging Face's T5: (dotted name of ours, shape there)}."""
    names = {_TABLE: "token_embedder.embedding"}
    for stack, parts in _PARTS.items():
        names[f"{stack}.final_layer_norm.weight"] = f"{stack}.{stack}_norm.scale"
        biases = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        names[biases] = f"{stack}.relpos_bias.rel_embedding"
        for number, (theirs, ours, norm, kernels) in enumerate(parts):
            there, here = f"{stack}.block.{{}}.layer.{number}", f"{stack}.layers_{{}}"
            names[f"{there}.layer_norm.weight"] = f"{here}.{norm}.scale"
            for kernel, own in kernels.items():
                names[f"{there}.{theirs}.{kernel}.weight"] = f"{here}.{ours}.{own}.kernel"
    names[OUTPUT] = "decoder.logits_dense.kernel"
    return hugging_face_folder.names_and_shapes(Transformer(config), names, _TABLE)


# --- reading ---


def open_params(folder: Any) -> StoredParams:
    """Returns a folder's configuration and its parameters; none of these is read yet.

    Args:
        folder: config.json beside model.safetensors, or beside
            model.safetensors.index.json and its shards.

    Raises:
        UserError: another architecture, no safetensors, a missing or truncated shard, names
            that differ from the index or the configuration, a wrong shape.
    """
    folder = files.as_path(folder)
    settings = hugging_face_folder.read_settings(folder)
    config = to_config(settings, folder / CONFIG)
    tensors = hugging_face_folder.open_tensors(folder)
    _check_sizes(tensors, config, folder)
    copies = (*_TABLE_COPIES, *([OUTPUT] if config.logits_via_embedding else []))
    for name in copies:
        if name in tensors:
            tensors.setdefault(_TABLE, tensors[name])
    ties = settings.get("tie_word_embeddings") is True
    if ties and not config.logits_via_embedding and _TABLE in tensors:
        # transformers 5 can tie without scaling; ours then holds the table twice.
        tensors.setdefault(OUTPUT, tensors[_TABLE])
    arrays = hugging_face_folder.checked(
        tensors, names_and_shapes(config), folder, table=_TABLE, copies=copies, unused=_UNUSED
    )
    return stored_params(arrays, folder, config=config)


def _check_sizes(tensors: Mapping[str, StoredArray], config: T5Config, folder: Any) -> None:
    widths = {name: getattr(config, ours) for name, ours in _SIZES.items() if "layers" not in name}
    widths |= {"num_heads * d_kv": config.num_heads * config.head_dim}
    depth = config.num_encoder_layers + config.num_decoder_layers
    hugging_face_folder.check_sizes(tensors, folder, widths, ("num_layers in all", depth))


def to_config(settings: Mapping[str, Any], path: Any) -> T5Config:
    """Returns the T5Config that a config.json describes.

    Raises:
        UserError: another kind of model, values of the wrong type or of another network.
    """
    settings = hugging_face_folder.with_defaults(settings, path, _DEFAULTS)
    hugging_face_folder.check_built_in(settings, path, _BUILT_IN)
    _check_special_ids(settings, path)
    settings.setdefault("num_decoder_layers", settings["num_layers"])
    rate = settings["dropout_rate"]
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise UserError(
            f"{shown_path(path)} has dropout_rate = {shown(rate)}; it must be at least 0 and "
            "below 1."
        )
    sizes: dict[str, Any] = {n: size(settings, theirs, path) for theirs, n in _SIZES.items()}
    return T5Config(
        **sizes,
        mlp_activations=_activations(settings, path),
        dropout_rate=float(rate),
        logits_via_embedding=_scales_output(settings),
    )


def _check_special_ids(settings: Mapping[str, Any], path: Any) -> None:
    for name, needed in _SPECIAL_IDS.items():
        given = settings.get(name, needed)
        if given not in (needed, [needed]) or isinstance(given, bool):
            raise UserError(
                f"{shown_path(path)} has {name} = {shown(given)}, but of T5 models only those with "
                f"{name} = {needed} are read: in this one another token "
                f"{'ends a sequence' if needed else 'pads or begins a sequence'}."
            )


def _activations(settings: Mapping[str, Any], path: Any) -> tuple[str, ...]:
    given = str(settings["feed_forward_proj"])
    gated, name = given.startswith("gated-"), given.removeprefix("gated-")
    # By transformers' own exception this one alone means the approximation.
    name = "gelu_new" if given == "gated-gelu" else name
    name = settings.get("dense_act_fn", name)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UserError(
            f"{shown_path(path)} has the activation {shown(name)} (feed_forward_proj = "
            f"{shown(given)}), which this "
            f"network lacks; it has {', '.join(_ACTIVATIONS)}."
        )
    return (_ACTIVATIONS[name], "linear") if gated else (_ACTIVATIONS[name],)


def _scales_output(settings: Mapping[str, Any]) -> bool:
    """Whether the decoder's output is scaled before the output layer, as if that is tied.

    transformers 5 states this, for it always writes tie_word_embeddings = true.
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
            f"T5Config.mlp_activations = {activations} does not exist in Hugging Face's T5, which "
            "has one activation, or one and 'linear'."
        )
    name, gated = theirs[activations[0]], len(activations) == 2
    projection = ("gated-" if gated else "") + name
    settings = {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": config.mlp_dim,
        "d_kv": config.head_dim,
        "d_model": config.emb_dim,
        "dense_act_fn": name,
        "dropout_rate": config.dropout_rate,
        "feed_forward_proj": "gated-gelu" if projection == "gated-gelu_new" else projection,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": gated,
        **_BUILT_IN,
        "model_type": "t5",
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        **_SPECIAL_IDS,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
    return dict(sorted(settings.items()))


# --- writing ---


def to_tensors(params: Params, config: T5Config) -> dict[str, Any]:
    """Returns unscanned parameters under Hugging Face's names and in its shapes, as views."""
    flat = flatten(params)
    return {
        theirs: flat[ours] if theirs == _TABLE else flat[ours].T
        for theirs, (ours, _) in names_and_shapes(config).items()
    }


def write(
    folder: Any,
    params: Params,
    config: T5Config,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json, generation_config.json and the weights into an existing folder.

    Args:
        params: unscanned parameters of `config`, on the host, in the dtypes to be stored.
        max_shard_bytes: above this the weights come in several files with an index.

    Raises:
        UserError: a network that does not exist in Hugging Face's T5.
    """
    tensors = to_tensors(params, config)
    settings = to_settings(config, str(tensors[_TABLE].dtype))
    hugging_face_folder.write(folder, tensors, settings, _SPECIAL_IDS, max_shard_bytes)


def write_tokenizer_config(folder: Any, extra_ids: int) -> None:
    """Writes what transformers needs to read `spiece.model` as T5's vocabulary."""
    settings = {
        "eos_token": "</s>",
        "extra_ids": extra_ids,
        "pad_token": "<pad>",
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    files.write_json(folder / "tokenizer_config.json", settings)
