"""Decoder-only models in Flax, under the calls of `t5.Transformer`.

LLaMA and its kin: Llama 2 and 3, SmolLM2 and 3, Qwen2 and 3, Gemma 3, OLMo 2 and 3. The layers are
in `decoder_stack`.

The "encoder input" is the prompt, padded with 0 at the right, and the target follows it directly:
attention is causal over both, positions go on from every row's own prompt, and the start id that
`likelihood.shift_right` puts before a target stands for the prompt's last token, whose logits are
those of the target's first token.

A text may be run in parts (`LlamaTransformer.extend`): what follows attends to the keys and values
of what was run before, which rows may share. `encode` runs a prompt so, `decode` a target behind
it; `__call__` runs both in one. The reference is transformers' models/llama/modeling_llama.py.

Shape suffixes: B batch, L prompt length, T target length, Q positions run together, P rows of a
part that was run before, E emb_dim, V vocab_size.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from ait_jax.errors import UserError
from ait_jax.models import layer_kinds, layers, rotary
from ait_jax.models.decoder_only import KeyValues, joined, last_places
from ait_jax.models.decoder_stack import Decoder
from ait_jax.models.group_windows import Groups
from ait_jax.models.interface import ModelConfig, Packing, Params, Targets, Tokens
from ait_jax.models.likelihood import PAD_ID, OutputLayer

_NORMS = ("pre", "post", "both")
_QK_NORMS = (None, "head", "all")


@dataclasses.dataclass(frozen=True)
class LlamaConfig(ModelConfig):
    """The sizes and switches of a decoder-only model.

    Attributes:
        num_kv_heads: heads of keys and values; divides `num_heads`.
        norm_epsilon, rope_theta: of the norms and of the rotary positions.
        rope_scaling: None, or one of `rotary`'s: Llama3Scaling for Llama 3.1 and later, others for
            models made for longer texts.
        logits_via_embedding: the output layer is the token table (tied), not scaled.
        attention_bias: biases of query, key and value (Qwen2).
        attention_output_bias: and one of what follows them (Hugging Face's `attention_bias`).
        max_position: the longest prompt and target together; refused where they are configured.
        mlp_activations: ("silu", "linear"), or Gemma's ("gelu", "linear").
        norms: where they stand: "pre", before attention and feed-forward block; "post", behind
            them (OLMo 2); or "both" (Gemma).
        qk_norm: of queries and keys: None; "head", each by itself (Qwen3, Gemma 3); or "all", the
            heads together (OLMo 2).
        query_scale: of the products of queries and keys; None is head_dim**-0.5.
        layer_pattern, sliding_window: which layers are global, local and without positions, and how
            many positions the local ones see (`layer_kinds`).
        local_rope_theta: of local layers, which are then not scaled; None: as the others.
        scale_embeddings: token embeddings are multiplied by sqrt(emb_dim) (Gemma).
        attention_softcap, logits_softcap: what no logit exceeds (`attention.capped`; Gemma 2).
        Others: see `interface.ModelConfig`.

    Raises:
        UserError: heads that do not divide each other, an odd `head_dim`, a `max_position` beyond
            what `rope_scaling` allows, an unknown word, a pattern that is none; as
            `interface.ModelConfig`.
    """

    emb_dim: int = 576
    num_heads: int = 9
    num_kv_heads: int = 3
    num_layers: int = 30
    mlp_dim: int = 1536
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: rotary.Scaling | None = None
    attention_bias: bool = False
    attention_output_bias: bool = False
    max_position: int | None = 2048
    mlp_activations: Sequence[str] = ("silu", "linear")
    norms: str = "pre"
    qk_norm: str | None = None
    query_scale: float | None = None
    layer_pattern: str = layer_kinds.GLOBAL
    sliding_window: int | None = None
    local_rope_theta: float | None = None
    scale_embeddings: bool = False
    attention_softcap: float | None = None
    logits_softcap: float | None = None

    computing = (*ModelConfig.computing, "max_position")
    sizes = (*ModelConfig.sizes, "num_kv_heads", "num_layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"LlamaConfig.num_kv_heads = {self.num_kv_heads} does not divide num_heads = "
                f"{self.num_heads}."
            )
        if self.head_dim % 2:
            raise UserError(
                f"LlamaConfig.head_dim = {self.head_dim} is odd; rotary positions need pairs."
            )
        for name in ("rope_theta", "local_rope_theta"):
            theta = getattr(self, name)
            if theta is not None and not theta > 1:
                raise UserError(f"LlamaConfig.{name} = {theta}; it must be above 1.")
        for name in ("query_scale", "attention_softcap", "logits_softcap"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"LlamaConfig.{name} = {value}; it must be above 0.")
        for name, known in (("norms", _NORMS), ("qk_norm", _QK_NORMS)):
            if getattr(self, name) not in known:
                raise self.unknown(name, getattr(self, name), tuple(map(str, known)))
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        for name in self.mlp_activations or ("",):
            if name not in layers.ACTIVATIONS:
                raise self.unknown("mlp_activations", name, layers.ACTIVATIONS)
        layer_kinds.check("LlamaConfig", self.layer_pattern, self.sliding_window)
        rotary.check_length(self.rope_scaling, self.max_position)

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """See `interface.ModelConfig`. A target's last token is never run."""
        tokens = inputs + max(0, targets - 1)
        weights = self.num_layers * tokens * self._layer_weights
        pairs = self._pairs(tokens) * self.num_heads * self.head_dim
        return 2.0 * (weights + pairs + targets * self.emb_dim * self.vocab_size)

    def _pairs(self, tokens: float | int) -> float | int:
        """Returns twice the pairs of positions that see each other, over all layers."""
        letters = layer_kinds.spelled_out(self.layer_pattern, self.num_layers)
        local = letters.count(layer_kinds.LOCAL)
        window = min(self.sliding_window or tokens, tokens)
        return (self.num_layers - local) * tokens**2 + local * window * (2 * tokens - window)

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """See `interface.ModelConfig`."""
        if self.remat_policy == "none":
            return 0.0
        tokens = inputs + max(0, targets - 1)
        layer = 2.0 * tokens**2 * self.num_heads * self.head_dim
        if self.remat_policy == "full":
            layer += tokens * (self._layer_weights - self.emb_dim * self.mlp_dim)
        return 2.0 * self.num_layers * layer

    @property
    def kept_values(self) -> int:
        """See `interface.ModelConfig`."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @property
    def _layer_weights(self) -> int:
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        return self.emb_dim * (heads * self.head_dim + 3 * self.mlp_dim)

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns the output kernel, or the token table."""
        decoder = params["decoder"]
        if self.logits_via_embedding:
            table_VxE = decoder["token_embedder"]["embedding"]
            return OutputLayer(table_VxE, 0, 1.0, self.logits_softcap)
        return OutputLayer(decoder["logits_dense"]["kernel"], 1, 1.0, self.logits_softcap)


class LlamaTransformer(nn.Module):
    """A decoder-only model with the methods of `interface.Model`.

    Token 0 is padding and stands at the right; a row of it alone is read as one token 0.
    """

    config: LlamaConfig

    def setup(self) -> None:
        """Makes the decoder."""
        self.decoder = Decoder(self.config)

    def extend(
        self,
        tokens_BxQ: Tokens,
        past: Sequence[KeyValues] = (),
        enable_dropout: bool = False,
        segments_BxQ: Int[jax.Array, "batch length"] | None = None,
        keep: bool = True,
    ) -> tuple[Float[jax.Array, "batch length E"], KeyValues | None]:
        """Runs tokens behind what was run before.

        Args:
            tokens_BxQ: padded with 0 at the right.
            past: what comes before them, in order. KeyValues of P rows are shared: row b of the
                tokens follows their row b // (B / P).
            segments_BxQ: numbers of texts that stand side by side in a row; each follows `past` by
                itself and sees nothing of the others. None for one text a row.
            keep: return the KeyValues of these tokens, too, else None.

        Returns:
            The final hidden states in `config.dtype`, and the KeyValues of these tokens.
        """
        x, kept = self.decoder.hidden(
            tokens_BxQ, tuple(past), not enable_dropout, keep=keep, segments_BxQ=segments_BxQ
        )
        if kept is None:
            return self.decoder.decoder_norm(x), None
        length_B = jnp.sum(tokens_BxQ != PAD_ID, axis=1, dtype=jnp.int32)
        return self.decoder.decoder_norm(x), {"length": length_B, **kept}

    def extend_within(self, tokens_BxN: Tokens, groups: Groups, longest: int) -> jax.Array:
        """Runs rows that hold whole groups of texts, prefixes and what follows them.

        Args:
            longest: keys of the longest window: at least `BLOCK`, a prefix and the longest text
                behind it together, less one, or all of a row.

        Returns:
            The final hidden states (B, N, E) in `config.dtype`.
        """
        x, _ = self.decoder.hidden(tokens_BxN, (), True, groups=(groups, longest))
        return self.decoder.decoder_norm(x)

    def encode(
        self,
        encoder_input_tokens: Tokens,
        encoder_segment_ids: Any = None,
        enable_dropout: bool = True,
    ) -> KeyValues:
        """Returns the KeyValues of prompts but for their last tokens, where `decode` begins."""
        _refuse_packed({"encoder_segment_ids": encoder_segment_ids})
        _, key_values = self.extend(encoder_input_tokens, (), enable_dropout)
        assert key_values is not None
        return {**key_values, "length": jnp.maximum(key_values["length"] - 1, 0)}

    def represent(self, tokens: Tokens, enable_dropout: bool = True) -> jax.Array:
        """Returns the final hidden states of a text, (B, L, E)."""
        return self.extend(tokens, (), enable_dropout, keep=False)[0]

    def decode(
        self,
        encoded: KeyValues | tuple[KeyValues, ...],
        encoder_input_tokens: Tokens,
        decoder_input_tokens: Targets,
        decoder_target_tokens: Targets,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        max_decode_length: int | None = None,
        return_hidden: bool = False,
        **packing: Unpack[Packing],
    ) -> jax.Array:
        """Returns the logits, float32 (B, T, V); arguments as of `t5.Transformer.decode`.

        Args:
            encoded: from `encode`, or several KeyValues in order, the last of which leaves the
                last prompt token out, as `encode` does.
            encoder_input_tokens: (B, L), the tokens of that last one.
            decode: take one position a step with the mutable collection `cache`; the first call,
                with (B, max length) tokens, makes the cache.
        """
        del decoder_target_tokens, max_decode_length
        _refuse_packed(packing)
        past = (encoded,) if isinstance(encoded, Mapping) else tuple(encoded)
        where_Bx1 = last_places(encoder_input_tokens)
        last_Bx1 = jnp.take_along_axis(encoder_input_tokens, where_Bx1, axis=1)
        tokens_BxT = jnp.concatenate([last_Bx1, decoder_input_tokens[:, 1:]], axis=1)
        x, _ = self.decoder.hidden(
            decoder_input_tokens if decode else tokens_BxT,
            past,
            not enable_dropout,
            decode_behind_Bx1=last_Bx1 if decode else None,
        )
        hidden_BxTxE = self.decoder.decoder_norm(x)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)

    def __call__(
        self,
        encoder_input_tokens: Tokens,
        decoder_input_tokens: Targets,
        decoder_target_tokens: Targets,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        return_hidden: bool = False,
        **packing: Unpack[Packing],
    ) -> jax.Array:
        """Returns the logits of the targets, float32 (B, T, V), or the hidden states (B, T, E).

        Prompts (B, L) and targets are put one behind the other, without the padding between them,
        and run together; with segment ids, those of every example of a row.
        """
        if decode:
            segment_ids = packing.get("encoder_segment_ids")
            encoded = self.encode(encoder_input_tokens, segment_ids, enable_dropout)
            return self.decode(
                encoded, encoder_input_tokens, decoder_input_tokens, decoder_target_tokens,
                enable_dropout=enable_dropout, decode=True, return_hidden=return_hidden,
            )  # fmt: skip
        tokens_BxQ, segments_BxQ, where_BxT = joined(
            encoder_input_tokens, decoder_input_tokens, packing
        )
        x, _ = self.decoder.hidden(tokens_BxQ, (), not enable_dropout, segments_BxQ=segments_BxQ)
        x_BxTxE = jnp.take_along_axis(x, where_BxT[:, :, None], axis=1)
        hidden_BxTxE = self.decoder.decoder_norm(x_BxTxE)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)


def _refuse_packed(packing: Packing) -> None:
    if any(packing.get(f"{side}_segment_ids") is not None for side in ("encoder", "decoder")):
        raise UserError(
            "Packed examples (segment ids) are for training; encode and decode of a "
            "LlamaTransformer take one example a row."
        )
