"""Summaries of a run for TensorBoard and the like; gin names them in SUMMARIES."""

from ait_jax.summaries.tensorboard import TensorBoard
from ait_jax.summaries.weights_and_biases import WeightsAndBiases
from ait_jax.summaries.writers import Board, Session, Summaries, SummaryWriter

__all__ = ["Board", "Session", "Summaries", "SummaryWriter", "TensorBoard", "WeightsAndBiases"]
