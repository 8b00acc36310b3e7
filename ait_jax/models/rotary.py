"""Rotary positions (Su et al. 2021, arXiv 2104.09864), in the order that Hugging Face keeps.

The two numbers of a pair lie half a head apart (`rotate_half` in transformers'
models/llama/modeling_llama.py), not side by side as in Meta's files.

Shape suffixes: B batch, L length, H heads, D head_dim, F = D / 2.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

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

    def __call__(
        self, frequencies_F: Float[np.ndarray, " F"], theta: float
    ) -> Float[np.ndarray, " F"]:
        """Returns the scaled frequencies; `theta` does not matter."""
        del theta
        turns_F = self.original_max_position * frequencies_F / (2 * math.pi)
        smooth_F = (turns_F - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth_F = np.clip(smooth_F, 0.0, 1.0)
        return (1 - smooth_F) * frequencies_F / self.factor + smooth_F * frequencies_F


@dataclass(frozen=True)
class LinearScaling:
    """All positions divided by `factor` (Chen et al. 2023, arXiv 2306.15595).

    Raises:
        UserError: a factor that is not above 0.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self)

    def __call__(
        self, frequencies_F: Float[np.ndarray, " F"], theta: float
    ) -> Float[np.ndarray, " F"]:
        """Returns the scaled frequencies; `theta` does not matter."""
        del theta
        return frequencies_F / self.factor


@dataclass(frozen=True)
class DynamicScaling:
    """NTK scaling that begins beyond `original_max_position` ("rope_type": "dynamic").

    In texts up to there nothing is scaled. In longer ones the frequencies would depend on the
    length of each text, so that the first tokens' change as it grows: `LlamaConfig` refuses a
    `max_position` beyond it.

    Raises:
        UserError: values that are not above 0.
    """

    factor: float = 1.0
    original_max_position: int = 2048

    def __post_init__(self) -> None:
        _check_positive(self)

    def __call__(
        self, frequencies_F: Float[np.ndarray, " F"], theta: float
    ) -> Float[np.ndarray, " F"]:
        """Returns the frequencies."""
        del theta
        return frequencies_F


def check_length(scaling: "Scaling | None", max_position: int | None) -> None:
    """Refuses texts whose length would change the angles of all their positions (UserError)."""
    if not isinstance(scaling, DynamicScaling):
        return
    most = scaling.original_max_position
    if max_position is None or max_position > most:
        raise UserError(
            f"LlamaConfig.max_position = {max_position} is beyond "
            f"rotary.DynamicScaling.original_max_position = {most}; longer texts would turn every "
            "position by another angle. Set it to at most that."
        )


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071), as in transformers' modeling_rope_utils.py.

    Pairs that turn more than `beta_fast` times within the original length stay, those that turn
    less than `beta_slow` times have positions divided by `factor`, and between them the change is
    linear in the pair's index.

    Attributes:
        factor, beta_fast, beta_slow: see above.
        original_max_position: the length before scaling.
        attention_factor: of cosines and sines; None for the paper's 0.1 ln(factor) + 1.
        truncate: round the first and last index between outward.

    Raises:
        UserError: values that are not above 0.
    """

    factor: float = 4.0
    original_max_position: int = 32768
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self) -> None:
        _check_positive(self)

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        return yarn_magnitude(self.factor)

    def __call__(
        self, frequencies_F: Float[np.ndarray, " F"], theta: float
    ) -> Float[np.ndarray, " F"]:
        """Returns the scaled frequencies of base `theta`."""
        pairs = frequencies_F.size

        def index(turns: float) -> float:
            """Returns which pair turns so often, as a fraction."""
            wavelength = self.original_max_position / (2 * math.pi * turns)
            return pairs * math.log(wavelength) / math.log(theta)

        low, high = index(self.beta_fast), index(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        width = high - low or 0.001
        slow_F = np.clip((np.arange(pairs) - low) / width, 0.0, 1.0)
        return slow_F * frequencies_F / self.factor + (1 - slow_F) * frequencies_F


Scaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """Returns YaRN's factor of cosines and sines."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _check_positive(scaling: Any) -> None:
    for name, value in dataclasses.asdict(scaling).items():
        if value is not None and not isinstance(value, bool) and not value > 0:
            kind = type(scaling).__name__
            raise UserError(f"rotary.{kind}.{name} = {value}; it must be above 0.")


def frequencies(
    head_dim: int, theta: float, scaling: Scaling | None = None
) -> Float[np.ndarray, " F"]:
    """Returns the radians that a position adds to each pair of numbers, float64."""
    frequencies_F = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    return frequencies_F if scaling is None else scaling(frequencies_F, theta)


def rotation(
    positions_BxL: Int[Array, "B L"],
    head_dim: int,
    theta: float,
    scaling: Scaling | None = None,
) -> tuple[Float[Array, "B L 1 F"], Float[Array, "B L 1 F"]]:
    """Returns cosines and sines of every position, float32, times the scaling's magnitude."""
    angles = positions_BxL[:, :, None, None].astype(jnp.float32)
    angles = angles * jnp.asarray(frequencies(head_dim, theta, scaling), jnp.float32)
    magnitude = scaling.magnitude if isinstance(scaling, YarnScaling) else 1.0
    return jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude


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
