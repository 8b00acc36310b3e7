"""One update by judged answers: a policy gradient with a leave-one-out baseline, and supervision.

Axes: B prompts, S sampled answers to a prompt, L prompt length, T answer length.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ait_jax.models.decoding import repeat_rows
from ait_jax.models.interface import Model
from ait_jax.models.likelihood import shift_right, sum_log_likelihood
from ait_jax.trainer.step import (
    Batch,
    MakeOptimizer,
    Metrics,
    StepScalars,
    TrainState,
    gradient_sums,
    supervised_sums,
    updated,
)


def leave_one_out(rewards_BxS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Returns advantages: every reward minus the mean reward of the prompt's other answers.

    The baseline does not depend on the answer itself, so the gradient stays unbiased (RLOO,
    Ahmadian et al. 2024, arXiv 2402.14740, section 3.3). Needs S of at least 2.
    """
    total_Bx1 = jnp.sum(rewards_BxS, axis=1, keepdims=True)
    others_BxS = (total_Bx1 - rewards_BxS) / (rewards_BxS.shape[1] - 1)
    return rewards_BxS - others_BxS


def answers_log_likelihood(
    model: Model, params: Any, prompts_BxL: Int[Array, "B L"], answers_BxSxT: Int[Array, "B S T"]
) -> Float[Array, "B S"]:
    """Returns the log-likelihood of whole answers, float32: the sum over their tokens.

    Dropout is off, as when they were drawn; every prompt is encoded once.
    """
    num_answers = answers_BxSxT.shape[1]
    answers_NxT = answers_BxSxT.reshape(-1, answers_BxSxT.shape[-1])
    encoded = model.apply({"params": params}, prompts_BxL, enable_dropout=False, method="encode")
    logits_NxTxV = model.apply(
        {"params": params},
        repeat_rows(encoded, num_answers),
        jnp.repeat(prompts_BxL, num_answers, axis=0),
        shift_right(answers_NxT),
        answers_NxT,
        enable_dropout=False,
        method="decode",
    )
    return sum_log_likelihood(logits_NxTxV, answers_NxT).reshape(-1, num_answers)


def make_feedback_step(
    model: Model,
    optimizer: MakeOptimizer,
    *,
    supervised_weight: float,
    num_microbatches: int = 1,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> Callable[[TrainState, Batch, StepScalars], tuple[TrainState, Metrics]]:
    """Returns step(state, batch, scalars) -> (state, metrics).

    For any number of microbatches, the loss is

        mean over answers of -(advantage x log-likelihood of the answer)
        + supervised_weight x mean cross-entropy over the tokens of "targets"

    The first mean's gradient is minus that of the expected reward, so the log-likelihood is the
    sum over an answer's tokens, not their mean. The second is training's own, dropout included.

    A batch has what training's has, "answers" int32 (B, S, T) with their end-of-sequence, padded
    with 0, and "rewards" float32 (B, S).

    Metrics (float32 scalars): training's, policy_loss, supervised_loss, reward (mean), right (share
    of answers with reward 1), advantage (mean of its absolute value: 0 where a prompt's answers are
    all right or all wrong), answer_tokens (mean length).
    """
    supervised = supervised_sums(model, z_loss=z_loss, label_smoothing=label_smoothing)

    def feedback_step(
        state: TrainState, batch: Batch, scalars: StepScalars
    ) -> tuple[TrainState, Metrics]:
        num_answers = batch["rewards"].size
        tokens = jnp.maximum(jnp.sum(batch["targets"] > 0).astype(jnp.float32), 1.0)

        def loss_sums(params: Any, part: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
            advantages_BxS = leave_one_out(part["rewards"])
            log_p_BxS = answers_log_likelihood(model, params, part["inputs"], part["answers"])
            policy_loss = -jnp.sum(advantages_BxS * log_p_BxS) / num_answers
            cross_entropy, sums = supervised(params, part, rng)
            supervised_loss = cross_entropy / tokens
            loss = policy_loss + supervised_weight * supervised_loss
            return loss, {
                "loss": loss,
                "policy_loss": policy_loss,
                "supervised_loss": supervised_loss,
                "accuracy": sums["correct"] / tokens,
                "tokens": sums["tokens"],
            }

        rng = jax.random.fold_in(jax.random.key(scalars.dropout_seed), state.step)
        grads, sums = gradient_sums(loss_sums, num_microbatches)(state.params, batch, rng)
        state, norms = updated(state, grads, optimizer(lambda _: scalars.learning_rate))
        return state, {**sums, **_judged(batch), **norms}

    return feedback_step


def _judged(batch: Batch) -> Metrics:
    """Returns the metrics of a batch's answers alone."""
    rewards_BxS = batch["rewards"]
    return {
        "reward": jnp.mean(rewards_BxS),
        "right": jnp.mean(rewards_BxS >= 1.0),
        "advantage": jnp.mean(jnp.abs(leave_one_out(rewards_BxS))),
        "answer_tokens": jnp.sum(batch["answers"] > 0) / rewards_BxS.size,
    }
