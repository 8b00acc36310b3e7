"""Summaries of a run for the programs that people watch it in; gin names them in SUMMARIES."""

from ait_jax.summaries.interface import Board, Session, SummaryWriter
from ait_jax.summaries.tensorboard import TensorBoard
from ait_jax.summaries.weights_and_biases import WeightsAndBiases
from ait_jax.summaries.writers import Summaries

__all__ = ["Board", "Session", "Summaries", "SummaryWriter", "TensorBoard", "WeightsAndBiases"]
