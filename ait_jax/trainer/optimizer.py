"""Optimizers and schedules, by optax."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ait_jax.errors import UserError


def constant_with_warmup(learning_rate: float = 5e-5, warmup_steps: int = 50) -> optax.Schedule:
    """Rises linearly from 0 over `warmup_steps` steps, then stays (paper, appendix on training)."""
    if not warmup_steps:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, warmup_steps)


def logarithmic_warmup(learning_rate: float = 5e-5, warmup_steps: int = 50) -> optax.Schedule:
    """Rises with the logarithm of the step over `warmup_steps` steps, then stays.

    DeepSpeed's WarmupLR, by which the authors train: step s of W, from 0 on, has
    log(s + 1) / log(W) of the peak, more than a linear rise after the first. W is 2 at least, as
    there.
    """
    steps = max(2, warmup_steps)

    def rate(step: Any) -> Any:
        reached = jnp.log1p(jnp.asarray(step, jnp.float32)) / math.log(steps)
        return learning_rate * jnp.where(step < steps, reached, 1.0)

    return rate


@dataclasses.dataclass(frozen=True)
class CosineOfTraining:
    """Rises linearly, then falls along a cosine to 0, over a training's own number of steps.

    As Alpaca's (Hugging Face's "cosine" with a warmup ratio): every round reaches the peak.

    Attributes:
      learning_rate: the peak.
      warmup_fraction: of the steps, rounded up.

    Raises:
      UserError: a fraction below 0, or 1 and more.
    """

    learning_rate: float = 2e-5
    warmup_fraction: float = 0.03

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1:
            raise UserError(
                "optimizer.CosineOfTraining.warmup_fraction (WARMUP_FRACTION) = "
                f"{self.warmup_fraction} must be at least 0 and below 1, as 0.03 is."
            )

    def over(self, total_steps: int) -> optax.Schedule:
        """Returns the learning rate by step of a training of `total_steps`."""
        warmup_steps = math.ceil(total_steps * self.warmup_fraction)
        if warmup_steps >= total_steps:
            return constant_with_warmup(self.learning_rate, 0)
        return cosine_with_warmup(self.learning_rate, total_steps, warmup_steps)


# The learning rate by step, or a function of a training's number of steps to it.
Schedule = optax.Schedule | CosineOfTraining


def schedule_over(schedule: Schedule, total_steps: int) -> optax.Schedule:
    """Returns the learning rate by step of a training of `total_steps`."""
    return schedule.over(total_steps) if isinstance(schedule, CosineOfTraining) else schedule


def rates_over(schedule: Schedule, total_steps: int) -> np.ndarray:
    """Returns the learning rates of all steps of a training, float32, at once: no step waits."""
    of_step = schedule_over(schedule, total_steps)

    def rate(count: Any) -> Any:
        return jnp.asarray(of_step(count), jnp.float32)

    # As optax counts, from 0: the first update has the schedule's value at 0.
    return np.asarray(jax.jit(jax.vmap(rate))(np.arange(total_steps, dtype=np.int32)))


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """Returns a schedule times a factor."""
    if factor <= 0:
        raise UserError(f"optimizer.scaled.factor (FEEDBACK_RATE) = {factor} must be above 0.")
    if isinstance(schedule, CosineOfTraining):
        return dataclasses.replace(schedule, learning_rate=factor * schedule.learning_rate)
    return lambda step: factor * schedule(step)


def cosine_with_warmup(
    learning_rate: float, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0
) -> optax.Schedule:
    """Rises linearly, then falls along a cosine to `final_fraction` of the peak.

    Raises:
      UserError: the warmup takes all steps.
    """
    if warmup_steps >= total_steps:
        raise UserError(
            f"optimizer.cosine_with_warmup.warmup_steps = {warmup_steps} must be below total_steps "
            f"(TRAIN_STEPS) = {total_steps}; lower the former or raise the latter."
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
        end_value=learning_rate * final_fraction,
    )


def adamw(
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with Hugging Face's defaults, after clipping by global norm (0 for none)."""
    steps = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(
        *steps, optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    )


class Adafactor(optax.GradientTransformationExtraArgs):
    """An optax transformation with its settings, from which T5X's own is made."""

    settings: dict[str, Any]


def adafactor(
    schedule: optax.Schedule,
    decay_rate: float = 0.8,
    clipping_threshold: float = 1.0,
    multiply_by_parameter_scale: bool = True,
    min_dim_size_to_factor: int = 128,
) -> Adafactor:
    """Adafactor as T5 uses it: factored second moments, update clipping, relative step sizes."""
    settings = {
        "decay_rate": decay_rate,
        "clipping_threshold": clipping_threshold,
        "multiply_by_parameter_scale": multiply_by_parameter_scale,
        "min_dim_size_to_factor": min_dim_size_to_factor,
    }
    made = Adafactor(*optax.adafactor(schedule, **settings))
    made.settings = settings
    return made
