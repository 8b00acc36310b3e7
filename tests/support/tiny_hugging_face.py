"""Tiny T5s of every variant that Hugging Face has, and what tests do with their folders."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from ait_jax.models import parameters, t5

SIZES = dict(
    vocab_size=128, emb_dim=16, num_heads=2, num_encoder_layers=2, num_decoder_layers=2,
    head_dim=8, mlp_dim=24,
)  # fmt: skip
GATED = ("gelu", "linear")
VARIANTS = {
    "t5_1_0": dict(mlp_activations=("relu",), logits_via_embedding=True),
    "t5_1_1": dict(mlp_activations=GATED),
    "uneven": dict(mlp_activations=GATED, num_decoder_layers=1, head_dim=4, dropout_rate=0.0),
    "unpadded": dict(mlp_activations=GATED, vocab_size=100),
    "tied_gated": dict(mlp_activations=("silu", "linear"), logits_via_embedding=True),
}

needs_torch = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="needs torch and transformers (Hugging Face's own T5), absent here",
)


def config_of(variant):
    return t5.T5Config(**{**SIZES, **VARIANTS[variant]})


def random_params(config, seed=0):
    """Every value away from its initial one, or swapped norms would not show."""
    random = np.random.default_rng(seed)
    shapes = parameters.abstract_params(t5.Transformer(config))[0]

    def draw(leaf):
        if len(leaf.shape) == 1:
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def edit_json(path, **changes):
    """Sets fields of a JSON file; None takes one away."""
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
