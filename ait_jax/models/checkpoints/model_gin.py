"""The gin file of a model, as those in gin/models."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ait_jax.models.interface import gin_name
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
{fields}
vocabulary.Vocabulary.path = %VOCABULARY_PATH
vocabulary.Vocabulary.extra_ids = {extra_ids}
"""
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
{fields}
tokenizers_vocabulary.TokenizersVocabulary.path = %VOCABULARY_PATH
tokenizers_vocabulary.TokenizersVocabulary.chat = %CHAT
{chat_values}"""


def t5_gin(config: T5Config, comment: str, checkpoint: Any, vocabulary: Any, extra_ids: int) -> str:
    """Returns a gin file to give after an experiment's, as --gin_file=experiments/score.gin.

    Args:
        comment: the first line, without line ends.
        vocabulary: VOCABULARY_PATH; None leaves it to be given.
        extra_ids: the vocabulary's sentinels.
    """
    return _T5_TEMPLATE.format(
        **_common(config, comment, checkpoint, vocabulary),
        fields=_bindings(gin_name(config), _fields(config)),
        extra_ids=extra_ids,
    )


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
    elif "<start_of_turn>" in special.chat_template and "<start_of_turn>" in special.ids:
        chat = "@chat_format.GemmaChat()"
    fields = {**_fields(config), "max_position": config.max_position}
    fields |= {"remat_policy": "%REMAT_POLICY", "scan_layers": "%SCAN_LAYERS"}
    scaling = ""
    if config.rope_scaling is not None:
        kind = f"rotary.{type(config.rope_scaling).__name__}"
        fields["rope_scaling"] = f"@{kind}()"
        scaling = "\n" + _bindings(kind, dataclasses.asdict(config.rope_scaling))
    return _LLAMA_TEMPLATE.format(
        **_common(config, comment, checkpoint, vocabulary),
        fields=_bindings(gin_name(config), fields) + scaling,
        chat=chat,
        chat_values=chat_values,
    )


def _common(config: Any, comment: str, checkpoint: Any, vocabulary: Any) -> dict[str, Any]:
    return {
        "config": config,
        "comment": " ".join(comment.split()),
        "checkpoint": repr(str(checkpoint)),
        "vocabulary": "%gin.REQUIRED" if vocabulary is None else repr(str(vocabulary)),
    }


def _fields(config: T5Config | LlamaConfig) -> dict[str, Any]:
    return {**config.network(), "dtype": "%ACTIVATION_DTYPE", "dropout_rate": "%DROPOUT_RATE"}


def _bindings(name: str, values: Mapping[str, Any]) -> str:
    def shown(value: Any) -> Any:
        is_text = isinstance(value, str) and not value.startswith(("%", "@"))
        return repr(value) if is_text else value

    return f"{name}:\n" + "".join(f"  {field} = {shown(v)}\n" for field, v in values.items())
