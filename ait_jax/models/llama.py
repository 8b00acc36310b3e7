"""LLaMA and its kin (SmolLM2, Llama 2 and 3, Qwen2) in Flax, under the calls of `t5.Transformer`.

The "encoder input" is the prompt, padded with 0 at the right, and the target follows it directly:
attention is causal over both, positions go on from every row's own prompt, and the start id that
`likelihood.shift_right` puts before a target stands for the prompt's last token, whose logits are
those of the target's first token.

A text may be run in parts (`LlamaTransformer.extend`): what follows attends to the keys and values
of what was run before, a `Run`, which rows may share. `encode` runs a prompt so, `decode` a target
behind it; `__call__` runs both in one. The reference is transformers'
models/llama/modeling_llama.py.

Shape suffixes: B batch, L prompt length, T target length, Q positions run together, P rows of a part
that was run before, E emb_dim, V vocab_size.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ait_jax.errors import UserError
from ait_jax.models import layers, rotary
from ait_jax.models.blocks import feature_dropout
from ait_jax.models.config_checks import check_common
from ait_jax.models.decoder_only import DecoderOnlyLayer
from ait_jax.models.group_windows import Groups, windows_of
from ait_jax.models.grouped_attention import KeyValue
from ait_jax.models.layer_stack import remat, scanned
from ait_jax.models.likelihood import PAD_ID, OutputLayer, logits_of

Params = Mapping[str, Any]

# The keys and values of texts that were run: {"length": int32 (P,), how many positions are real,
# the first ones or those in "real": bool (P, L), which may be given too;
# "layers": KeyValue, stacked} or, unrolled, "layers_0", "layers_1", ... of a KeyValue each.
Run = Mapping[str, Any]

_INIT_STDDEV = 0.02


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The sizes and switches of a model, named as `t5.T5Config`'s.

    Attributes:
        vocab_size: rows of the token table.
        dtype: of activations ("float32" or "bfloat16"); parameters are always float32.
        num_kv_heads: heads of keys and values; divides `num_heads`.
        norm_epsilon, rope_theta: of the norms and of the rotary positions.
        rope_scaling: None, or `rotary.Llama3Scaling` for Llama 3.1 and later.
        logits_via_embedding: the output layer is the token table (tied), not scaled.
        attention_bias: biases of query, key and value (Qwen2).
        attention_output_bias: and one of what follows them (Hugging Face's `attention_bias`).
        max_position: the longest prompt and target together; refused where they are configured.
        remat_policy, scan_layers, attention_kernel, intermediate_dtype, dropout_rate: see
            `t5.T5Config`.

    Raises:
        UserError: an unknown dtype, remat policy or kernel, a size below 1, heads that do not
            divide each other, an odd `head_dim`.
    """

    vocab_size: int
    dtype: Any = jnp.float32
    emb_dim: int = 576
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int = 64
    num_layers: int = 30
    mlp_dim: int = 1536
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: rotary.Llama3Scaling | None = None
    logits_via_embedding: bool = False
    attention_bias: bool = False
    attention_output_bias: bool = False
    max_position: int | None = 2048
    dropout_rate: float = 0.0
    remat_policy: str = "none"
    scan_layers: bool = False
    attention_kernel: str = "plain"
    intermediate_dtype: Any = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "emb_dim", "num_heads", "num_kv_heads", "head_dim", "num_layers",
                 "mlp_dim")  # fmt: skip
        check_common(self, sizes)
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"LlamaConfig.num_kv_heads = {self.num_kv_heads} does not divide num_heads = "
                f"{self.num_heads}."
            )
        if self.head_dim % 2:
            raise UserError(
                f"LlamaConfig.head_dim = {self.head_dim} is odd; rotary positions turn pairs."
            )

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of what lies between matrix products."""
        return self.intermediate_dtype or self.dtype

    def flops_per_example(self, inputs: float | int, targets: float | int) -> float:
        """Returns the floating-point operations of one forward pass of one example.

        Counts as `t5.flops_per_example`: two per multiply-add of every matrix product, causal
        attention halved, the output layer for the target tokens. A target's last token is never
        run. A training step is three times as much.
        """
        tokens = inputs + max(0, targets - 1)
        layer = tokens * self._layer_weights + tokens**2 * self.num_heads * self.head_dim
        return 2.0 * (self.num_layers * layer + targets * self.emb_dim * self.vocab_size)

    def reading_flops(self, inputs: int) -> float:
        """Returns the FLOPs of a text without targets."""
        return self.flops_per_example(inputs, 0)

    def recomputed_flops(self, inputs: int, targets: int) -> float:
        """Returns what rematerialization adds to an example's training step.

        "full": all products of the layers but the last one of each, whose result no gradient
        needs. "minimal": the two of attention, which have batch axes; all pairs of positions, since
        no form here leaves the masked half out.
        """
        if self.remat_policy == "none":
            return 0.0
        tokens = inputs + max(0, targets - 1)
        layer = 2.0 * tokens**2 * self.num_heads * self.head_dim
        if self.remat_policy == "full":
            layer += tokens * (self._layer_weights - self.emb_dim * self.mlp_dim)
        return 2.0 * self.num_layers * layer

    @property
    def _layer_weights(self) -> int:
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        return self.emb_dim * (heads * self.head_dim + 3 * self.mlp_dim)

    def for_scoring(self, platform: str) -> "LlamaConfig":
        """Returns the same model in the form that reads fastest; see `t5.T5Config.for_scoring`."""
        on_cpu = platform == "cpu"
        return dataclasses.replace(
            self,
            scan_layers=True,
            attention_kernel="blocked" if on_cpu else self.attention_kernel,
            intermediate_dtype=jnp.float32 if on_cpu else self.intermediate_dtype,
        )

    def output_layer(self, params: Params) -> OutputLayer:
        """Returns what turns hidden states into logits: a kernel, or the token table."""
        decoder = params["decoder"]
        if self.logits_via_embedding:
            return OutputLayer(decoder["token_embedder"]["embedding"], vocab_axis=0, scale=1.0)
        return OutputLayer(decoder["logits_dense"]["kernel"], vocab_axis=1, scale=1.0)


class Decoder(nn.Module):
    """The token table, the layers, the final norm and the output layer."""

    config: LlamaConfig

    def setup(self) -> None:
        config = self.config
        self.token_embedder = layers.Embed(
            config.vocab_size, config.emb_dim, config.activation_dtype, _INIT_STDDEV
        )
        self.decoder_norm = layers.LayerNorm(config.dtype, config.norm_epsilon)
        if not config.logits_via_embedding:
            self.logits_dense = layers.Dense(
                config.vocab_size, ("embed", "vocab"), config.dtype, jnp.float32
            )

    @nn.compact
    def hidden(
        self,
        tokens_BxQ: jax.Array,
        past: tuple[Run, ...],
        deterministic: bool,
        *,
        keep: bool = False,
        segments_BxQ: jax.Array | None = None,
        groups: tuple[Groups, int] | None = None,
        decode_behind_Bx1: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Runs the layers over tokens that come behind `past`.

        Args:
            keep: return the layers' part of a Run of these tokens, too, else None.
            segments_BxQ: numbers of several texts in a row; each of them by itself follows `past`.
            groups: that the rows hold, and the keys of the longest window; see `group_windows`.
            decode_behind_Bx1: decode, one position a step; the token of the first step, whatever
                `tokens` are.

        Returns:
            The last layer's output before the final norm, (B, Q, E), and that part.
        """
        config, decode = self.config, decode_behind_Bx1 is not None
        rows, length = tokens_BxQ.shape
        positions_BxQ, own_mask = jnp.arange(length)[None], None
        if segments_BxQ is not None:
            positions_BxQ, own_mask = _apart(segments_BxQ)
        if groups is not None:
            in_steps = config.attention_kernel == "blocked"
            positions_BxQ = groups[0].positions_BxN
            own_mask = windows_of(*groups, in_steps=in_steps)
        for run in past:
            start_B = jnp.repeat(run["length"], rows // run["length"].shape[0])
            positions_BxQ = positions_BxQ + start_B[:, None]
        if decode:
            step = self._count_step()
            positions_BxQ = positions_BxQ + step
            tokens_BxQ = jnp.where(step == 0, decode_behind_Bx1, tokens_BxQ)
        frequencies = rotary.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        rotation = rotary.rotation(positions_BxQ, frequencies)
        masks = (*(_real_positions(run) for run in past), own_mask)
        x = self.token_embedder(tokens_BxQ)
        x = feature_dropout(config)(x, deterministic=deterministic)
        others = (masks, rotation, deterministic, decode, keep)
        layer_class = DecoderOnlyLayer
        if not decode:
            layer_class = remat(DecoderOnlyLayer, config, static_argnums=(5, 6, 7))
        if config.scan_layers:
            stacked = tuple(run["layers"] for run in past)
            in_axes = (0, *[nn.broadcast] * len(others))
            stack = scanned(layer_class, config, config.num_layers, in_axes)
            x, kept = stack(x, stacked, *others)
            return x, {"layers": kept} if keep else None
        kept = {}
        for index in range(config.num_layers):
            name = f"layers_{index}"
            before = tuple(_layer(run, index) for run in past)
            x, kept[name] = layer_class(config, name=name)(x, before, *others)
        return x, kept if keep else None

    def _count_step(self) -> jax.Array:
        """Returns how many positions were decoded before this call; the first one makes the cache."""
        counts = self.has_variable("cache", "cache_index")
        index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        step = index.value
        index.value = step + int(counts)
        return step

    def normalized(self, x: jax.Array) -> jax.Array:
        """Returns the hidden states in `config.dtype`, which the output layer multiplies."""
        return self.decoder_norm(x)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns the logits, float32 (B, T, V)."""
        if self.config.logits_via_embedding:
            logits = logits_of(hidden, OutputLayer(self.token_embedder.embedding, 0, 1.0))
        else:
            logits = self.logits_dense(hidden)
        return layers.with_sharding_constraint(logits, ("batch", "length", "vocab"))


class LlamaTransformer(nn.Module):
    """A decoder-only model with the methods of `interface.Model`.

    Token 0 is padding and stands at the right; a row of it alone is read as one token 0.
    """

    config: LlamaConfig

    def setup(self) -> None:
        self.decoder = Decoder(self.config)

    def extend(
        self,
        tokens_BxQ,
        past: Sequence[Run] = (),
        enable_dropout: bool = False,
        segments_BxQ=None,
        keep: bool = True,
    ):
        """Runs tokens behind what was run before.

        Args:
            tokens_BxQ: int, padded with 0 at the right.
            past: what comes before them, in order. A Run of P rows is shared: row b of the tokens
                follows its row b // (B / P).
            segments_BxQ: int, numbers of texts that stand side by side in a row; each follows
                `past` by itself and sees nothing of the others. None for one text a row.
            keep: False gives no Run, but None.

        Returns:
            The final hidden states (B, Q, E) in `config.dtype`, and the Run of these tokens.
        """
        x, kept = self.decoder.hidden(
            tokens_BxQ, tuple(past), not enable_dropout, keep=keep, segments_BxQ=segments_BxQ
        )
        if not keep:
            return self.decoder.normalized(x), None
        length_B = jnp.sum(tokens_BxQ != PAD_ID, axis=1, dtype=jnp.int32)
        return self.decoder.normalized(x), {"length": length_B, **kept}

    def extend_within(self, tokens_BxN, groups: Groups, longest: int):
        """Runs rows that hold whole groups of texts, prefixes and what follows them.

        Args:
            longest: keys of the longest window: at least `BLOCK`, a prefix and the longest text
                behind it together, less one, or all of a row.

        Returns:
            The final hidden states (B, N, E) in `config.dtype`.
        """
        x, _ = self.decoder.hidden(tokens_BxN, (), True, groups=(groups, longest))
        return self.decoder.normalized(x)

    def encode(self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout=True):
        """Returns the Run of prompts (B, L) without their last tokens, with which `decode` begins."""
        _refuse_packed(encoder_segment_ids)
        _, run = self.extend(encoder_input_tokens, (), enable_dropout)
        return {**run, "length": jnp.maximum(run["length"] - 1, 0)}

    def represent(self, tokens, enable_dropout=True):
        """Returns the final hidden states of a text, (B, L, E)."""
        return self.extend(tokens, (), enable_dropout, keep=False)[0]

    def decode(
        self,
        encoded,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        decoder_positions=None,
        enable_dropout=True,
        decode=False,
        max_decode_length=None,
        return_hidden=False,
    ):
        """Returns the logits, float32 (B, T, V); arguments as of `t5.Transformer.decode`.

        Args:
            encoded: from `encode`, or a tuple of Runs, the last of which leaves the last prompt
                token out, as `encode` does.
            encoder_input_tokens: (B, L), what that one is the Run of.
            decode: one position a step with the mutable collection `cache`; the first call, with
                (B, max length) tokens, makes the cache.
        """
        del decoder_target_tokens, decoder_positions, max_decode_length
        _refuse_packed(encoder_segment_ids, decoder_segment_ids)
        past = (encoded,) if isinstance(encoded, Mapping) else tuple(encoded)
        last_Bx1 = _last_tokens(encoder_input_tokens)
        tokens_BxT = jnp.concatenate([last_Bx1, decoder_input_tokens[:, 1:]], axis=1)
        x, _ = self.decoder.hidden(
            decoder_input_tokens if decode else tokens_BxT,
            past,
            not enable_dropout,
            decode_behind_Bx1=last_Bx1 if decode else None,
        )
        hidden_BxTxE = self.decoder.normalized(x)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)

    def __call__(
        self,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        encoder_positions=None,
        decoder_positions=None,
        *,
        enable_dropout: bool = True,
        decode: bool = False,
        return_hidden: bool = False,
    ):
        """Returns the logits of the targets, float32 (B, T, V), or the hidden states (B, T, E).

        Prompts (B, L) and targets are put one behind the other, without the padding between them,
        and run together.

        Raises:
            UserError: packed examples (segment ids), which only T5 takes.
        """
        _refuse_packed(encoder_segment_ids, decoder_segment_ids)
        if decode:
            encoded = self.encode(encoder_input_tokens, enable_dropout=enable_dropout)
            return self.decode(
                encoded, encoder_input_tokens, decoder_input_tokens, decoder_target_tokens,
                enable_dropout=enable_dropout, decode=True, return_hidden=return_hidden,
            )  # fmt: skip
        tokens_BxQ, first_Bx1 = _joined(encoder_input_tokens, decoder_input_tokens)
        x, _ = self.decoder.hidden(tokens_BxQ, (), not enable_dropout)
        where_BxT = first_Bx1 + jnp.arange(decoder_input_tokens.shape[1])
        x_BxTxE = jnp.take_along_axis(x, where_BxT[:, :, None], axis=1)
        hidden_BxTxE = self.decoder.normalized(x_BxTxE)
        return hidden_BxTxE if return_hidden else self.decoder.logits(hidden_BxTxE)


def _refuse_packed(*segment_ids: Any) -> None:
    if any(ids is not None for ids in segment_ids):
        raise UserError(
            "Packed examples (segment ids) are for T5; a LlamaTransformer takes one example a row: "
            "leave packing out of the SeqIO feature converter."
        )


def _layer(run: Run, index: int) -> KeyValue:
    if "layers" in run:
        return jax.tree.map(lambda leaf: leaf[index], run["layers"])
    return run[f"layers_{index}"]


def _real_positions(run: Run) -> jax.Array:
    """Returns which positions of a Run are real, bool (P, 1, L)."""
    if "real" in run:
        return run["real"][:, None]
    length = jax.tree.leaves({k: v for k, v in run.items() if k != "length"})[0].shape[-1]
    return (jnp.arange(length) < run["length"][:, None])[:, None]


def _apart(segments_BxQ: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the positions (B, Q) inside of texts side by side, and what they see, (B, Q, Q)."""
    places_Q = jnp.arange(segments_BxQ.shape[1])
    begins_BxQ = segments_BxQ != jnp.pad(segments_BxQ, ((0, 0), (1, 0)))[:, :-1]
    start_BxQ = lax.cummax(jnp.where(begins_BxQ, places_Q, 0), axis=1)
    same_BxQxQ = segments_BxQ[:, :, None] == segments_BxQ[:, None]
    return places_Q - start_BxQ, same_BxQxQ & (places_Q[:, None] >= places_Q)


def _last_places(tokens_BxL: jax.Array) -> jax.Array:
    """Returns where each row's last token stands, int32 (B, 1); 0 in a row of padding."""
    lengths_Bx1 = jnp.sum(tokens_BxL != PAD_ID, axis=1, keepdims=True, dtype=jnp.int32)
    return jnp.maximum(lengths_Bx1 - 1, 0)


def _last_tokens(tokens_BxL: jax.Array) -> jax.Array:
    return jnp.take_along_axis(tokens_BxL, _last_places(tokens_BxL), axis=1)


def _joined(prompts_BxL: jax.Array, shifted_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Puts targets, shifted right by one, behind their prompts.

    The start id falls on the prompt's last token, which stays.

    Returns:
        Tokens (B, L + T - 1), and where the prompts' last tokens stand (B, 1).
    """
    last_Bx1 = _last_places(prompts_BxL)
    targets = shifted_BxT.shape[1]
    places_1xQ = jnp.arange(prompts_BxL.shape[1] + targets - 1)[None]
    prompts_BxQ = jnp.pad(prompts_BxL, ((0, 0), (0, targets - 1)))
    of_target_BxQ = jnp.clip(places_1xQ - last_Bx1, 0, targets - 1)
    behind_BxQ = (places_1xQ > last_Bx1) & (places_1xQ - last_Bx1 < targets)
    targets_BxQ = jnp.take_along_axis(shifted_BxT, of_target_BxQ, axis=1)
    return jnp.where(behind_BxQ, targets_BxQ, prompts_BxQ), last_Bx1
