"""A tiny LLaMA as its files come: tokenizer.json, a Hugging Face folder, GGUF."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from ait_jax.models import parameters
from ait_jax.models.llama import LlamaConfig, LlamaTransformer

needs_tokenizers = pytest.mark.skipif(
    importlib.util.find_spec("tokenizers") is None, reason="needs the package tokenizers"
)
needs_gguf = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gguf", "tokenizers")),
    reason="needs the packages gguf and tokenizers",
)
needs_torch = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="needs torch and transformers (Hugging Face's own LLaMA), absent here",
)

# As SmolLM2's: the end of a turn is not 1, and no token of its own pads.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": int(1e30),
    "chat_template": TEMPLATE,
}
TEXTS = [
    "Definition: In this task, you are given 2 numbers; say which is larger.\n\n",
    "  spaces   and\ttabs\n\n\n 12  345, 6.78 ½² Now complete the following example -\n",
    "Grüße aus 東京, \U0001f600\U0001f469‍\U0001f4bb "
    "\u0645\u0631\u062d\u0628\u0627 \u200b\ufb01 don't",
    "",
    "x",
]
ROWS = 384


def tokenizer_json():
    """Returns the content of a byte-level BPE tokenizer.json that splits digits as SmolLM2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - 20,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return tokenizer.to_str()


def write_tokenizer(folder, **changes):
    (folder / "tokenizer.json").write_text(tokenizer_json())
    settings = {k: v for k, v in {**SETTINGS, **changes}.items() if v is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def config_of(**changes):
    sizes = dict(
        vocab_size=ROWS, emb_dim=32, num_heads=4, num_kv_heads=2, head_dim=8, num_layers=2,
        mlp_dim=64, rope_theta=1000.0, max_position=256, logits_via_embedding=True,
    )  # fmt: skip
    return LlamaConfig(**{**sizes, **changes})


def random_params(config, seed=0):
    """Every value away from its initial one, or swapped norms would not show."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return random.normal(0, 0.2, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, parameters.abstract_params(LlamaTransformer(config))[0])


def write_gguf(path, tensors, config, **metadata):
    """Writes tensors under Hugging Face's names as llama.cpp's converter would: an independent way.

    Matrices are Q8_0 where their rows are long enough, and Q4_1 among the layers' first parts.

    Args:
        metadata: "architecture"; "model" and "pre" of the tokenizer.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

    tokenizer = json.loads(tokenizer_json())
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    architecture = metadata.get("architecture", "llama")
    writer = GGUFWriter(path, architecture)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_key_length(config.head_dim)
    writer.add_context_length(config.max_position)
    writer.add_embedding_length(config.emb_dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_tokenizer_model(metadata.get("model", "gpt2"))
    writer.add_tokenizer_pre(metadata.get("pre", "smollm"))
    writer.add_token_list(vocabulary)
    kinds = [TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in vocabulary]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    heads = heads if architecture in ("llama", "smollm3") else {}
    for name, array in tensors.items():
        part = name.split(".")[-2]
        values = np.ascontiguousarray(array)
        if architecture == "gemma3" and part.endswith("norm"):
            values = values + 1
        if part in heads:
            halves = values.reshape(heads[part], 2, -1, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        kind = GGMLQuantizationType.F32
        if array.ndim == 2:
            low = part in ("q_proj", "gate_proj")
            kind = GGMLQuantizationType.Q4_1 if low else GGMLQuantizationType.Q8_0
        writer.add_tensor(
            _gguf_name(name, config.norms), quants.quantize(values, kind), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name, norms):
    post = {"pre": "ffn_norm", "post": "post_attention_norm", "both": "post_attention_norm"}[norms]
    for theirs, ours in (
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
        ("model.layers", "blk"), ("input_layernorm", "attn_norm"),
        ("self_attn.o_proj", "attn_output"), ("post_attention_layernorm", post),
        ("pre_feedforward_layernorm", "ffn_norm"), ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.", "attn_"), ("mlp.", "ffn_"), ("_proj", ""),
    ):  # fmt: skip
        name = name.replace(theirs, ours)
    return name
