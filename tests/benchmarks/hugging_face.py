"""Our parameters in Hugging Face's torch T5."""

import jax
import numpy as np


def hugging_face_state(params, config):
    """Our parameters under Hugging Face's T5 names, as torch-shaped numpy arrays."""
    state = {"shared.weight": params["token_embedder"]["embedding"]}
    kernels = {"query": "q", "key": "k", "value": "v", "out": "o"}
    for stack, num_layers, sublayers in (
        (
            "encoder",
            config.num_encoder_layers,
            (("attention", "SelfAttention", "pre_attention_layer_norm"),),
        ),
        (
            "decoder",
            config.num_decoder_layers,
            (
                ("self_attention", "SelfAttention", "pre_self_attention_layer_norm"),
                ("encoder_decoder_attention", "EncDecAttention", "pre_cross_attention_layer_norm"),
            ),
        ),
    ):
        state[f"{stack}.final_layer_norm.weight"] = params[stack][f"{stack}_norm"]["scale"]
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        state[first] = params[stack]["relpos_bias"]["rel_embedding"].T
        for index in range(num_layers):
            layer, block = params[stack][f"layers_{index}"], f"{stack}.block.{index}.layer"
            for number, (ours, theirs, norm) in enumerate(sublayers):
                state[f"{block}.{number}.layer_norm.weight"] = layer[norm]["scale"]
                for kernel, letter in kernels.items():
                    state[f"{block}.{number}.{theirs}.{letter}.weight"] = layer[ours][kernel][
                        "kernel"
                    ].T
            number = len(sublayers)
            state[f"{block}.{number}.layer_norm.weight"] = layer["pre_mlp_layer_norm"]["scale"]
            for name, kernel in layer["mlp"].items():
                state[f"{block}.{number}.DenseReluDense.{name}.weight"] = kernel["kernel"].T
    if not config.logits_via_embedding:
        state["lm_head.weight"] = params["decoder"]["logits_dense"]["kernel"].T
    return state


def hugging_face_model(params, config):
    """Returns a float32 torch T5ForConditionalGeneration that computes what our model does."""
    import torch
    import transformers

    gated = len(config.mlp_activations) > 1
    tied = config.logits_via_embedding
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config.vocab_size,
            d_model=config.emb_dim,
            d_kv=config.head_dim,
            d_ff=config.mlp_dim,
            num_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            num_heads=config.num_heads,
            feed_forward_proj=("gated-" if gated else "") + config.mlp_activations[0],
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    ).eval()
    if not tied:
        # transformers 5 ties the output layer of every T5 that is not read from a file.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    state = hugging_face_state(jax.tree.map(np.asarray, params), config)
    state = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied_names = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if unexpected or not set(missing) <= tied_names:
        raise ValueError(f"names that do not fit: missing {missing}, unexpected {unexpected}")
    return model
