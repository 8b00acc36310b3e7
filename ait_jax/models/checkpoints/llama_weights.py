"""A LLaMA's weights: Hugging Face's names, shapes and order of tokens, and ours.

The networks are the same; names, the kernels' orientation and the order of tokens differ
(`token_order`). The reference is transformers' models/llama/modeling_llama.py (4.x and 5.x).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import hugging_face_folder, llama_settings
from ait_jax.models.checkpoints.hugging_face_folder import CONFIG, MAX_SHARD_BYTES
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams, stored_params
from ait_jax.models.interface import Params
from ait_jax.models.llama import LlamaConfig
from ait_jax.models.parameters import flatten
from ait_jax.prompts import tokenizer_files
from ait_jax.prompts.token_order import TokenOrder
from ait_jax.runtime import files

TABLE = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
# Computed, not learned: old files hold it.
_UNUSED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def names_and_shapes(config: LlamaConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns {name in Hugging Face's LLaMA: (dotted name of ours, shape there)}.

    Every matrix but the token table is transposed there: torch's linear layers hold
    (outputs, inputs).
    """
    emb_dim, mlp_dim = config.emb_dim, config.mlp_dim
    queries, keys = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
    table: dict[str, tuple[str, tuple[int, ...]]] = {
        TABLE: ("decoder.token_embedder.embedding", (config.vocab_size, emb_dim)),
        "model.norm.weight": ("decoder.decoder_norm.scale", (emb_dim,)),
    }
    for layer in range(config.num_layers):
        there, here = f"model.layers.{layer}", f"decoder.layers_{layer}"
        for theirs, ours in (
            ("input_layernorm", "pre_self_attention_layer_norm"),
            ("post_attention_layernorm", "pre_mlp_layer_norm"),
        ):
            table[f"{there}.{theirs}.weight"] = (f"{here}.{ours}.scale", (emb_dim,))
        for letter, ours, rows in (
            ("q", "query", queries),
            ("k", "key", keys),
            ("v", "value", keys),
        ):
            name, at = f"{there}.self_attn.{letter}_proj", f"{here}.self_attention.{ours}"
            table[f"{name}.weight"] = (f"{at}.kernel", (rows, emb_dim))
            if config.attention_bias:
                table[f"{name}.bias"] = (f"{at}.bias", (rows,))
        name = f"{here}.self_attention.out.kernel"
        table[f"{there}.self_attn.o_proj.weight"] = (name, (emb_dim, queries))
        if config.attention_output_bias:
            name = f"{here}.self_attention.out.bias"
            table[f"{there}.self_attn.o_proj.bias"] = (name, (emb_dim,))
        for theirs, ours, shape in (
            ("gate_proj", "wi_0", (mlp_dim, emb_dim)),
            ("up_proj", "wi_1", (mlp_dim, emb_dim)),
            ("down_proj", "wo", (emb_dim, mlp_dim)),
        ):
            table[f"{there}.mlp.{theirs}.weight"] = (f"{here}.mlp.{ours}.kernel", shape)
    if not config.logits_via_embedding:
        table[OUTPUT] = ("decoder.logits_dense.kernel", (config.vocab_size, emb_dim))
    return table


# --- reading ---


def open_folder(folder: Any) -> tuple[LlamaConfig, StoredParams]:
    """Returns a Hugging Face folder's configuration and its parameters; none is read yet.

    Args:
        folder: config.json and tokenizer.json beside safetensors, one file or shards.

    Raises:
        UserError: another architecture, no safetensors, a missing or truncated shard, names or
            shapes that differ from the index or the configuration; no tokenizer.json, which
            says where the padding and end-of-sequence tokens are.
    """
    folder = files.as_path(folder)
    settings = hugging_face_folder.read_settings(folder)
    fields = llama_settings.fields_of(settings, folder / CONFIG)
    tensors = hugging_face_folder.open_tensors(folder)
    order = tokenizer_files.special_tokens(folder).order
    return stored(fields, tensors, order, folder)


def stored(
    fields: Mapping[str, Any], tensors: Mapping[str, StoredArray], order: TokenOrder, place: Any
) -> tuple[LlamaConfig, StoredParams]:
    """Returns the configuration and parameters that tensors hold.

    Args:
        fields: of LlamaConfig.
        tensors: under Hugging Face's names and in its shapes.
        order: of the rows of the token table and the output layer.
        place: where they came from, for messages.

    Raises:
        UserError: names or shapes that differ from the configuration; ids beyond the table.
    """
    config = LlamaConfig(**fields)
    if max(order.pad_id, order.eos_id) >= config.vocab_size:
        raise UserError(
            f"{place}: its tokenizer has the ids {order.pad_id} and {order.eos_id} for padding "
            f"and end-of-sequence, but its token table only {config.vocab_size} rows; they do not "
            "belong together."
        )
    names = names_and_shapes(config)
    tensors = hugging_face_folder.checked(
        tensors,
        {name: shape for name, (_, shape) in names.items()},
        place,
        table=TABLE,
        copies=(OUTPUT,) if config.logits_via_embedding else (),
        unused=_UNUSED,
    )
    arrays = {}
    for theirs, (ours, _) in names.items():
        array = tensors[theirs]
        array = _rows_from_own(array, order) if theirs in (TABLE, OUTPUT) else array
        arrays[ours] = array if theirs == TABLE else array.T
    return config, stored_params(arrays)


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
        tensors[theirs] = array
    return tensors


def write(
    folder: Any,
    params: Params,
    config: LlamaConfig,
    tokenizer: tokenizer_files.TokenizerFiles,
    *,
    dtype: str | None = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json, generation_config.json, the weights and the tokenizer's files.

    Args:
        folder: an existing folder.
        params: unscanned parameters of `config`, on the host.
        tokenizer: the model's; rows are written in its order.
        dtype: "float32", "bfloat16" or "float16"; None keeps each array's own.
        max_shard_bytes: above this the weights come in several files with an index.

    Raises:
        UserError: another dtype.
    """
    special = tokenizer.special
    tensors = to_tensors(params, config, special.order)
    hugging_face_folder.write_tensors(folder, tensors, dtype=dtype, max_shard_bytes=max_shard_bytes)
    ids = {
        "bos_token_id": special.ids.get(special.roles.get("bos", "")),
        "eos_token_id": special.order.eos_id,
        "pad_token_id": special.order.pad_id,
    }
    kept = str(tensors[TABLE].dtype) if dtype is None else dtype
    settings = llama_settings.to_settings(config, dtype=kept, ids=ids)
    files.write_json(folder / CONFIG, settings)
    given = {name: number for name, number in ids.items() if number is not None}
    files.write_json(folder / "generation_config.json", given)
    tokenizer_files.write(folder, tokenizer)
