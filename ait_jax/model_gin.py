"""The gin file of a model, as those in gin/models."""

from typing import Any

from ait_jax.models.t5 import T5Config

_TEMPLATE = """\
# {comment}
from __gin__ import dynamic_registration

from ait_jax import vocabulary
from ait_jax.models import t5

INIT_CHECKPOINT = {checkpoint}
VOCABULARY_PATH = {vocabulary}
DROPOUT_RATE = {config.dropout_rate}
ACTIVATION_DTYPE = "bfloat16"  # matrix multiplications; parameters and softmax stay float32

MODEL = @t5.Transformer()
VOCABULARY = @vocabulary.Vocabulary()

t5.Transformer.config = @t5.T5Config()
t5.T5Config:
  vocab_size = {config.vocab_size}
  dtype = %ACTIVATION_DTYPE
  emb_dim = {config.emb_dim}
  num_heads = {config.num_heads}
  num_encoder_layers = {config.num_encoder_layers}
  num_decoder_layers = {config.num_decoder_layers}
  head_dim = {config.head_dim}
  mlp_dim = {config.mlp_dim}
  mlp_activations = {config.mlp_activations}
  dropout_rate = %DROPOUT_RATE
  logits_via_embedding = {config.logits_via_embedding}

vocabulary.Vocabulary.path = %VOCABULARY_PATH
vocabulary.Vocabulary.extra_ids = {extra_ids}
"""


def model_gin(
    config: T5Config, *, comment: str, checkpoint: Any, vocabulary: Any, extra_ids: int
) -> str:
    """Returns gin source that follows an experiment's: --gin_file=experiments/score.gin before it.

    Args:
        config: the model's sizes.
        comment: the first line, without line ends.
        checkpoint: INIT_CHECKPOINT.
        vocabulary: VOCABULARY_PATH; None leaves it to be given.
        extra_ids: the vocabulary's sentinels.
    """
    return _TEMPLATE.format(
        config=config,
        comment=" ".join(comment.split()),
        checkpoint=repr(str(checkpoint)),
        vocabulary="%gin.REQUIRED" if vocabulary is None else repr(str(vocabulary)),
        extra_ids=extra_ids,
    )
