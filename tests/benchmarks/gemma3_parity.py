"""Gemma 3 270M here and in transformers: tokens of prompts, log-likelihoods of references, float32.

    python tests/benchmarks/gemma3_parity.py [--tasks 20] [--model FILE.gguf] [--json FILE]

Real tasks of NIV2 where they are at hand, two instances of each. Both sides read the same GGUF
file. Needs torch, transformers, gguf, tokenizers, and Gemma's parts (`packaged.gemma3_weights`).
"""

import argparse
from pathlib import Path
from typing import Any

import common
import numpy as np
import workload

INSTANCES = 2
MOST_TOKENS, MOST_ANSWER_TOKENS = 700, 32


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--model", help="the GGUF file; default: joined from the packages")
    common.add_json_option(parser)
    return parser.parse_args()


def ours(path: str, tasks: int) -> tuple[list[str], list[Any], list[Any], np.ndarray]:
    """Returns prompts as text and ids, targets, and their mean log-likelihoods."""
    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.llama import LlamaTransformer
    from ait_jax.prompts.prompts import TkInstructEncoding
    from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.scorer.asker import Asker
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.scorer.engine import Engine

    opened, words = open_checkpoint(path), TokenizersVocabulary(path)
    buckets = LengthBuckets((128, 256, 512, MOST_TOKENS), (MOST_ANSWER_TOKENS,))
    engine = Engine(LlamaTransformer(opened.config), Partitioner(), buckets, 4096)
    pool, encoding = workload.choose(tasks).pool, TkInstructEncoding(MOST_TOKENS)
    asker = Asker(engine, engine.place(opened.load()), pool, words, encoding, common.SEED)
    places = [(name, i) for name in pool for i in pool[name].instances[:INSTANCES]]
    texts = [asker.prompt_of(*place) for place in places]
    prompts = [words.encode_source(text, MOST_TOKENS) for text in texts]
    targets = [asker.target_of(instance.outputs[0]) for _, instance in places]
    return texts, prompts, targets, engine.log_likelihoods(asker.params, prompts, targets)


def theirs(path: Path, texts: list[str], prompts: list[Any], targets: list[Any]) -> Any:
    """Returns transformers' mean log-likelihoods, and how many texts it tokenizes alike."""
    import torch
    import transformers

    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    words = transformers.AutoTokenizer.from_pretrained(**source)
    alike = sum(
        words(text).input_ids[:MOST_TOKENS] == list(ids)
        for text, ids in zip(texts, prompts, strict=True)
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    values = []
    with torch.inference_mode():
        for prompt, target in zip(prompts, targets, strict=True):
            logits = model(torch.tensor([[*prompt, *target[:-1]]])).logits[0, len(prompt) - 1 :]
            log_p = torch.log_softmax(logits, -1)[torch.arange(len(target)), torch.tensor(target)]
            values.append(float(log_p.mean()))
    return np.array(values), alike


def main() -> None:
    from ait_jax.models.checkpoints import packaged

    options = parse_options()
    common.require_torch("gguf", "tokenizers")
    path = Path(options.model or packaged.gemma3_weights())
    texts, prompts, targets, values = ours(str(path), options.tasks)
    reference, alike = theirs(path, texts, prompts, targets)
    gaps = np.abs(values - reference)
    result = {
        "prompts": len(prompts),
        "tokens a prompt": float(np.mean([len(prompt) for prompt in prompts])),
        "tokenized alike": alike,
        "mean log-likelihood": float(reference.mean()),
        "mean difference": float(gaps.mean()),
        "largest": float(gaps.max()),
    }
    print(common.table([{name: f"{value:.3g}" for name, value in result.items()}]))
    if options.json:
        common.save(options.json, {"machine": common.machine(), **result})


if __name__ == "__main__":
    main()
