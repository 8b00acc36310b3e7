"""A decoder-only model's weights: Hugging Face's names, shapes and order of tokens, and ours.

The networks are the same; names, the kernels' orientation and the order of tokens differ
(`token_order`), and Gemma's norms add 1 to their scales. The reference is transformers'
models/<model_type>/modeling_<model_type>.py (4.x and 5.x).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown_path
from ait_jax.models.checkpoints import hugging_face_folder, llama_settings
from ait_jax.models.checkpoints.hugging_face_folder import CONFIG, MAX_SHARD_BYTES, OUTPUT
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams, stored_params
from ait_jax.models.interface import Params
from ait_jax.models.llama import LlamaConfig, LlamaTransformer
from ait_jax.models.parameters import flatten
from ait_jax.prompts import tokenizer_files
from ait_jax.prompts.token_order import TokenOrder
from ait_jax.runtime import files

TABLE = "model.embed_tokens.weight"
# Computed, not learned: old files hold it.
_UNUSED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
_LAYER = {
    "self_attn.q_proj.weight": "self_attention.query.kernel",
    "self_attn.q_proj.bias": "self_attention.query.bias",
    "self_attn.k_proj.weight": "self_attention.key.kernel",
    "self_attn.k_proj.bias": "self_attention.key.bias",
    "self_attn.v_proj.weight": "self_attention.value.kernel",
    "self_attn.v_proj.bias": "self_attention.value.bias",
    "self_attn.o_proj.weight": "self_attention.out.kernel",
    "self_attn.o_proj.bias": "self_attention.out.bias",
    "self_attn.q_norm.weight": "self_attention.query_norm.scale",
    "self_attn.k_norm.weight": "self_attention.key_norm.scale",
    "mlp.gate_proj.weight": "mlp.wi_0.kernel",
    "mlp.up_proj.weight": "mlp.wi_1.kernel",
    "mlp.down_proj.weight": "mlp.wo.kernel",
}
# A layer's norms, by where they stand: one name means different ones.
_BEHIND = {
    "post_attention_layernorm.weight": "post_self_attention_layer_norm.scale",
    "post_feedforward_layernorm.weight": "post_mlp_layer_norm.scale",
}
_NORMS = {
    "pre": {
        "input_layernorm.weight": "pre_self_attention_layer_norm.scale",
        "post_attention_layernorm.weight": "pre_mlp_layer_norm.scale",
    },
    "post": _BEHIND,
    "both": {
        "input_layernorm.weight": "pre_self_attention_layer_norm.scale",
        "pre_feedforward_layernorm.weight": "pre_mlp_layer_norm.scale",
        **_BEHIND,
    },
}
FINAL_NORM = "model.norm.weight"


def names_and_shapes(config: LlamaConfig) -> hugging_face_folder.Names:
    """Returns {name in Hugging Face's model: (dotted name of ours, shape there)}."""
    of_layer = _LAYER | _NORMS[config.norms]
    names = {
        TABLE: "decoder.token_embedder.embedding",
        FINAL_NORM: "decoder.decoder_norm.scale",
        **{f"model.layers.{{}}.{theirs}": f"decoder.layers_{{}}.{of_layer[theirs]}"
           for theirs in of_layer},
        OUTPUT: "decoder.logits_dense.kernel",
    }  # fmt: skip
    return hugging_face_folder.names_and_shapes(LlamaTransformer(config), names, TABLE)


def _adds_one(config: LlamaConfig, name: str) -> bool:
    """Whether a family stores this tensor less 1: Gemma's scales of norms."""
    return config.scale_embeddings and name.endswith("norm.weight")


# --- reading ---


def open_folder(folder: Any) -> StoredParams:
    """Returns a Hugging Face folder's configuration and its parameters; none of these is read yet.

    Args:
        folder: config.json and tokenizer.json beside safetensors, one file or shards.

    Raises:
        UserError: another architecture, no safetensors, a missing or truncated shard, names or
            shapes that differ from the index or the configuration; no tokenizer.json, which
            says where the padding and end-of-sequence tokens are.
    """
    folder = files.as_path(folder)
    settings = hugging_face_folder.read_settings(folder)
    config = llama_settings.to_config(settings, folder / CONFIG)
    tensors = {
        name: _plus_one(array) if _adds_one(config, name) else array
        for name, array in hugging_face_folder.open_tensors(folder).items()
    }
    order = tokenizer_files.special_tokens(folder).order
    return stored(config, tensors, order, folder)


def _plus_one(array: StoredArray) -> StoredArray:
    """Returns 1 more, float32: in bfloat16 the sum would lose digits."""
    one = np.float32(1)
    return StoredArray(
        array.shape,
        np.dtype(np.float32),
        lambda index: np.asarray(array.read(index), np.float32) + one,
    )


def stored(
    config: LlamaConfig, tensors: Mapping[str, StoredArray], order: TokenOrder, place: Any
) -> StoredParams:
    """Returns the parameters that tensors hold.

    Args:
        tensors: under Hugging Face's names and in its shapes; norms' scales as they multiply.
        order: of the rows of the token table and the output layer.
        place: where they came from, for messages.

    Raises:
        UserError: names or shapes that differ from the configuration; ids beyond the table.
    """
    if max(order.pad_id, order.eos_id) >= config.vocab_size:
        raise UserError(
            f"{shown_path(place)}: its tokenizer has the ids {order.pad_id} and {order.eos_id} for "
            f"padding and end-of-sequence, but its token table only {config.vocab_size} rows; they "
            "do not belong together."
        )
    sizes = ("vocab_size", "emb_dim", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")
    widths = {f"LlamaConfig.{name}": getattr(config, name) for name in sizes}
    widths["num_heads * head_dim"] = config.num_heads * config.head_dim
    depth = ("LlamaConfig.num_layers", config.num_layers)
    hugging_face_folder.check_sizes(tensors, place, widths, depth)
    arrays = hugging_face_folder.checked(
        {
            name: _rows_from_own(array, order) if name in (TABLE, OUTPUT) else array
            for name, array in tensors.items()
        },
        names_and_shapes(config),
        place,
        table=TABLE,
        copies=(OUTPUT,) if config.logits_via_embedding else (),
        unused=_UNUSED,
    )
    return stored_params(arrays, place, config=config)


def _rows_from_own(array: StoredArray, order: TokenOrder) -> StoredArray:
    """Returns an array with the rows of the padding and end-of-sequence tokens moved first."""
    if not order.own_of:
        return array

    def read(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(array.shape[0])
        values = np.array(array.read(index))
        for here, own in order.own_of.items():
            if start <= here < stop:
                values[here - start] = array.read((slice(own, own + 1), *index[1:]))[0]
        return values

    return StoredArray(array.shape, array.dtype, read)


# --- writing ---


def to_tensors(params: Params, config: LlamaConfig, order: TokenOrder) -> dict[str, Any]:
    """Returns unscanned parameters under Hugging Face's names, in its shapes and token order."""
    flat = flatten(params)
    tensors = {}
    for theirs, (ours, _) in names_and_shapes(config).items():
        array = flat[ours] if theirs == TABLE else flat[ours].T
        if theirs in (TABLE, OUTPUT) and order.own_of:
            rows = np.array(array)
            for here, own in order.own_of.items():
                rows[own] = array[here]
            array = rows
        if _adds_one(config, theirs):
            array = (np.asarray(array, np.float32) - 1).astype(array.dtype)
        tensors[theirs] = array
    return tensors


def write(
    folder: Any,
    params: Params,
    config: LlamaConfig,
    tokenizer: tokenizer_files.TokenizerFiles,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes into a folder both JSON files, the weights and the tokenizer's files.

    Args:
        params: unscanned parameters of `config`, on the host, in the dtypes to be stored.
        tokenizer: the model's; rows are written in its order.
        max_shard_bytes: above this the weights come in several files with an index.
    """
    special = tokenizer.special
    tensors = to_tensors(params, config, special.order)
    ids = {
        "bos_token_id": special.ids.get(special.roles.get("bos", "")),
        "eos_token_id": special.order.eos_id,
        "pad_token_id": special.order.pad_id,
    }
    settings = llama_settings.to_settings(config, dtype=str(tensors[TABLE].dtype), ids=ids)
    given = {name: number for name, number in ids.items() if number is not None}
    hugging_face_folder.write(folder, tensors, settings, given, max_shard_bytes)
    tokenizer_files.write(folder, tokenizer)
