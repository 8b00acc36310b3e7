"""What racing saves on tables of real scores, and how often it selects something else.

    python tests/benchmarks/racing.py runs/*/round_00?/likelihoods.parquet [--json FILE]

Every table (complete, as written without racing) is raced `--repeats` times, each time with
the perturbations of every task in another order: they are independent draws, so every order
is as good a sample. With `--resample 620` populations of that size are drawn from all tables
together: a task, a bootstrap of its instances, an order of its perturbations. Such a
population is larger than the real ones, but not more varied.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ait_jax.pool.cls_gen import Group
from ait_jax.scorer.likelihoods import read_likelihoods
from ait_jax.scorer.partial_scores import prompt_order
from ait_jax.scorer.racing import Race, Racing
from ait_jax.selection.selection import PromptUncertainty
from ait_jax.selection.uncertainty import prompt_uncertainty

HEADER = (
    "source                                tasks  quota      full     raced  factor  original"
    "   equal  worst  differ   bound"
)
ROW = (
    "{source:36s} {tasks:6d} {quota:6d} {full:9d} {raced:9.0f} {factor:7.2f} {original:9.2f}"
    " {equal:7.2f} {worst:6d} {differ:7.2f} {bound:7.4f}"
)
LEGEND = """\
full, raced: passes under perturbed prompts; factor: the quotient; original: the quotient with
the passes under the original prompt on both sides; equal: tasks that the full computation
selects too, mean and worst race; differ: share of races with another selection; bound: what
the races said it is at most"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, help="complete likelihoods.parquet files")
    parser.add_argument("--select", nargs="+", type=float, default=[0.11, 0.38], help="shares")
    parser.add_argument("--direction", choices=("high", "low"), default="high")
    parser.add_argument("--waves", nargs="+", type=int, default=list(Racing.waves))
    parser.add_argument("--error", type=float, default=Racing.error)
    parser.add_argument("--repeats", type=int, default=10, help="orders of the perturbations")
    parser.add_argument("--resample", type=int, default=0, help="tasks of a drawn population")
    parser.add_argument("--instances", type=int, help="of every task, drawn anew in every race")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


def shuffled(
    matrix: np.ndarray, num_instances: int | None, generator: np.random.Generator
) -> np.ndarray:
    """Returns float64[n, k + 1]: random instances, and the perturbations in another order."""
    rows = generator.permutation(len(matrix))[:num_instances]
    return matrix[rows][:, [0, *(1 + generator.permutation(matrix.shape[1] - 1))]]


def bootstrap(matrices: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Returns float64[n, k + 1] of a random task with n of its instances, with replacement."""
    matrix = matrices[generator.integers(len(matrices))]
    return matrix[generator.integers(len(matrix), size=len(matrix))]


def race(matrices: Sequence[np.ndarray], quota: int, arguments: argparse.Namespace):
    """Returns the finished race's report and how many of its tasks the full scores select."""
    table = {f"t{index:06d}": matrix for index, matrix in enumerate(matrices)}
    running = Race(
        Racing(arguments.waves, arguments.error),
        PromptUncertainty(direction=arguments.direction),
        [Group("all", tuple(table), quota)],
        matrices[0].shape[1] - 1,
    )
    while running.next_wave():
        running.record(table)
    sign = -1 if arguments.direction == "high" else 1
    full = sorted(table, key=lambda task: (sign * prompt_uncertainty(table[task]), task))[:quota]
    return running.report(), sum(running.verdicts[task] == "in" for task in full)


def measure(
    source: str,
    draw: Callable[[np.random.Generator], Sequence[np.ndarray]],
    share: float,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Returns one row: the mean of `--repeats` races."""
    reports, equal = [], []
    for repeat in range(arguments.repeats):
        generator = np.random.default_rng(repeat)
        matrices = [shuffled(matrix, arguments.instances, generator) for matrix in draw(generator)]
        quota = round(share * len(matrices))
        report, same = race(matrices, quota, arguments)
        reports.append(report)
        equal.append(same)
    raced = float(np.mean([report.passes for report in reports]))
    full = reports[0].full_passes
    originals = sum(map(len, matrices))
    return {
        "source": source,
        "tasks": len(matrices),
        "quota": quota,
        "full": full,
        "raced": raced,
        "factor": full / raced,
        "original": (full + originals) / (raced + originals),
        "equal": float(np.mean(equal)),
        "worst": min(equal),
        "differ": float(np.mean([same < quota for same in equal])),
        "bound": float(np.mean([report.error_bound for report in reports])),
    }


def spread(matrices: Sequence[np.ndarray]) -> float:
    """Median over tasks: variance of the means of perturbations by that of diagonals."""
    ratios = []
    for matrix in matrices:
        cells = np.abs(np.exp(matrix[:, :1]) - np.exp(matrix[:, 1:]))
        rows = np.arange(len(cells))[:, None]
        diagonals = cells[rows, prompt_order(*cells.shape) - 1]
        ratios.append(cells.mean(0).var() / max(diagonals.mean(0).var(), 1e-12))
    return float(np.median(ratios))


def main() -> None:
    arguments = parse_arguments()
    tables = {str(path): read_likelihoods(path).log_likelihoods for path in arguments.tables}
    sources = {name: lambda _, m=matrices: m for name, matrices in tables.items()}
    if arguments.resample:
        pooled = [matrix for matrices in tables.values() for matrix in matrices]
        sources[f"{arguments.resample} resampled"] = lambda generator: [
            bootstrap(pooled, generator) for _ in range(arguments.resample)
        ]
    rows = []
    print(HEADER)
    for source, draw in sources.items():
        for share in arguments.select:
            rows.append(measure(source, draw, share, arguments))
            print(ROW.format(**{**rows[-1], "source": source[-36:]}), flush=True)
    print(LEGEND)
    for name, matrices in tables.items():
        print(f"{name}: perturbations vary {spread(matrices):.1f} times as much as diagonals")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
