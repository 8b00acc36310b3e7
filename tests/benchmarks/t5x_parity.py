"""The embedded trainer and T5X side by side: losses and step time.

    python tests/benchmarks/t5x_parity.py [--steps 200] [--json FILE]

The mini model from its shipped weights, on tasks of the built-in pool, with Adafactor on
both sides: the same examples in the same order, padded to the same lengths. The last row is the
embedded trainer as it runs otherwise, with batches padded to the nearest of several lengths: what
its losses differ from the first row's is rounding alone.
Needs T5X (see T5X in the README). Every side runs in a process of its own, one after the other.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common

SIDES = (
    "embedded",
    "T5X, our network",
    "T5X, its own network",
    "embedded, lengths to fit",
)
# Steps that are left out of the step time: compilation, and threads that fill their buffers.
WARM_UP = 20
# A third of experiments/mini.gin's: differences of rounding grow slower.
LEARNING_RATE = 5e-3


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=96, help="of the built-in pool")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    common.add_json_option(parser)
    options = parser.parse_args()
    if options.steps <= WARM_UP + 1:
        parser.error(f"--steps must be above {WARM_UP + 1}")
    return options


def trainer_of(side: str, options: argparse.Namespace) -> Any:
    from ait_jax.trainer import t5x
    from ait_jax.trainer.embedded import EmbeddedTrainer
    from ait_jax.trainer.optimizer import adafactor, constant_with_warmup

    settings = {
        "batch_size": options.batch_size,
        "epochs": None,
        "steps": options.steps,
        "optimizer": adafactor,
        "schedule": constant_with_warmup(LEARNING_RATE, 20),
        "checkpoint_period": options.steps,
        "log_period": 1,
    }
    if side.startswith("embedded"):
        return EmbeddedTrainer(**settings)
    return t5x.T5XTrainer(**settings, network="t5x" if "its own" in side else "ait_jax")


def examples_of(side: str, options: argparse.Namespace) -> Any:
    from ait_jax.tasks import mini

    from ait_jax import assets
    from ait_jax.prompts.prompts import TkInstructEncoding
    from ait_jax.prompts.vocabulary import Vocabulary
    from ait_jax.scorer.batching import LengthBuckets
    from ait_jax.trainer.examples import InstructionExamples

    pool = mini.load_pool()
    inputs = (96, 112, 128, 160) if "to fit" in side else (160,)
    examples = InstructionExamples(
        pool,
        pool.splits.remain[:: len(pool.splits.remain) // options.tasks][: options.tasks],
        max_instances_per_task=24,
        vocabulary=Vocabulary(assets.mini_vocabulary()),
        encoding=TkInstructEncoding(max_source_length=160),
        buckets=LengthBuckets(inputs=inputs, targets=(16,)),
        seed=common.SEED,
    )
    for index in range(len(examples)):  # Tokenized before the clock runs.
        examples[index]
    return examples


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns losses and the seconds of every step after the warm-up."""
    import numpy as np

    from ait_jax import assets
    from ait_jax.models.checkpoints.checkpoints import open_checkpoint
    from ait_jax.models.parameters import flatten
    from ait_jax.models.t5 import T5Config, Transformer
    from ait_jax.runtime import reporter
    from ait_jax.runtime.partitioning import Partitioner
    from ait_jax.trainer.interface import TrainingJob

    model = Transformer(
        T5Config(
            vocab_size=4096,
            emb_dim=128,
            num_heads=4,
            num_encoder_layers=4,
            num_decoder_layers=3,
            head_dim=32,
            mlp_dim=384,
            mlp_activations=("gelu", "linear"),
            dropout_rate=0.0,
            logits_via_embedding=True,
        )
    )
    examples = examples_of(side, options)
    stamps: list[float] = []
    watches: list[common.Stopwatch] = []

    def note(line: str) -> None:
        stamps.append(time.perf_counter())
        if len(stamps) == WARM_UP:
            watches.append(common.Stopwatch())

    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            examples,
            open_checkpoint(assets.mini_weights()).load(),
            Path(folder),
            model,
            Partitioner(),
            common.SEED,
        )
        with reporter.using(reporter.Reporter(line=note)):
            trained = trainer_of(side, options).train(job)
        cores = watches[0].read()
        lines = [json.loads(s) for s in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    seconds = [b - a for a, b in zip(stamps[WARM_UP:], stamps[WARM_UP + 1 :], strict=True)]
    return {
        "side": side,
        "losses": [line["loss"] for line in lines],
        "step_seconds": statistics.median(seconds),
        "cores_used": cores["cores_used"],
        "cores_of_others": cores["cores_of_others"],
        "param_norm": float(
            np.sqrt(
                sum(
                    np.sum(np.square(np.asarray(x, np.float64)))
                    for x in flatten(trained.params).values()
                )
            )
        ),
    }


def table_row(result: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    losses, base = result["losses"], first["losses"]
    differences = [abs(a - b) for a, b in zip(losses, base, strict=True)]
    chosen = {f"loss {step}": losses[step - 1] for step in (1, 50, 100, 200) if step <= len(losses)}
    return {
        "side": result["side"],
        **chosen,
        **{f"difference to {n}": max(differences[:n]) for n in (20, 50, 200) if n <= len(losses)},
        "step ms": result["step_seconds"] * 1000,
        "of embedded": result["step_seconds"] / first["step_seconds"],
        "cores used": result["cores_used"],
        "by others": result["cores_of_others"],
    }


def main() -> None:
    options = parse_options()
    if options.side:
        common.save(options.result, measure(options.side, options))
        return
    results = []
    for side in SIDES:
        arguments = [
            f"--side={side}",
            f"--steps={options.steps}",
            f"--batch_size={options.batch_size}",
            f"--tasks={options.tasks}",
        ]
        results.append(common.measure_apart(__file__, arguments))
    machine = common.machine()
    print(f"\n{common.describe_machine(machine)}")
    print(
        f"{options.steps} steps of {options.batch_size} examples; the largest difference of a "
        "step's loss from the first row's, up to a step; the median time of a step.\n"
    )
    print(common.table([table_row(result, results[0]) for result in results]))
    common.warn_if_shared(results)
    if options.json:
        settings = {
            "steps": options.steps,
            "batch_size": options.batch_size,
            "tasks": options.tasks,
        }
        common.save(options.json, {"machine": machine, "settings": settings, "sides": results})


if __name__ == "__main__":
    main()
