"""Our parameters in Hugging Face's torch T5."""

import jax
import numpy as np

from ait_jax.models.checkpoints import hugging_face as folders


def hugging_face_model(params, config):
    """Returns a float32 torch T5ForConditionalGeneration that computes what our model does."""
    import torch
    import transformers

    tied = config.logits_via_embedding
    settings = folders.to_settings(config, "float32")
    # transformers 5 reads whether to scale the output from this, and ties all the same.
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings)).eval()
    if not tied:
        # transformers 5 ties the output layer of every T5 that is not read from a file.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    state = folders.to_tensors(jax.tree.map(np.asarray, params), config)
    state = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied_names = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if unexpected or not set(missing) <= tied_names:
        raise ValueError(f"names that do not fit: missing {missing}, unexpected {unexpected}")
    return model
