"""Rotary positions (Su et al. 2021, arXiv 2104.09864), in the order that Hugging Face keeps.

The two numbers of a pair lie half a head apart (`rotate_half` in transformers'
models/llama/modeling_llama.py), not side by side as in Meta's files.

Shape suffixes: B batch, L length, H heads, D head_dim, F = D / 2.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ait_jax.errors import UserError


@dataclass(frozen=True)
class Llama3Scaling:
    """What Llama 3.1 and 3.2 do to the frequencies to read longer texts ("rope_type": "llama3").

    Wavelengths above original_max_position / low_freq_factor are made `factor` times as long,
    those below original_max_position / high_freq_factor stay, and between them the change is
    smooth. Names as in Hugging Face's config.json, except original_max_position_embeddings.

    Raises:
        UserError: factors that are out of order.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192

    def __post_init__(self) -> None:
        if not (self.factor > 0 and 0 < self.low_freq_factor < self.high_freq_factor):
            raise UserError(
                f"rotary.Llama3Scaling has factor = {self.factor}, low_freq_factor = "
                f"{self.low_freq_factor} and high_freq_factor = {self.high_freq_factor}; all must "
                "be above 0, and low_freq_factor below high_freq_factor."
            )

    def __call__(self, frequencies_F: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
        """Returns the scaled frequencies."""
        turns_F = self.original_max_position * frequencies_F / (2 * math.pi)
        smooth_F = (turns_F - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth_F = np.clip(smooth_F, 0.0, 1.0)
        return (1 - smooth_F) * frequencies_F / self.factor + smooth_F * frequencies_F


def frequencies(
    head_dim: int, theta: float, scaling: Llama3Scaling | None = None
) -> Float[np.ndarray, " F"]:
    """Returns the radians that a position adds to each pair of numbers, float64."""
    frequencies_F = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    return frequencies_F if scaling is None else scaling(frequencies_F)


def rotation(
    positions_BxL: Int[Array, "B L"], frequencies_F: Float[np.ndarray, " F"]
) -> tuple[Float[Array, "B L 1 F"], Float[Array, "B L 1 F"]]:
    """Returns cosines and sines of every position, float32."""
    angles = positions_BxL[:, :, None, None].astype(jnp.float32)
    angles = angles * jnp.asarray(frequencies_F, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x_BxLxHxD: Float[Array, "B L H D"],
    cos: Float[Array, "#B L 1 F"],
    sin: Float[Array, "#B L 1 F"],
    scale: float = 1.0,
) -> Float[Array, "B L H D"]:
    """Returns x rotated by `rotation` and multiplied by `scale`, computed in float32."""
    first, second = jnp.split(x_BxLxHxD.astype(jnp.float32) * scale, 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BxLxHxD.dtype)
