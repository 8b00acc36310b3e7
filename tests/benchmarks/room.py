"""How much choosing tasks could gain: random draws of tasks from one split, and their spread.

    python tests/benchmarks/room.py FOLDER [--draws 20] [--trainings 10] [--gin_file FILE ...]

Draws: whole runs with random tasks that differ in SEED; SPLIT_SEED, so round 0's tasks, is the
same. Their spread has two causes, the tasks and the training's own luck. Trainings: runs that
repeat the first draw's choices under other seeds, for the second cause alone. The rest is what
choice moves. The oracle takes, of m draws, the one that is best on dev tasks: what choosing by dev
scores would gain, with m times the training. Finished runs are kept; the same command continues.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

from ait_jax.compare import finished_runs, schedule
from ait_jax.compare.schedule import Job
from ait_jax.runtime import reporter

RESAMPLES = 10_000
FIRST_TRAINING_SEED = 1000


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=10)
    parser.add_argument("--split_seed", type=int, default=0)
    parser.add_argument("--gin_file", action="append", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3, help="as the experiment has")
    parser.add_argument("--processes", type=int, default=1)
    common.add_json_option(parser)
    return parser.parse_args()


def planned(options: argparse.Namespace) -> tuple[list[Job], list[Job]]:
    """Returns the draws and the trainings of the first of them."""
    shared = [f"--gin_file={file}" for file in options.gin_file or ["experiments/mini.gin"]]
    shared.append(f"--gin.SPLIT_SEED={options.split_seed}")

    def job(kind: str, seed: int, *arguments: str) -> Job:
        folder = options.folder / f"{kind}_{seed}"
        given = ("run", *shared, *arguments, f"--gin.SEED={seed}", f"--gin.MODEL_DIR={folder}")
        log = options.folder / "logs" / f"{folder.name}.log"
        return Job(kind, seed, folder, given, log, options.rounds, takes_scores=False)

    random = "--gin_file=strategies/random.gin"
    draws = [job("draw", seed, random) for seed in range(options.draws)]
    again = (
        "--gin_file=strategies/released.gin",
        f"--gin.RELEASED_LISTS={draws[0].folder}/round_00{{round}}",
    )
    seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.trainings)
    return draws, [job("training", seed, *again) for seed in seeds]


def scores(jobs: Sequence[Job], split: str) -> np.ndarray:
    """Returns ROUGE-L, float64 [runs, rounds]."""
    runs = [finished_runs.read(job.folder) for job in jobs]
    return np.array([[getattr(p, split)["overall"] for p in run.rounds] for run in runs])


def best_of(dev: np.ndarray, test: np.ndarray, count: int) -> float:
    """Returns the expected test score of the best on dev among `count` of the draws at random."""
    order = np.argsort(-dev, kind="stable")
    chances = [math.comb(len(dev) - 1 - rank, count - 1) for rank in range(len(dev))]
    return float(np.dot(chances, test[order]) / math.comb(len(dev), count))


def of_choice(draws: np.ndarray, trainings: np.ndarray) -> tuple[float, float, float]:
    """Returns the standard deviation that is the tasks' alone, with a 95% bootstrap interval."""
    generator = np.random.default_rng(0)

    def deviation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a.var(axis=-1, ddof=1) - b.var(axis=-1, ddof=1), 0))

    resampled = deviation(
        *(x[generator.integers(len(x), size=(RESAMPLES, len(x)))] for x in (draws, trainings))
    )
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(deviation(draws, trainings)), float(low), float(high)


def measure(draws: Sequence[Job], trainings: Sequence[Job]) -> list[dict[str, Any]]:
    test, dev = scores(draws, "test"), scores(draws, "dev")
    repeated = scores(trainings, "test")
    num_tasks = finished_runs.read(draws[0].folder).num_tasks
    found: list[dict[str, Any]] = []
    for i, tasks in enumerate(num_tasks):
        row: dict[str, Any] = {"tasks": tasks, "mean": test[:, i].mean()}
        row |= {"std_draws": test[:, i].std(ddof=1), "std_trainings": repeated[:, i].std(ddof=1)}
        row["std_choice"] = of_choice(test[:, i], repeated[:, i])
        row["dev_test_correlation"] = float(np.corrcoef(dev[:, i], test[:, i])[0, 1])
        row["best_of"] = {
            m: best_of(dev[:, i], test[:, i], m) for m in sorted({min(4, len(draws)), len(draws)})
        }
        row["best_on_test"] = test[:, i].max()
        found.append(row)
    return found


def row_of(found: dict[str, Any]) -> dict[str, Any]:
    of_choice, low, high = found["std_choice"]
    mean = found["mean"]
    best = {f"best on dev of {m}": f"{v - mean:+.2f}" for m, v in found["best_of"].items()}
    return {
        "tasks": found["tasks"],
        "mean": f"{mean:.2f}",
        "sd of draws": f"{found['std_draws']:.2f}",
        "sd of trainings": f"{found['std_trainings']:.2f}",
        "sd of choice [95%]": f"{of_choice:.2f} [{low:.2f}, {high:.2f}]",
        **best,
        "best on test": f"{found['best_on_test'] - mean:+.2f}",
        "dev and test correlate": f"{found['dev_test_correlation']:.2f}",
    }


def main() -> int:
    options = parse_options()
    draws, trainings = planned(options)
    (options.folder / "logs").mkdir(parents=True, exist_ok=True)
    reporter.say(f"{len(draws)} draws, {len(trainings)} trainings of the first")
    failed = schedule.run(draws, options.processes) + schedule.run(trainings, options.processes)
    if failed:
        print(f"{len(failed)} runs failed, such as {failed[0].name}: {failed[0].log}")
        return 3
    found = measure(draws, trainings)
    print(common.table([row_of(row) for row in found]))
    if options.json:
        common.save(options.json, {"rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
