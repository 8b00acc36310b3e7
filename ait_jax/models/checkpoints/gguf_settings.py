"""A decoder-only model's sizes in GGUF's metadata, in.

The metadata's names are in ggml's docs/gguf.md; what they leave out, llama.cpp assumes
(src/llama-model.cpp), and what its convert_hf_to_gguf.py changes about tensors is told here, too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ait_jax.errors import UserError, nearest, shown, shown_path
from ait_jax.models import layer_kinds, rotary
from ait_jax.models.checkpoints import llama_settings
from ait_jax.models.checkpoints.hugging_face_folder import number, size
from ait_jax.models.checkpoints.llama_settings import DERIVED, FAMILIES
from ait_jax.models.checkpoints.rope_settings import DEFAULT_THETA
from ait_jax.models.llama import LlamaConfig
from ait_jax.prompts.gguf_header import Header

_SIZES = {
    "embedding_length": "emb_dim",
    "attention.head_count": "num_heads",
    "block_count": "num_layers",
    "feed_forward_length": "mlp_dim",
    "context_length": "max_position",
    "attention.head_count_kv": "num_kv_heads",
    "attention.key_length": "head_dim",
}


@dataclass(frozen=True)
class Architecture:
    """What a general.architecture is.

    Attributes:
        family: the model_type of `llama_settings`.
        in_pairs: whether rotations are of neighboring dimensions, not of halves.
        layer_pattern: the kinds of layers that llama.cpp assumes.
    """

    family: str
    in_pairs: bool = False
    layer_pattern: str = layer_kinds.GLOBAL


ARCHITECTURES = {
    "llama": Architecture("llama", in_pairs=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "smollm3": Architecture("smollm3", in_pairs=True, layer_pattern="GGGN"),
    "gemma3": Architecture("gemma3_text", layer_pattern="LLLLLG"),
    "olmo2": Architecture("olmo2"),
}


def architecture_of(header: Header) -> Architecture:
    """Returns the architecture of a file; UserError for one that is not read."""
    kind = header.value("general.architecture", str)
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{shown_path(header.path)} holds a {shown(kind)} model (general.architecture); "
            f"ait-jax reads {', '.join(map(shown, ARCHITECTURES))}.{nearest(kind, ARCHITECTURES)}"
        )
    return ARCHITECTURES[kind]


def config_of(header: Header) -> LlamaConfig:
    """Returns the configuration that a GGUF file's metadata describe.

    Raises:
        UserError: another architecture, values of the wrong type or of another network.
    """
    architecture = architecture_of(header)
    kind, path = header.value("general.architecture", str), header.path
    given = {name.removeprefix(f"{kind}."): value for name, value in header.metadata.items()}
    if given.get("expert_count"):
        raise UserError(f"{shown_path(path)} is a mixture of experts, which this network is not.")
    needed = [name for name, ours in _SIZES.items() if ours not in DERIVED]
    for name in (*needed, "attention.layer_norm_rms_epsilon"):
        header.value(f"{kind}.{name}", (int, float))
    sizes = llama_settings.sizes_of(given, _SIZES, path)
    if given.get("rope.dimension_count", sizes["head_dim"]) != sizes["head_dim"]:
        raise UserError(
            f"{shown_path(path)} rotates {given['rope.dimension_count']} of {sizes['head_dim']} "
            f"dimensions ({kind}.rope.dimension_count); this network rotates all."
        )
    table = header.tensors.get("token_embd.weight")
    if table is None:
        raise UserError(f"{shown_path(path)} lacks token_embd.weight; copy or download it again.")
    given.setdefault("rope.freq_base", 1e6 if kind == "gemma3" else DEFAULT_THETA)
    fields = {
        "vocab_size": table.shape[0],
        "norm_epsilon": _decimal(number(given, "attention.layer_norm_rms_epsilon", path)),
        "rope_theta": _decimal(number(given, "rope.freq_base", path)),
        "rope_scaling": _scaling(given, kind, header),
        "logits_via_embedding": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "attention_output_bias": "blk.0.attn_output.bias" in header.tensors,
        **_layers(given, architecture, sizes["num_layers"], path),
        **FAMILIES[architecture.family].fields,
    }
    return llama_settings.config_of(sizes | fields, path)


def _layers(
    given: dict[str, Any], architecture: Architecture, num_layers: int, path: Any
) -> dict[str, Any]:
    """Returns the fields of kinds of layers."""
    letters = layer_kinds.spelled_out(
        architecture.layer_pattern, min(num_layers, llama_settings.MAX_LAYERS)
    )
    pattern = layer_kinds.shortest(letters)
    fields: dict[str, Any] = {"layer_pattern": pattern}
    if layer_kinds.LOCAL in pattern:
        fields["sliding_window"] = size(given, "attention.sliding_window", path)
        given.setdefault("rope.freq_base_swa", DEFAULT_THETA)
        fields["local_rope_theta"] = _decimal(number(given, "rope.freq_base_swa", path))
    return fields


def _scaling(given: dict[str, Any], kind: str, header: Header) -> rotary.Scaling | None:
    scaled = given.get("rope.scaling.type", "none")
    if scaled == "linear":
        given.setdefault("rope.scaling.factor", 1.0)
        return rotary.LinearScaling(_decimal(number(given, "rope.scaling.factor", header.path)))
    if scaled != "none" or "rope_freqs.weight" in header.tensors:
        raise UserError(
            f"{shown_path(header.path)} scales its rotations ({kind}.rope.scaling.type, "
            "rope_freqs), as Llama 3.1 and later do, which ait-jax does not read from GGUF. Give "
            "the same model's Hugging Face folder."
        )
    return None


def _decimal(value: float) -> float:
    """Returns the decimal number that a float32 was written as: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))
