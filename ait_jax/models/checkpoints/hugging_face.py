"""Hugging Face's T5 folders, in and out: config.json and safetensors, whole or in shards.

The networks are the same; names, the kernels' orientation and the configuration differ. Files
are read one tensor at a time, and nothing is unpickled (`safetensors_folder`). The reference is transformers' models/t5/modeling_t5.py
(4.x and 5.x).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ait_jax.errors import UserError
from ait_jax.models.checkpoints import safetensors_folder, weights
from ait_jax.models.checkpoints.hugging_face_config import (
    CONFIG,
    FIXED,
    read_settings,
    to_config,
    to_settings,
)
from ait_jax.models.checkpoints.safetensors_folder import MAX_SHARD_BYTES
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams, stored_params
from ait_jax.models.t5 import Params, T5Config
from ait_jax.runtime import files

VOCABULARY = "spiece.model"

_TABLE = "shared.weight"
_OUTPUT = "lm_head.weight"
# Copies of the token table that files may hold under these names too.
_TABLE_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# In T5 1.0's files, and used by no version of the network.
_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


# --- the mapping ---


def names_and_shapes(config: T5Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns {name in Hugging Face's T5: (dotted name of ours, shape there)}.

    Every matrix but the token table is transposed there: torch's linear layers hold
    (outputs, inputs).
    """
    emb_dim, joined_kv = config.emb_dim, config.num_heads * config.head_dim
    table = {_TABLE: ("token_embedder.embedding", (config.vocab_size, emb_dim))}
    for stack, num_layers in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        table[f"{stack}.final_layer_norm.weight"] = (f"{stack}.{stack}_norm.scale", (emb_dim,))
        table[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            f"{stack}.relpos_bias.rel_embedding",
            (FIXED["relative_attention_num_buckets"], config.num_heads),
        )
        for layer in range(num_layers):
            there, here = f"{stack}.block.{layer}.layer", f"{stack}.layers_{layer}"
            for number, (theirs, ours, norm) in enumerate(_SUBLAYERS[stack]):
                prefix = f"{there}.{number}"
                table[f"{prefix}.layer_norm.weight"] = (f"{here}.{norm}.scale", (emb_dim,))
                for letter, kernel in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
                    shape = (emb_dim, joined_kv) if letter == "o" else (joined_kv, emb_dim)
                    name = f"{here}.{ours}.{kernel}.kernel"
                    table[f"{prefix}.{theirs}.{letter}.weight"] = (name, shape)
            prefix = f"{there}.{len(_SUBLAYERS[stack])}"
            table[f"{prefix}.layer_norm.weight"] = (f"{here}.pre_mlp_layer_norm.scale", (emb_dim,))
            gated = len(config.mlp_activations) > 1
            for kernel in ("wi_0", "wi_1", "wo") if gated else ("wi", "wo"):
                shape = (emb_dim, config.mlp_dim) if kernel == "wo" else (config.mlp_dim, emb_dim)
                name = f"{here}.mlp.{kernel}.kernel"
                table[f"{prefix}.DenseReluDense.{kernel}.weight"] = (name, shape)
    if not config.logits_via_embedding:
        table[_OUTPUT] = ("decoder.logits_dense.kernel", (config.vocab_size, emb_dim))
    return table


_SUBLAYERS = {
    "encoder": (("SelfAttention", "attention", "pre_attention_layer_norm"),),
    "decoder": (
        ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
        ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
    ),
}


def _transposed(name: str, array: Any) -> Any:
    """Turns an array from their orientation into ours, or back."""
    return array if name == _TABLE else array.T


def to_tensors(params: Params, config: T5Config) -> dict[str, Any]:
    """Returns unscanned parameters under Hugging Face's names and in its shapes, as views."""
    flat = weights.flatten(params)
    return {
        theirs: _transposed(theirs, flat[ours])
        for theirs, (ours, _) in names_and_shapes(config).items()
    }


# --- reading ---


def open_params(folder: Any) -> tuple[T5Config, StoredParams]:
    """Returns a folder's configuration and its parameters under our names; none is read yet.

    Args:
        folder: config.json beside model.safetensors, or beside
            model.safetensors.index.json and its shards.

    Raises:
        UserError: another architecture, no safetensors, a missing or truncated shard, names
            that differ from the index or the configuration, a wrong shape.
    """
    folder = files.as_path(folder)
    settings = read_settings(folder)
    config = to_config(settings, folder)
    tensors = safetensors_folder.open_tensors(folder)
    if _OUTPUT not in tensors and not config.logits_via_embedding:
        if settings.get("tie_word_embeddings") is not True:
            raise UserError(
                f"{folder} lacks {_OUTPUT}, and its {CONFIG} does not tie the output layer."
            )
    tensors = _checked(folder, config, tensors)
    if not config.logits_via_embedding:
        # transformers 5 can tie without scaling; ours then holds the table twice.
        tensors.setdefault(_OUTPUT, tensors[_TABLE])
    return config, stored_params(
        {
            ours: _transposed(theirs, tensors[theirs])
            for theirs, (ours, _) in names_and_shapes(config).items()
        }
    )


def read(folder: Any, dtype: Any = np.float32) -> tuple[T5Config, Params]:
    """Returns a folder's configuration and its parameters as a nested dict of host arrays.

    Args:
        folder: as in `open_params`, errors too.
        dtype: what the arrays are cast to; None keeps what is stored.
    """
    config, stored = open_params(folder)
    return config, weights.unflatten(stored.load(stored.shapes, dtype))


def _checked(
    folder: Any, config: T5Config, tensors: Mapping[str, StoredArray]
) -> dict[str, StoredArray]:
    """Returns the tensors that the network has, after all names and shapes were compared."""
    needed = {name: shape for name, (_, shape) in names_and_shapes(config).items()}
    copies = (*_TABLE_COPIES, *([_OUTPUT] if config.logits_via_embedding else []))
    tables = [name for name in (_TABLE, *copies) if name in tensors]
    missing = [n for n in needed if n not in tensors and n not in (_TABLE, _OUTPUT)]
    missing += [] if tables else [_TABLE]
    unexpected = sorted(set(tensors) - set(needed) - set(copies) - set(_UNUSED))
    for problem, names in (("lacks", missing), ("holds unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{folder} {problem} {names[0]}{more}: it is no T5ForConditionalGeneration of "
                f"the sizes in its {CONFIG}."
            )
    for name in [*needed, *copies]:
        expected = needed.get(name, needed[_TABLE])
        if name in tensors and tensors[name].shape != expected:
            raise UserError(
                f"{folder}: {name} is {tensors[name].shape}, by its {CONFIG} it should be "
                f"{expected}."
            )
    if len(tables) > 1:
        table = tensors[tables[0]].whole()
        for name in tables[1:]:
            if not np.array_equal(tensors[name].whole(), table):
                raise UserError(
                    f"{folder}: {name} differs from {tables[0]} although {CONFIG} makes them one "
                    "(tie_word_embeddings); this network has one token table."
                )
    kept = {name: tensors[name] for name in needed if name in tensors}
    return kept | {_TABLE: tensors[tables[0]]}


# --- writing ---


def write(
    folder: Any,
    params: Params,
    config: T5Config,
    *,
    dtype: str | None = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json, generation_config.json and the weights into an existing folder.

    Args:
        folder: where to.
        params: unscanned parameters of `config`, on the host.
        dtype: "float32", "bfloat16" or "float16"; None keeps each array's own.
        max_shard_bytes: above this the weights come in several files with an index.

    Raises:
        UserError: another dtype; a network that Hugging Face's T5 cannot be.
    """
    tensors = to_tensors(params, config)
    stored = str(tensors[_TABLE].dtype) if dtype is None else dtype
    settings = to_settings(config, stored)
    safetensors_folder.write_tensors(folder, tensors, dtype=dtype, max_shard_bytes=max_shard_bytes)
    files.write_json(folder / CONFIG, settings)
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    files.write_json(folder / "generation_config.json", generation)


def write_tokenizer_config(folder: Any, extra_ids: int) -> None:
    """Writes what makes transformers read `spiece.model` as T5's vocabulary."""
    settings = {
        "eos_token": "</s>",
        "extra_ids": extra_ids,
        "pad_token": "<pad>",
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    files.write_json(folder / "tokenizer_config.json", settings)
