"""Sampled answers: several to every prompt, each a function of its own key alone.

Shape suffixes: B prompts, S samples of a prompt, N = B * S rows, L encoder length, V vocab_size.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ait_jax.models.decoding import Decoded, decode, encode_prompts, repeat_rows
from ait_jax.models.interface import Model, Params, Tokens
from ait_jax.models.likelihood import PAD_ID


@dataclass(frozen=True)
class Restriction:
    """How the distribution that answers are drawn from differs from the model's own.

    Attributes:
        temperature: divides the logits; above 0.
        top_k: only the k most likely tokens, and those as likely as the last of them.
        top_p: then only the most likely tokens that together have at least this probability
            (nucleus sampling, Holtzman et al. 2020, section 3.1).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def sample_decode(
    model: Model,
    params: Params,
    encoder_tokens_BxL: Tokens,
    keys_BxSx2: Shaped[Array | np.ndarray, "batch S 2"],
    max_decode_length: int,
    restriction: Restriction,
    *,
    eos_id: int = 1,
    unroll_layers: bool = False,
) -> Decoded:
    """Draws S answers to every prompt, token by token, until end-of-sequence.

    Prompts are encoded, and their cross-attention keys and values computed, once for all S
    answers. Padding (token 0) is never drawn, so that an answer's tokens are the non-zero ones.
    Without a restriction the answers come from the model's own distribution, except for that token.

    The draw of a token depends on its row's key, the step and the logits: not on the batch, on
    other rows or on the mesh (where that changes the last bits of the logits, a draw that hung on
    them may change, too).

    Args:
        encoder_tokens_BxL: 0 is padding.
        keys_BxSx2: uint32, what `key_data` returns.
        restriction: static under jit.
        Others: see `decoding.greedy_decode`.

    Returns:
        N rows, those of a prompt side by side. `log_likelihood` is the model's own, whatever the
        restriction.

    Raises:
        ValueError: a `max_decode_length` below 1.
    """
    prompts = encode_prompts(model, params, encoder_tokens_BxL, max_decode_length, unroll_layers)
    encoded, cache = repeat_rows((prompts.encoded, prompts.cache), keys_BxSx2.shape[1])
    encoded = encoded._replace(keys=keys_BxSx2.reshape(-1, 2))
    prompts = prompts._replace(encoded=encoded, cache=cache)
    return decode(prompts, max_decode_length, eos_id, partial(_draw, restriction))


def key_data(number: int) -> tuple[int, int]:
    """Returns a row's key, two numbers of 32 bits, from one of 64 bits (`randomness`)."""
    return number >> 32 & 0xFFFFFFFF, number & 0xFFFFFFFF


def restricted_logits(
    logits_BxV: Float[Array | np.ndarray, "B V"], restriction: Restriction
) -> Float[Array, "B V"]:
    """Returns the logits to draw from, -inf for what must not be drawn."""
    top_k, top_p = restriction.top_k, restriction.top_p
    is_pad_V = jnp.arange(logits_BxV.shape[-1]) == PAD_ID
    logits_BxV = jnp.where(is_pad_V, -jnp.inf, logits_BxV / restriction.temperature)
    if top_k is not None and top_k < logits_BxV.shape[-1]:
        least_Bx1 = jax.lax.top_k(logits_BxV, top_k)[0][:, -1:]
        logits_BxV = jnp.where(logits_BxV < least_Bx1, -jnp.inf, logits_BxV)
    if top_p is not None and top_p < 1.0:
        descending_BxV = jnp.sort(logits_BxV, axis=-1, descending=True)
        p_BxV = jax.nn.softmax(descending_BxV, axis=-1)
        # A token stays where those before it do not yet have top_p: the first always stays.
        stays_BxV = jnp.cumsum(p_BxV, axis=-1) - p_BxV < top_p
        least_Bx1 = jnp.min(jnp.where(stays_BxV, descending_BxV, jnp.inf), axis=-1, keepdims=True)
        logits_BxV = jnp.where(logits_BxV < least_Bx1, -jnp.inf, logits_BxV)
    return logits_BxV


def _draw(
    restriction: Restriction, logits_NxV: Array, keys_Nx2: Array, step: Array
) -> tuple[Array, Array]:
    """Draws by the largest of logits plus Gumbel noise, which has the softmax's probabilities."""
    keys_N = jax.random.wrap_key_data(keys_Nx2, impl="threefry2x32")
    keys_N = jax.vmap(jax.random.fold_in, (0, None))(keys_N, step)
    noise_NxV = jax.vmap(partial(jax.random.gumbel, shape=logits_NxV.shape[1:]))(keys_N)
    noisy_NxV = restricted_logits(logits_NxV, restriction) + noise_NxV
    token_N = jnp.argmax(noisy_NxV, axis=-1).astype(jnp.int32)
    return token_N, jnp.take_along_axis(logits_NxV, token_N[:, None], axis=-1)[:, 0]
