"""This library and what a user would pick instead: scoring and training, side by side.

    python tests/benchmarks/rivals.py [--parts scoring training] [--repeats 3] [--markdown FILE]
    python tests/benchmarks/rivals.py --quick    # a tiny model, to see that it works

Scoring: greedy answers to the original prompts, then teacher forcing of all k + 1 prompts, here, in
CTranslate2 (float32 and int8) and in transformers. Training: AdamW on real prompts with their
reference outputs, here and in transformers. All sides have the same random T5 1.1, prompts and
number of threads. Every measurement runs in a process of its own, one after the other, and so again
for every repeat: a machine's slow minutes meet all sides.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import rival_scoring
import rival_tables
import rival_training
import workload

PARTS = ("scoring", "training")
SIDES = {
    "scoring": ("ait-jax", "ctranslate2-float32", "ctranslate2-int8", "transformers"),
    "training": ("ait-jax", "transformers"),
}
QUICK = {
    "model_size": "mini", "repeats": 1, "tasks": 2, "instances": 2, "perturbations": 2,
    "training_tasks": 8, "batch_size": 4, "steps": 6, "dropouts": [0.0],
}  # fmt: skip


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--sides", nargs="+", default=SIDES["scoring"], choices=SIDES["scoring"])
    parser.add_argument("--repeats", type=int, default=3, help="of all sides, in turn")
    parser.add_argument("--threads", type=int, help="cores of every side; default: all")
    parser.add_argument("--model_size", default="small", help="a name in gin/models")
    parser.add_argument("--quick", action="store_true", help="other defaults: minutes, no figures")
    parser.add_argument(
        "--natural_instructions", metavar="FOLDER", default=workload.NIV2_TASKS, type=Path,
        help="NIV2's tasks; the built-in pool where it is absent",
    )  # fmt: skip
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--tasks", type=int, default=8, help="spread over the pool by length")
    scoring.add_argument("--instances", type=int, default=4, help="n, of every task")
    scoring.add_argument("--perturbations", type=int, default=10, help="k")
    scoring.add_argument("--answer_tokens", type=int, default=12, help="of every answer")
    scoring.add_argument("--tokens_per_batch", type=int, help="ours; default: the engine's own")
    scoring.add_argument(
        "--ctranslate2_workers", type=int, help="that share the threads; default: one a thread"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--training_tasks", type=int, default=64, help="spread in the same way")
    training.add_argument("--steps", type=int, default=30, help="of every measurement")
    training.add_argument("--curve", type=int, metavar="STEPS", help="also train longer, once")
    training.add_argument("--batch_size", type=int, default=8)
    training.add_argument("--dropouts", type=float, nargs="+", default=[0.0, 0.1])
    training.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--markdown", metavar="FILE", help="write the tables to FILE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    common.add_json_option(parser)
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    options.threads = options.threads or cores
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads={options.threads}: this process may use 1 to {cores} cores")
    options.ctranslate2_workers = options.ctranslate2_workers or options.threads
    if options.threads % options.ctranslate2_workers:
        parser.error("--ctranslate2_workers must divide --threads")
    if options.steps <= rival_training.WARM_UP:
        parser.error(f"--steps must be above {rival_training.WARM_UP}, which warm up")
    if options.curve and options.curve <= options.steps:
        parser.error("--curve must be above --steps")


# --- one measurement in one process ---


def measure(options: argparse.Namespace) -> Any:
    """Measures what `--measure WHAT[,SIDE[,DROPOUT,STEPS]]` names."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    what, *others = options.measure.split(",")
    if what == "prepare":
        return prepare(options)
    if what == "peak":
        return peaks(options.threads)
    if what == "scoring":
        return rival_scoring.measure(options, *others, options.folder)
    side, dropout, steps = others
    return rival_training.measure(options, side, float(dropout), int(steps), options.folder)


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Writes models, prompts and examples; returns what the tables say of them."""
    rival_scoring.write_models(options, options.folder)
    prepares = {"scoring": rival_scoring.prepare, "training": rival_training.prepare}
    return {part: prepares[part](options, options.folder) for part in options.parts}


def peaks(threads: int) -> dict[str, float]:
    """Returns FLOP/s of the best large float32 product of either library."""
    import torch

    torch.set_num_threads(threads)
    size = 1536
    a = torch.ones((size, size))
    with torch.inference_mode():
        of_torch = common.fastest(lambda: a @ a, 2.0 * size**3, seconds=1.0)
    return {"jax": common.jax_matmul_peak("float32"), "torch": of_torch}


# --- the comparison ---


def compare(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Returns everything measured."""
    machine = common.machine()
    threads = str(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            # Repeats find the programs of the first one, whose compilation counts.
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
        }

        def run(*what: Any) -> Any:
            measured = [f"--measure={','.join(map(str, what))}", f"--folder={folder}"]
            return common.measure_apart(__file__, [*arguments, *measured], **environment)

        prepared = run("prepare")
        results, found_peaks = [], []
        for repeat in range(options.repeats):
            found_peaks.append(run("peak"))
            for labels in measurements(options):
                result = {**run(*labels.values()), **labels, "repeat": repeat}
                # Said at once: the others may take long, or not come to an end.
                print(rival_tables.line(result), flush=True)
                results.append(result)
        curves = [{**run(*labels.values()), **labels} for labels in curves_of(options)]
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in ("measure", "folder", "result", "json", "markdown")
    }
    return {
        "machine": machine,
        "settings": settings,
        "prepared": prepared,
        "peaks": found_peaks,
        "results": results,
        "curves": curves,
    }


def measurements(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns what a repeat measures, in order: the sides of a comparison one after the other."""
    found: list[dict[str, Any]] = []
    if "scoring" in options.parts:
        found += [{"part": "scoring", "side": side} for side in _sides(options, "scoring")]
    if "training" in options.parts:
        found += _trainings(options, options.steps)
    return found


def curves_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the longer trainings, which are made once."""
    if not options.curve or "training" not in options.parts:
        return []
    return _trainings(options, options.curve)


def _trainings(options: argparse.Namespace, steps: int) -> list[dict[str, Any]]:
    return [
        {"part": "training", "side": side, "dropout": dropout, "steps": steps}
        for dropout in options.dropouts
        for side in _sides(options, "training")
    ]


def _sides(options: argparse.Namespace, part: str) -> list[str]:
    return [side for side in SIDES[part] if side in options.sides]


def main() -> None:
    options = parse_options()
    common.require_torch(*(["ctranslate2"] if "scoring" in options.parts else []))
    workload.NIV2_TASKS = options.natural_instructions
    if options.measure:
        common.save(options.result, measure(options))
        return
    report = compare(options, sys.argv[1:])
    text = rival_tables.markdown(report)
    print(f"\n{text}")
    common.warn_if_shared(report["results"])
    if options.markdown:
        Path(options.markdown).write_text(text)
    if options.json:
        common.save(options.json, report)


if __name__ == "__main__":
    main()
