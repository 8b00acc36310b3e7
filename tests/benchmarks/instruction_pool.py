"""A pool of Self-Instruct's size: preparing it, opening it, the loop's bookkeeping.

    python tests/benchmarks/instruction_pool.py [--instructions 52000] [--instances 82000]

The file is synthetic, of all_instances_82K.jsonl's sizes and schema. Each step runs in a process
of its own, so that its memory is its own: "open" reads nothing but the pool; "loop" is all that a
run does with names and splits in the paper's schedule (500 tasks, then 1,000 to 16,000), scores
drawn at random in place of a model's.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from growth import MANNERS, OBJECTS, VERBS, WORDS

from ait_jax import randomness

SCHEDULE = (500, 1000, 2000, 4000, 8000)
INITIAL_TASKS = 500
STEPS = ("prepare", "open", "fingerprint", "labels", "read", "loop", "examples", "seqio")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instructions", type=int, default=52_000)
    parser.add_argument("--instances", type=int, default=82_000)
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--folder", help="where to work; a temporary folder by default")
    parser.add_argument("--measure", choices=STEPS, help=argparse.SUPPRESS)
    common.add_json_option(parser)
    return parser.parse_args()


def write_rows(path: Path, num_instructions: int, num_instances: int) -> None:
    """Writes rows: instructions of about 15 words, 40% of them without input."""

    def words(low: int, high: int, *key: Any) -> str:
        length = randomness.integer(low, high, "instruction pool", *key)
        seed = randomness.stable_hash("instruction pool words", *key)
        return " ".join(
            WORDS[(seed >> (3 * (i % 20))) % len(WORDS)] + "s" * (i % 7 == 3) for i in range(length)
        )

    with path.open("w") as file:
        for number in range(num_instances):
            i = number % num_instructions
            what = f"{VERBS[i % 8]} the {OBJECTS[i // 8 % 8]} {MANNERS[i // 64 % 8]}"
            instruction = f"{what}, number {i}: {words(3, 12, i)}."
            has_input = i % 5 > 1 or number >= num_instructions
            row = {
                "instruction": instruction,
                "input": f"{number}: {words(5, 60, number, 'input')}" if has_input else "",
                "output": words(1, 80, number, "output"),
            }
            file.write(json.dumps(row) + "\n")


def measure(step: str, folder: Path) -> dict[str, Any]:
    """Runs one step in this process: its seconds, without imports, and the peak memory."""
    from ait_jax.tasks import self_instruct

    if step == "prepare":
        return timed(lambda: self_instruct.prepare(str(folder / "rows.jsonl"), folder / "data"))
    if step == "open":
        return timed(lambda: self_instruct.load_pool(folder / "data"))
    pool = self_instruct.load_pool(folder / "data")
    if step == "loop":
        return rounds(pool, folder / "run")
    if step == "examples":
        return training_examples(pool)
    if step == "seqio":
        return seqio_selection(pool)
    work = {
        "fingerprint": pool.fingerprint,
        "labels": lambda: [pool.is_cls(name) for name in pool],
        "read": lambda: sum(1 for task in pool.values() for _ in task.instances),
    }[step]
    return timed(work)


def timed(work: Any) -> dict[str, Any]:
    start = time.perf_counter()
    work()
    return finished(start)


def finished(start: float, **more: Any) -> dict[str, Any]:
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": round(seconds, 2),
        "CPU seconds of the process": round(time.process_time(), 2),
        "peak MiB": round(peak),
        **more,
    }


def rounds(pool: Any, folder: Path) -> dict[str, Any]:
    """Initial splits, and per round: split files, selection, task map's categories, next splits."""
    import numpy as np

    from ait_jax.pool.initial import Drawn
    from ait_jax.pool.splits import Splits, read_splits, write_splits
    from ait_jax.selection import Key, Quotas, SelectionContext, TaskScores, select, task_map
    from ait_jax.selection.selection import PromptUncertainty

    start = time.perf_counter()
    splits, _ = Drawn(INITIAL_TASKS, dev_tasks=0).draw(pool, seed=0)
    drawn = time.perf_counter() - start
    write_splits(folder / "round_000", splits)
    for number, size in enumerate(SCHEDULE):
        splits = read_splits(folder / f"round_{number:03d}")
        rng = np.random.default_rng(number)
        columns = TaskScores.unscored(splits.remain).columns()
        for name in set(columns) - {"task", "num_instances", "num_prompts"}:
            columns[name] = list(rng.random(len(splits.remain)))
        scores = TaskScores.from_columns(columns)
        context = SelectionContext(scores, pool, Quotas(size), Key(0, number))
        chosen = select(PromptUncertainty(), context)
        task_map.classify(context)
        picked = set(chosen.tasks)
        write_splits(
            folder / f"round_{number + 1:03d}",
            Splits(
                splits.train + chosen.tasks,
                [n for n in splits.remain if n not in picked],
                (),
                splits.test,
            ),
        )
    return finished(start, initial_splits=round(drawn, 2), tasks=len(splits.train) + SCHEDULE[-1])


def training_examples(pool: Any) -> dict[str, Any]:
    """The last round's 16,000 tasks as the trainer's examples, the first 1,000 tokenized."""
    from ait_jax import assets
    from ait_jax.prompts import prompts
    from ait_jax.prompts.vocabulary import Vocabulary
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.trainer.examples import InstructionExamples

    start = time.perf_counter()
    examples = InstructionExamples(
        pool,
        list(pool)[:16_000],
        max_instances_per_task=1,
        vocabulary=Vocabulary(assets.mini_vocabulary()),
        encoding=prompts.AlpacaEncoding(max_source_length=512),
        buckets=LengthBuckets((512,), (128,)),
        seed=0,
    )
    made = time.perf_counter() - start
    for index in range(min(1000, len(examples))):
        examples[index]
    return finished(start, list_examples=round(made, 2), examples=len(examples))


def seqio_selection(pool: Any) -> dict[str, Any]:
    """Registers the pool with SeqIO and reads 1,000 examples of all its training tasks."""
    import seqio
    from ait_jax.tasks import registry

    from ait_jax import assets
    from ait_jax.prompts import prompts

    start = time.perf_counter()
    registry.register(
        pool, "benchmark", vocabulary=assets.mini_vocabulary(), encoding=prompts.AlpacaEncoding()
    )
    made = time.perf_counter() - start
    names = [name for name in seqio.TaskRegistry.names() if name.startswith("benchmark")]
    dataset = seqio.get_mixture_or_task("benchmark_default_train").get_dataset(
        sequence_length={"inputs": 512, "targets": 128}, split="train", shuffle=True, seed=0
    )
    count = sum(1 for _ in dataset.take(1000).as_numpy_iterator())
    return finished(start, register=round(made, 2), seqio_tasks=len(names), read=count)


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure(options.measure, Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "rows.jsonl", options.instructions, options.instances)
        rows = []
        for step in options.steps:
            command = [sys.executable, __file__, "--measure", step, "--folder", str(folder)]
            output = subprocess.run(command, capture_output=True, text=True)
            if output.returncode:
                sys.exit(output.stderr)
            figures = json.loads(output.stdout.splitlines()[-1])
            print(f"{step}: {figures}", flush=True)
            rows.append({"step": step, **figures})
    print(common.describe_machine(common.machine()))
    if options.json:
        common.save(options.json, {"machine": common.machine(), "rows": rows})


if __name__ == "__main__":
    main()
