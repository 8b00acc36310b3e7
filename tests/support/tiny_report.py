"""A run directory written by hand: real splits, prompts and tables, and likelihoods by a formula.

    python tests/support/tiny_report.py MODEL_DIR NUM_TASKS ROUNDS INSTANCES_PER_TASK

makes one of synthetic tasks, to measure reports of large pools.
"""

import json
import sys
from pathlib import Path

import numpy as np
from selecting import table_of

from ait_jax.pool import Example, Instance, Instruction, Splits, Task, TaskPool
from ait_jax.pool.splits import write_splits
from ait_jax.prompts.perturb import WordDrop, kept_words
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.randomness import stable_hash
from ait_jax.report.settings import Settings
from ait_jax.runtime import files
from ait_jax.scorer import likelihoods
from ait_jax.scorer.prompts_of_task import scoring_instances
from ait_jax.selection import Key, Quotas, SelectionContext, task_map
from ait_jax.selection.uncertainty import task_scores

SEED = 5
TIMING = {
    "tokens_per_second": 1000.0,
    "padding_fraction": 0.2,
    "mfu": 0.1,
    "devices": 4,
    "device_kind": "TPU v4",
}


def settings_of(pool: TaskPool, **changes) -> Settings:
    known = {
        "rounds": 2, "needs_scores": True, "strategy": "high_prompt_uncertainty", "seed": SEED,
        "num_instances": 2, "num_perturbations": 3, "perturbation": WordDrop(), "pool": pool,
        "encoding": TkInstructEncoding(),
    }  # fmt: skip
    return Settings(**known | changes)


def synthetic_pool(num_tasks: int, words: int = 60, instances: int = 10) -> TaskPool:
    """Returns tasks with definitions of so many words from a vocabulary of 997."""
    vocabulary = [f"w{stable_hash('word', i) % 10**6:x}" for i in range(997)]

    def text(number: int, part: int, length: int) -> str:
        start = stable_hash(number, part)
        return " ".join(vocabulary[(start + i * (i + 7)) % 997] for i in range(length))

    tasks = []
    for number in range(num_tasks):
        examples = tuple(Example(text(number, 1 + e, 25), text(number, 9 + e, 2)) for e in range(2))
        found = tuple(
            Instance(f"{i}", text(number, 100 + i, 40), (text(number, 500 + i, 3),))
            for i in range(instances)
        )
        name = f"task{number:05d}_{text(number, 7, 3).replace(' ', '_')}"
        category = f"category {number % 60}"
        tasks.append(Task(name, Instruction(text(number, 0, words), examples), found, (category,)))
    labels = {task.name: bool(i % 2) for i, task in enumerate(tasks)}
    names = [task.name for task in tasks]
    return TaskPool(
        tasks,
        labels,
        name="synthetic",
        splits=Splits(remain=names[:-6], dev=names[-6:-4], test=names[-4:]),
    )


def write_run(
    path: Path,
    settings: Settings,
    splits: Splits,
    tasks_per_round: int = 2,
    config: str = "tiny.seed = 5\n",
    log_likelihood=None,
) -> list[Splits]:
    """Writes the files of a finished run with high prompt uncertainty; returns the rounds' splits.

    Args:
      log_likelihood: (task, instance, j, kept words of the definition or None) -> float.
    """
    pool, stages = settings.pool, {"round_000/splits": {"dropped_tasks": 0}}
    log_likelihood = log_likelihood or formula
    all_splits = [splits]
    _evaluate(path / "base", pool, splits, 0)
    stages["base/evaluate"] = {}
    for number in range(settings.rounds):
        folder = path / f"round_{number:03d}"
        write_splits(folder, splits)
        files.write_lines(
            folder / "metrics.jsonl",
            [
                json.dumps({"step": step, "loss": 1 / step, "accuracy": 0.5, "learning_rate": 1e-3})
                for step in range(10, 60, 10)
            ]
            + [json.dumps({"step": 50, "dev/rougeL": 20.0 + number})],
        )
        stages[f"round_{number:03d}/train"] = {"tasks": len(splits.train), "checkpoint_step": 50}
        _evaluate(folder, pool, splits, number + 1)
        stages[f"round_{number:03d}/evaluate"] = {}
        if number + 1 == settings.rounds:
            break
        selected = score(folder, settings, splits.remain, number, tasks_per_round, log_likelihood)
        stages[f"round_{number:03d}/score"] = {"tasks": len(splits.remain), "prompts_cut": 0}
        stages[f"round_{number:03d}/select"] = {
            "strategy": settings.strategy, "tasks": len(selected), "close_calls": {"gen": 3.1e-6},
        }  # fmt: skip
        splits = Splits(
            train=(*splits.train, *selected),
            remain=[name for name in splits.remain if name not in set(selected)],
            dev=splits.dev, test=splits.test,
        )  # fmt: skip
        all_splits.append(splits)
    write_record(path, pool, stages, config)
    return all_splits


def write_record(path: Path, pool: TaskPool, stages: dict, config: str) -> None:
    files.write_text(path / "config.gin", config)
    files.write_json(path / "run.json", {
        "schema_version": 1, "code_version": "0.1.0", "seed": SEED,
        "pool": {"name": pool.name, "fingerprint": pool.fingerprint()}, "stages": stages,
    })  # fmt: skip
    lines = [
        json.dumps({"stage": stage, "seconds": 90.0, **TIMING})
        for stage in stages
        if stage[-6:] != "splits"
    ]
    files.write_lines(path / "timings.jsonl", lines)


def formula(task: Task, instance: Instance, j: int, kept) -> float:
    """Returns a log-likelihood that falls with the words that are lost."""
    lost = 0.0 if kept is None else 1 - np.mean(kept)
    sensitivity = (stable_hash(task.name) % 1000) / 250
    level = (stable_hash(task.name, "level") % 1000) / 1000
    return float(-0.05 - level - sensitivity * lost * (1 + stable_hash(instance.id, j) % 10 / 10))


def score(
    folder: Path, settings: Settings, tasks, round: int, size: int, log_likelihood
) -> list[str]:
    """Writes the tables, lists and the selection of one round; returns the selection."""
    rows = {name: [] for name in likelihoods.COLUMNS}
    for name in tasks:
        task = settings.pool[name]
        kept = [None] + [
            kept_words(task, settings.perturbation, j, Key(SEED, round))
            for j in range(1, settings.num_perturbations + 1)
        ]
        for instance in scoring_instances(task, settings.num_instances, Key(SEED, round)):
            for j, words in enumerate(kept):
                value = log_likelihood(task, instance, j, words)
                row = (name, instance.id, j, f"answer {instance.id}", 2, 50, 0, value)
                for column, cell in zip(likelihoods.COLUMNS, row, strict=True):
                    rows[column].append(cell)
    _write_in_chunks(folder / "likelihoods.parquet", rows)
    names = ("task", "instance_id", "prompt", "log_likelihood")
    scores = task_scores(table_of(zip(*(rows[name] for name in names), strict=True)))
    likelihoods.write_task_scores(folder / "task_scores.parquet", scores)
    context = SelectionContext(scores, settings.pool, Quotas(size), Key(SEED, round))
    for region, names in task_map.ranked(context, task_map.classify(context)).items():
        files.write_lines(folder / f"{region}.txt", names)
    order = np.argsort(-scores.prompt_uncertainty, kind="stable")[:size]
    selected = [scores.tasks[i] for i in order]
    files.write_lines(folder / "selected.txt", selected)
    return selected


def _write_in_chunks(path: Path, rows: dict, size: int = 4096) -> None:
    """Writes as many row groups as the scorer would have written chunks."""
    parts = []
    for start in range(0, len(rows["task"]), size):
        parts.append(path.with_name(f"part_{start}.parquet"))
        likelihoods.write_rows(parts[-1], {c: rows[c][start : start + size] for c in rows})
    likelihoods.concatenate(parts, path)
    for part in parts:
        part.unlink()


def _evaluate(folder: Path, pool: TaskPool, splits: Splits, gain: int) -> None:
    def metrics(names):
        figures = {
            "rougeL": 10.0 + gain,
            "exact_match": 5.0,
            "num_instances": 4,
            "num_tasks": len(names),
        }
        return figures | {
            "num_without_references": 0, "cls": figures, "gen": figures,
            "per_category": {pool[name].category: figures for name in names},
            "per_task": {
                name: {k: v for k, v in figures.items() if k != "num_tasks"} for name in names
            },
        }  # fmt: skip

    files.write_json(
        folder / "eval.json", {"test": metrics(splits.test), "dev": metrics(splits.dev)}
    )


if __name__ == "__main__":
    model_dir, num_tasks, rounds, instances = sys.argv[1:]
    pool = synthetic_pool(int(num_tasks))
    known = settings_of(
        pool, rounds=int(rounds), num_instances=int(instances), num_perturbations=10
    )
    names = pool.splits.remain
    started = Splits(
        train=names[:500], remain=names[500:], dev=pool.splits.dev, test=pool.splits.test
    )
    write_run(Path(model_dir), known, started, tasks_per_round=500)
