"""Answers in slots against answers in batches of similar length: T5, same weights and prompts.

    python tests/benchmarks/decoding.py [--prompts 32 128] [--answers 32 128x2.5] [--json FILE]

Random weights never end an answer: `--answers=32` decodes 32 tokens for every prompt. With
`128x2.5` end-of-sequence's row of the output layer is 2.5 times as large, so answers end at all
lengths up to 128. `--model_size=mini` answers the mini pool with the shipped weights instead.
Both ways take turns in one process; the table has the fastest of `--repeats`, compiled before.
"""

import argparse
import time
from typing import Any

import common
import numpy as np
import workload

WAYS = {"batches": False, "slots": True}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--answers", nargs="+", default=["32", "128x2.5"])
    parser.add_argument("--model_size", default="small", help="a name in gin/models")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    common.add_json_option(parser)
    return parser.parse_args()


def prompts_of(number: int, mini: bool) -> list[list[int]]:
    """Returns prompts of tasks that have the pool's spread of lengths, four of a task."""
    if mini:
        from ait_jax.tasks import mini as mini_pool

        pool = mini_pool.load_pool()
    else:
        pool = workload.choose(-(-number // 4)).pool
    prompts = [ids[0] for task in pool.values() for _, ids in workload.task_prompts(task, 4, 0)]
    return prompts[: number * (len(prompts) // number) : len(prompts) // number]


def params_of(model: Any, mini: bool, ending: float) -> Any:
    from ait_jax import assets
    from ait_jax.models.checkpoints.restore import restore_params
    from ait_jax.models.parameters import init_params
    from ait_jax.runtime.partitioning import Partitioner

    if mini:
        return restore_params(assets.mini_weights(), model, Partitioner()).params
    params = init_params(model, common.SEED)[0]
    output = params["decoder"]["logits_dense"]
    output["kernel"] = output["kernel"].at[:, 1].multiply(ending)
    return params


def measure(options: argparse.Namespace, number: int, answers: str) -> list[dict[str, Any]]:
    from ait_jax.models.t5 import Transformer
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.scorer.engine import Engine

    longest, _, ending = answers.partition("x")
    mini = options.model_size == "mini"
    model = Transformer(workload.t5_config(options.model_size, options.dtype))
    params = params_of(model, mini, float(ending or 1))
    prompts = prompts_of(number, mini)
    found: dict[str, dict[str, Any]] = {}
    engines = {
        way: Engine(model, Partitioner(), LengthBuckets(answer=int(longest)), in_slots=in_slots)
        for way, in_slots in WAYS.items()
    }
    for repeat in range(options.repeats + 1):
        for way, engine in engines.items():
            placed = engine.place(params)
            start = time.perf_counter(), time.process_time()
            decoded = engine.decode(placed, prompts)
            wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            row = found.setdefault(way, {"cold s": wall, "seconds": wall, "core seconds": cpu})
            if repeat:
                row["seconds"] = wall if repeat == 1 else min(wall, row["seconds"])
                row["core seconds"] = cpu if repeat == 1 else min(cpu, row["core seconds"])
            row["decoded"] = decoded
            print(f"{answers} {number} {way}: {wall:.2f} s, {cpu:.2f} core s", flush=True)
    plain, slots = (found[way].pop("decoded") for way in WAYS)
    lengths = list(map(len, slots.tokens))
    common_columns = {
        "prompts": number,
        "tokens": f"{min(lengths)} to {max(lengths)}, mean {np.mean(lengths):.1f}",
        "equal": f"{sum(a == b for a, b in zip(plain.tokens, slots.tokens, strict=True))}",
        "largest difference": float(np.abs(plain.log_likelihoods - slots.log_likelihoods).max()),
    }
    batches = found["batches"]["seconds"]
    return [
        {"way": way, **common_columns, **row, "times as fast": batches / row["seconds"]}
        for way, row in found.items()
    ]


def main() -> None:
    options = parse_options()
    machine = common.machine()
    print(common.describe_machine(machine))
    rows = [
        {"answers": answers, **row}
        for answers in options.answers
        for number in options.prompts
        for row in measure(options, number, answers)
    ]
    print(common.table(rows))
    if options.json:
        common.save(options.json, {"machine": machine, "results": rows})


if __name__ == "__main__":
    main()
