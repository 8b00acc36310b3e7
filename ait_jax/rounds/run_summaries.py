"""What a run writes to its summaries after every stage: figures by round, answers, pictures.

All of it comes from the stage's files, so another process can write it again, or write it to a
board that was added later. The x axis is the round; the base model is at -1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ait_jax.config import configuration
from ait_jax.evaluation.evaluation import (
    EXACT_MATCH,
    METRICS,
    ROUGE_L,
    Prediction,
    read_predictions,
)
from ait_jax.pool import TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.rounds.record import Timing, read_evaluation, read_timings, round_name
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.runtime import files
from ait_jax.scorer.likelihoods import read_task_scores
from ait_jax.selection.uncertainty import TaskScores
from ait_jax.summaries import Board, Summaries, SummaryWriter

BASE = -1
_SAMPLES = 6  # tasks of every group whose first answer is shown
_PROMPT_END = 900  # characters; a prompt ends with the instance's own input
_ANSWER = 400
_MOST_ROWS = 100  # of the table of selected tasks
SAMPLE_COLUMNS = ("task", "answer", "references", "end of the prompt")
_MEASURES = ("prompt_uncertainty", "prediction_probability")
SELECTED_COLUMNS = ("place", "task", "category", "type", *(m.replace("_", " ") for m in _MEASURES))
OpenWriter = Callable[[str], SummaryWriter]


class RunSummaries(Summaries):
    """The summaries of a run over rounds, of whose open directory they take the files."""

    def __init__(self, boards: Sequence[Board], directory: RunDirectory) -> None:
        finished = [s for s in directory.state["stages"] if s.endswith(("/evaluate", "/select"))]
        super().__init__(boards, directory.path, finished)
        self._directory = directory

    def begun(self, config: str) -> None:
        """Writes the operative configuration and its macros."""

        def write(writer_of: OpenWriter) -> None:
            writer_of("rounds").text("config", config, 0)
            metrics = [f"{ROUGE_L}/overall", f"{EXACT_MATCH}/overall"]
            writer_of("inference_eval/test").hyperparameters(hyperparameters(config), metrics)

        self.stage("config", write)

    def evaluated(
        self,
        round_index: int | None,
        num_tasks: int,
        groups: Mapping[str, Sequence[str]],
        curve: bool,
    ) -> None:
        """Writes the outcome of a training: the stages `train` and `evaluate`.

        Args:
          round_index: None is the base model.
          num_tasks: that it was trained on.
          groups: group of eval.json ("test") -> its tasks.
          curve: whether this round is the last in learning_curve.png.
        """
        name, step = round_name(round_index), BASE if round_index is None else round_index

        def write(writer_of: OpenWriter) -> None:
            folder = self._directory.path / name
            result = read_evaluation(folder) or {}
            predictions = read_predictions(folder / "predictions.jsonl")
            for group, metrics in result.items():
                writer = writer_of(f"inference_eval/{group}")
                for curve_name, value in evaluation_scalars(metrics).items():
                    writer.scalar(curve_name, value, step)
                rows = samples(predictions, groups.get(group, ()))
                if rows:
                    writer.table("samples", SAMPLE_COLUMNS, rows, step)
            rounds = writer_of("rounds")
            rounds.scalar("tasks/train", num_tasks, step)
            self._write_timings(rounds, name, ("train", "evaluate"), step)
            if curve:
                png = files.read_bytes(self._directory.path / "learning_curve.png")
                rounds.image("learning_curve", png, step)

        self.stage(f"{name}/evaluate", write)

    def selected(self, step: int, pool: TaskPool) -> None:
        """Writes how a round's remaining tasks were scored and which were selected."""
        name = round_name(step)

        def write(writer_of: OpenWriter) -> None:
            folder, rounds = self._directory.path / name, writer_of("rounds")
            self._write_timings(rounds, name, ("score", "select"), step)
            chosen = read_names(folder / "selected.txt")
            remaining = read_names(folder / "remain_tasks.txt")
            scores = None
            if (folder / "task_scores.parquet").exists():
                scores = read_task_scores(folder / "task_scores.parquet")
                remaining = scores.tasks
                rounds.image("task_map", files.read_bytes(folder / "task_map.png"), step)
            cls = sum(map(pool.is_cls, chosen))
            rounds.scalar("tasks/remain", len(remaining), step)
            rounds.scalar("selection/share_of_cls", cls / len(chosen), step)
            if scores is not None:
                for curve_name, value in selection_scalars(scores, chosen).items():
                    rounds.scalar(f"selection/{curve_name}", value, step)
            rows = _selected_rows(pool, chosen, scores)
            rounds.table("selected_tasks", SELECTED_COLUMNS, rows, step)

        self.stage(f"{name}/select", write)

    def _write_timings(
        self, writer: SummaryWriter, name: str, stages: Iterable[str], step: int
    ) -> None:
        timings = {timing.stage: timing for timing in read_timings(self._directory.path)}
        for stage in stages:
            timing = timings.get(f"{name}/{stage}")
            for curve_name, value in (stage_scalars(stage, timing) if timing else {}).items():
                writer.scalar(curve_name, value, step)


def _selected_rows(
    pool: TaskPool, chosen: Sequence[str], scores: TaskScores | None
) -> list[list[str]]:
    row_of = {} if scores is None else {task: i for i, task in enumerate(scores.tasks)}
    rows: list[list[str]] = []
    for place, task in enumerate(chosen[:_MOST_ROWS], 1):
        label = "CLS" if pool.is_cls(task) else "GEN"
        row = [str(place), task, pool[task].category, label]
        if task in row_of:
            row += [f"{getattr(scores, measure)[row_of[task]]:.4f}" for measure in _MEASURES]
        rows.append(row)
    if len(chosen) > _MOST_ROWS:
        rows.append(["", f"and {len(chosen) - _MOST_ROWS:,} more, in selected.txt"])
    return rows


def hyperparameters(config: str) -> dict[str, str | int | float]:
    """Returns the macros of an operative configuration without MODEL_DIR."""
    macros = configuration.macros_of(config)
    return {name: value for name, value in macros.items() if name != "MODEL_DIR"}


def evaluation_scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the curves of one group of eval.json, without what was not measured."""
    # Earlier versions measured no ROUGE-1.
    groups = {"overall": metrics, "cls": metrics["cls"], "gen": metrics["gen"]}
    named = {f"{m}/{name}": group.get(m) for m in METRICS for name, group in groups.items()}
    for category, group in metrics["per_category"].items():
        name = category.replace("/", "_")
        named |= {f"{metric}_by_category/{name}": group.get(metric) for metric in METRICS}
    return {name: value for name, value in named.items() if value is not None}


def samples(predictions: Sequence[Prediction], tasks: Sequence[str]) -> list[list[str]]:
    """Returns rows of SAMPLE_COLUMNS: the first answer of a few of `tasks`, evenly spaced.

    The choice depends only on `tasks`, so every round shows the same ones.
    """
    wanted = dict.fromkeys(tasks[i * len(tasks) // _SAMPLES] for i in range(_SAMPLES) if tasks)
    first: dict[str, Prediction] = {}
    for item in predictions:
        if item.task in wanted:
            first.setdefault(item.task, item)
    return [
        [
            task,
            _beginning(item.prediction),
            _beginning("\n".join(item.references)),
            text if len(text := item.input) <= _PROMPT_END else f"…{text[-_PROMPT_END:]}",
        ]
        for task in wanted
        if (item := first.get(task))
    ]


def _beginning(text: str) -> str:
    return text if len(text) <= _ANSWER else f"{text[:_ANSWER]}…"


def selection_scalars(scores: TaskScores, chosen: Sequence[str]) -> dict[str, float]:
    """Returns mean scores of the selected tasks and of those that remain."""
    names = set(chosen)
    selected = np.array([task in names for task in scores.tasks])
    means: dict[str, float] = {}
    for measure in _MEASURES:
        values: np.ndarray = getattr(scores, measure)
        for name, rows in (("selected", selected), ("remaining", ~selected)):
            if rows.any():
                means[f"{measure}_{name}"] = float(np.mean(values[rows]))
    return means


def stage_scalars(stage: str, timing: Timing) -> dict[str, float]:
    """Returns the curves of one stage's line of timings.jsonl."""
    line = timing.figures
    named = {f"seconds/{stage}": timing.seconds}
    for name in ("tokens_per_second", "padding_fraction", "mfu"):
        if name in line:
            named[f"{name}/{stage}"] = line[name]
    prompts = line.get("prompts_asked", line.get("prompts"))
    if prompts and timing.seconds:
        named[f"prompts_per_second/{stage}"] = prompts / timing.seconds
    return named
