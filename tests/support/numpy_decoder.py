"""A decoder-only model's forward pass of one unpadded row, float64, written from the papers."""

import numpy as np

from ait_jax.models import rotary
from ait_jax.models.parameters import flatten


def turned(config, x, letter):
    """Returns one head's queries or keys, rotated by their positions in a layer of a kind."""
    if letter == "N":
        return x
    half, result = config.head_dim // 2, np.empty_like(x)
    local = config.local_rope_theta if letter == "L" else None
    scaling, magnitude = None if local else config.rope_scaling, 1.0
    if isinstance(scaling, rotary.YarnScaling):
        magnitude = scaling.attention_factor or 0.1 * np.log(scaling.factor) + 1
    for position in range(x.shape[0]):
        for i in range(half):
            value = (local or config.rope_theta) ** (-2 * i / config.head_dim)
            angle = position * frequency(config, scaling, i, value)
            pair = (x[position, i] + 1j * x[position, i + half]) * np.exp(1j * angle) * magnitude
            result[position, i], result[position, i + half] = pair.real, pair.imag
    return result


def frequency(config, scaling, i, value):
    """Returns how far pair i of numbers turns at each position; `value` without scaling."""
    if scaling is None or isinstance(scaling, rotary.DynamicScaling):
        return value
    if isinstance(scaling, rotary.LinearScaling):
        return value / scaling.factor
    if isinstance(scaling, rotary.YarnScaling):
        return yarn(config, scaling, i, value)
    wavelength = 2 * np.pi / value
    if wavelength > scaling.original_max_position / scaling.low_freq_factor:
        return value / scaling.factor
    if wavelength < scaling.original_max_position / scaling.high_freq_factor:
        return value
    smooth = (scaling.original_max_position / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * value / scaling.factor + smooth * value


def yarn(config, scaling, i, value):
    """The pair with r turns in the original length has the index of theta**(-2 i / D)."""
    ends = []
    for turns in (scaling.beta_fast, scaling.beta_slow):
        slowest = 2 * np.pi * turns / scaling.original_max_position
        ends.append(-np.log(slowest) / np.log(config.rope_theta) * config.head_dim / 2)
    if scaling.truncate:
        ends = [np.floor(ends[0]), np.ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], config.head_dim - 1)
    gamma = 1 - np.clip((i - low) / (high - low), 0, 1)
    return (1 - gamma) * value / scaling.factor + gamma * value


def by_hand(config, params, tokens):
    """Returns the logits of every position, (tokens, vocabulary)."""
    p = {name: np.asarray(array, np.float64) for name, array in flatten(params).items()}

    def norm(x, name):
        scale = p.get(name + ".scale")
        if scale is None:  # no norm stands there
            return x
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon) * scale

    def linear(x, name):
        return x @ p[name + ".kernel"] + p.get(name + ".bias", 0.0)

    def capped(x, limit):
        return x if limit is None else limit * np.tanh(x / limit)

    def activated(x):
        if config.mlp_activations[0] == "silu":
            return x / (1 + np.exp(-x))
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def heads_normed(x, name):
        if config.qk_norm != "head":
            return norm(x, name)
        return np.concatenate(
            [norm(part, name) for part in np.split(x, x.shape[1] // config.head_dim, axis=1)], 1
        )

    x = p["decoder.token_embedder.embedding"][tokens]
    x = x * (np.sqrt(config.emb_dim) if config.scale_embeddings else 1)
    apart = np.arange(len(tokens))[:, None] - np.arange(len(tokens))
    for i in range(config.num_layers):
        layer, letter = f"decoder.layers_{i}.", config.layer_pattern[i % len(config.layer_pattern)]
        seen = (apart >= 0) & (apart < (config.sliding_window if letter == "L" else np.inf))
        y = norm(x, layer + "pre_self_attention_layer_norm")
        q, k, v = (linear(y, f"{layer}self_attention.{n}") for n in ("query", "key", "value"))
        q = heads_normed(q, layer + "self_attention.query_norm")
        k = heads_normed(k, layer + "self_attention.key_norm")
        heads = []
        for h in range(config.num_heads):
            mine = slice(h * config.head_dim, (h + 1) * config.head_dim)
            g = h // (config.num_heads // config.num_kv_heads)
            theirs = slice(g * config.head_dim, (g + 1) * config.head_dim)
            scores = turned(config, q[:, mine], letter) @ turned(config, k[:, theirs], letter).T
            scores = scores * (config.query_scale or 1 / np.sqrt(config.head_dim))
            weights = np.where(seen, np.exp(capped(scores, config.attention_softcap)), 0.0)
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, theirs])
        y = linear(np.concatenate(heads, -1), layer + "self_attention.out")
        x = x + norm(y, layer + "post_self_attention_layer_norm")
        y = norm(x, layer + "pre_mlp_layer_norm")
        y = activated(linear(y, layer + "mlp.wi_0")) * linear(y, layer + "mlp.wi_1")
        x = x + norm(linear(y, layer + "mlp.wo"), layer + "post_mlp_layer_norm")
    x = norm(x, "decoder.decoder_norm")
    if config.logits_via_embedding:
        return capped(x @ p["decoder.token_embedder.embedding"].T, config.logits_softcap)
    return capped(x @ p["decoder.logits_dense.kernel"], config.logits_softcap)
