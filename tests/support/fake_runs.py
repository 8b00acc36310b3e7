"""Run directories of rounds that nobody ran: what a comparison reads of them, and no more."""

import json
from pathlib import Path

NAMES = tuple(f"task{i:03d}" for i in range(40))
HELD_OUT = {"dev": ("dev0",), "test": ("test0", "test1")}


def evaluation(score: float) -> dict:
    group = {"rougeL": score, "exact_match": 0.0}
    low, high = {**group, "rougeL": score - 1}, {**group, "rougeL": score + 1}
    split = {**group, "cls": low, "gen": high}
    return {"test": split, "dev": {**split, "rougeL": score / 2}}


def write_run(
    folder: Path,
    strategy: str,
    seed: int,
    scores: tuple[float, ...],
    *,
    first: int = 0,
    rounds: int | None = None,
    pool: str = "0123",
    config: str = "",
    rouge_tokenizer: str | None = None,
) -> Path:
    """Writes a run of len(scores) rounds: 4 initial tasks, 6 a selection, from `first` on.

    Args:
      rounds: ROUNDS, where the run has not come to its end.
      config: more lines of config.gin.
      rouge_tokenizer: as run.json names it; None is a run of an earlier version.
    """
    train, remain = list(NAMES[:4]), list(NAMES[4:])
    named = {} if rouge_tokenizer is None else {"rouge_tokenizer": rouge_tokenizer}
    stages = {"round_000/splits": {"dropped_tasks": 0, **named}, "base/evaluate": evaluation(1.0)}
    for number, score in enumerate(scores):
        name = f"round_{number:03d}"
        _lists(folder / name, train, remain)
        stages[f"{name}/train"] = {"tasks": len(train), "checkpoint_step": 1}
        stages[f"{name}/evaluate"] = evaluation(score)
        if number + 1 < (rounds or len(scores)):
            selected = remain[first : first + 6]
            _write(folder / name / "selected.txt", selected)
            stages[f"{name}/select"] = {"strategy": strategy, "tasks": 6}
            train += selected
            remain = [task for task in remain if task not in selected]
    lines = [
        f"MODEL_DIR = {str(folder)!r}",
        f"ROUNDS = {rounds or len(scores)}",
        f"SEED = {seed}",
        f"STRATEGY = @selection.{strategy.title()}()",
        "experiment.Experiment.rounds = %ROUNDS",
    ]
    (folder / "config.gin").write_text("\n".join(lines) + f"\n{config}\n")
    state = {
        "schema_version": 1,
        "code_version": "0",
        "pool": {"name": "fake", "fingerprint": pool},
        "seed": seed,
        "stages": stages,
    }
    (folder / "run.json").write_text(json.dumps(state))
    return folder


def _lists(folder: Path, train: list[str], remain: list[str]) -> None:
    folder.mkdir(parents=True)
    for split, names in {"train": train, "remain": remain, **HELD_OUT}.items():
        _write(folder / f"{split}_tasks.txt", names)


def _write(path: Path, names) -> None:
    path.write_text("".join(f"{name}\n" for name in names))
