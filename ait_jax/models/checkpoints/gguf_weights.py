"""GGUF files of decoder-only models: tensors dequantized one at a time, where they are needed.

Of some architectures ggml rotates neighboring pairs of a head's dimensions, Hugging Face and this
network its two halves: reading restores the latter order of the rows of queries and keys. The
reference is llama.cpp's convert_hf_to_gguf.py (LlamaModel.permute). Gemma's norms are stored with
the 1 that they add.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown_path
from ait_jax.models.checkpoints import gguf_settings, llama_weights
from ait_jax.models.checkpoints.hugging_face_folder import OUTPUT
from ait_jax.models.checkpoints.stored_arrays import StoredArray, StoredParams
from ait_jax.prompts import tokenizer_files
from ait_jax.prompts.gguf_header import Header, TensorPlace, read_header

_NAMES = {
    "token_embd.weight": llama_weights.TABLE,
    "output.weight": OUTPUT,
    "output_norm.weight": "model.norm.weight",
}
_NORMS = {
    "pre": {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "post": {
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "both": {
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def open_file(path: Any) -> StoredParams:
    """Returns a GGUF file's configuration and its parameters, float32; none is read yet.

    Raises:
        UserError: no such file, a damaged one, another architecture, a quantization that
            the `gguf` package cannot decode; the package is missing.
    """
    header = read_header(path)
    config = gguf_settings.config_of(header)
    order = tokenizer_files.special_tokens(path).order
    heads = {}
    if gguf_settings.architecture_of(header).in_pairs:
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    layer_names = _LAYER_NAMES | _NORMS[config.norms]
    tensors = {}
    for name, place in header.tensors.items():
        match = _LAYER.fullmatch(name)
        layer, part, kind = match.groups() if match else ("", "", "")
        theirs = _NAMES.get(name, name)
        if part in layer_names:
            theirs = f"model.layers.{layer}.{layer_names[part]}.{kind}"
        tensors[theirs] = _stored(header, name, place, heads.get(part))
    return llama_weights.stored(config, tensors, order, header.path)


def _halves(num_rows: int, num_heads: int) -> np.ndarray:
    """Returns each row's place in the file, where a head's dimensions lie in pairs, not halves."""
    rows = np.arange(num_rows)
    if num_rows % (2 * num_heads):
        return rows  # the check of shapes that follows says what is wrong
    return rows.reshape(num_heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _stored(header: Header, name: str, place: TensorPlace, num_heads: int | None) -> StoredArray:
    """Returns a tensor, its rows those of `num_heads` heads if it has any."""
    blocks, dequantize = _decoder(header, name, place)
    shape = place.shape
    rows = None if num_heads is None else _halves(shape[0], num_heads)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        first = index[0] if rows is None else rows[index[0]]
        if len(shape) == 1:
            return dequantize(blocks[None])[0][first]
        return dequantize(blocks[first])[:, index[1]]

    return StoredArray(shape, np.dtype(np.float32), read)


def _decoder(
    header: Header, name: str, place: TensorPlace
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Returns a tensor's bytes, one row of blocks for each of its rows, and what decodes them.

    Raises:
        UserError: as of `open_file`.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
    except ImportError as error:
        raise UserError(
            f"{shown_path(header.path)} is a GGUF file, which the package gguf reads: "
            "pip install 'ait-jax[llama]'."
        ) from error
    try:
        kind = GGMLQuantizationType(place.kind)
        block, size = GGML_QUANT_SIZES[kind]
        # Fails at once, before any file is read, where the package lacks this kind.
        quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise UserError(
            f"{shown_path(header.path)} holds {shown_path(name)} quantized in a way "
            f"({place.kind}) that the package gguf "
            "cannot decode; upgrade it (pip install -U gguf) or choose another quantization."
        ) from error
    *outer, inner = place.shape
    if inner % block or len(outer) > 1:
        raise UserError(
            f"{shown_path(header.path)} is damaged: {shown_path(name)} of shape {place.shape}; "
            "copy it again."
        )
    num_bytes = math.prod(outer) * (inner // block) * size
    if place.start + num_bytes > len(place.data):
        raise UserError(
            f"{shown_path(header.path)} ends within {shown_path(name)}: it is truncated; copy or "
            "download it again."
        )
    data = np.frombuffer(place.data, np.uint8, num_bytes, place.start)
    blocks = data.reshape(*outer, (inner // block) * size)

    def dequantize(some: np.ndarray) -> np.ndarray:
        # The package takes 16 rows at a time; joining short ones gives it longer ones.
        joined = np.ascontiguousarray(some).reshape(len(some) // math.gcd(len(some), 64), -1)
        values = quants.dequantize(joined, kind).astype(np.float32, copy=False)
        return values.reshape(*some.shape[:-1], -1)

    return blocks, dequantize
