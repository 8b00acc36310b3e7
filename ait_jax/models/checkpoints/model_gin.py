"""The gin file of a model, as those in gin/models."""

from typing import Any

from ait_jax.models.llama import LlamaConfig
from ait_jax.models.t5 import T5Config
from ait_jax.prompts.chat_format import SMOLLM2_SYSTEM
from ait_jax.prompts.tokenizer_files import SpecialTokens

_T5_TEMPLATE = """\
# {comment}
from __gin__ import dynamic_registration

from ait_jax.prompts import vocabulary
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


def t5_gin(config: T5Config, comment: str, checkpoint: Any, vocabulary: Any, extra_ids: int) -> str:
    """Returns a gin file to give after an experiment's, as --gin_file=experiments/score.gin.

    Args:
        config: the model's sizes.
        comment: the first line, without line ends.
        checkpoint: INIT_CHECKPOINT.
        vocabulary: VOCABULARY_PATH; None leaves it to be given.
        extra_ids: the vocabulary's sentinels.
    """
    return _T5_TEMPLATE.format(
        config=config,
        comment=" ".join(comment.split()),
        checkpoint=repr(str(checkpoint)),
        vocabulary="%gin.REQUIRED" if vocabulary is None else repr(str(vocabulary)),
        extra_ids=extra_ids,
    )


_LLAMA_TEMPLATE = """\
# {comment}
from __gin__ import dynamic_registration

from ait_jax.prompts import chat_format
from ait_jax.prompts import tokenizers_vocabulary
from ait_jax.models import llama
from ait_jax.models import rotary

INIT_CHECKPOINT = {checkpoint}
VOCABULARY_PATH = {vocabulary}
CHAT = {chat}  # the form of conversations around prompts; None for plain text
DROPOUT_RATE = {config.dropout_rate}
ACTIVATION_DTYPE = "bfloat16"  # matrix multiplications; parameters and softmax stay float32
REMAT_POLICY = "none"  # training recomputes "none", "minimal" or "full"; `ait-jax plan` compares
SCAN_LAYERS = True  # compile one layer and loop over it

MODEL = @llama.LlamaTransformer()
VOCABULARY = @tokenizers_vocabulary.TokenizersVocabulary()

llama.LlamaTransformer.config = @llama.LlamaConfig()
llama.LlamaConfig:
  vocab_size = {config.vocab_size}
  dtype = %ACTIVATION_DTYPE
  emb_dim = {config.emb_dim}
  num_heads = {config.num_heads}
  num_kv_heads = {config.num_kv_heads}
  head_dim = {config.head_dim}
  num_layers = {config.num_layers}
  mlp_dim = {config.mlp_dim}
  norm_epsilon = {config.norm_epsilon!r}
  rope_theta = {config.rope_theta!r}
  rope_scaling = {scaling}
  logits_via_embedding = {config.logits_via_embedding}
  attention_bias = {config.attention_bias}
  attention_output_bias = {config.attention_output_bias}
  max_position = {config.max_position}
  dropout_rate = %DROPOUT_RATE
  remat_policy = %REMAT_POLICY
  scan_layers = %SCAN_LAYERS
{scaling_values}
tokenizers_vocabulary.TokenizersVocabulary.path = %VOCABULARY_PATH
tokenizers_vocabulary.TokenizersVocabulary.chat = %CHAT
{chat_values}"""

_SCALING_VALUES = """
rotary.Llama3Scaling:
  factor = {scaling.factor}
  low_freq_factor = {scaling.low_freq_factor}
  high_freq_factor = {scaling.high_freq_factor}
  original_max_position = {scaling.original_max_position}
"""


def llama_gin(
    config: LlamaConfig, comment: str, checkpoint: Any, vocabulary: Any, special: SpecialTokens
) -> str:
    """Returns the gin file of a decoder-only model; see `t5_gin`.

    Args:
        special: its tokens, which show the form of its conversations.
    """
    chat, chat_values = "None", ""
    if "<|im_start|>" in special.chat_template and "<|im_start|>" in special.ids:
        system = SMOLLM2_SYSTEM if SMOLLM2_SYSTEM in special.chat_template else ""
        chat = "@chat_format.ChatML()"
        chat_values = f"chat_format.ChatML.system = {system!r}\n"
    elif "<|start_header_id|>" in special.chat_template and "<|start_header_id|>" in special.ids:
        chat = "@chat_format.Llama3Chat()"
    scaling = config.rope_scaling
    return _LLAMA_TEMPLATE.format(
        config=config,
        comment=" ".join(comment.split()),
        checkpoint=repr(str(checkpoint)),
        vocabulary=repr(str(vocabulary)),
        chat=chat,
        chat_values=chat_values,
        scaling="None" if scaling is None else "@rotary.Llama3Scaling()",
        scaling_values="" if scaling is None else _SCALING_VALUES.format(scaling=scaling),
    )
