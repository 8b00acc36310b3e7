"""What training reports: lines on the terminal, metrics.jsonl, summaries, and its work."""

import json
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from ait_jax.runtime import distributed, reporter, strict_json
from ait_jax.runtime.files import LinesFile
from ait_jax.runtime.hardware import peak_flops
from ait_jax.summaries import Summaries, TensorBoard


class MetricsFile(LinesFile):
    """metrics.jsonl: one line per logged step, without wall-clock values.

    Lines are a function of the run's inputs alone, so a resumed run leaves the same file:
    opening it drops the lines after `resume_step`, which will be written again.
    """

    def __init__(self, path: Any, resume_step: int) -> None:
        super().__init__(path)
        self.replace(
            [json.dumps(line) for line in self.lines() if line.get("step", 0) <= resume_step]
        )

    def lines(self) -> list[dict]:
        """Returns the lines, except one cut short by a crash."""
        data = "\n".join(self.read()).encode()
        return list(strict_json.lines(data, dict[str, float | None], self.path, "delete that line"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line."""
        if distributed.is_writer():
            self.add(json.dumps({"step": step, **values}))


@dataclass(frozen=True)
class TrainingWork:
    """What a training did, in figures that exclude its evaluations on dev tasks.

    Attributes:
      steps: updates.
      tokens: read or written, without padding.
      padded_tokens: with padding.
      flops: model FLOPs of `tokens`.
      seconds: from before the first batch to the last update, compilation included.
      host_wait: seconds of these in which the device waited for its next batch.
      evaluation_seconds: spent in evaluations, in addition to `seconds`.
    """

    steps: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    host_wait: float = 0.0
    evaluation_seconds: float = 0.0

    def __add__(self, other: "TrainingWork") -> "TrainingWork":
        return TrainingWork(*map(operator.add, astuple(self), astuple(other)))

    def speed(self) -> dict[str, float]:
        """Returns tokens_per_second and mfu."""
        seconds = max(self.seconds, 1e-9)
        return {
            "tokens_per_second": self.tokens / seconds,
            "mfu": self.flops / seconds / peak_flops(),
        }

    def summary(self) -> dict[str, float]:
        """Returns the figures of timings.jsonl; {} of no work."""
        if not self.steps:
            return {}
        speed = self.speed()
        return {
            "steps": self.steps,
            "tokens": int(self.tokens),
            "padding_fraction": round(1 - self.tokens / self.padded_tokens, 4),
            "tokens_per_second": round(speed["tokens_per_second"], 1),
            "mfu": round(speed["mfu"], 4),
            "host_wait": round(self.host_wait, 3),
            "evaluation_seconds": round(self.evaluation_seconds, 3),
        }

    def describe(self) -> str:
        """Returns the same as text for the terminal; "" of no work."""
        figures = self.summary()
        if not figures:
            return ""
        return (
            f"{figures['steps']:,} steps at {figures['tokens_per_second']:,.0f} tokens/s, "
            f"padding {figures['padding_fraction']:.1%}, MFU {figures['mfu']:.1%}"
        )


class TrainingLog:
    """Writes every log period to the terminal, metrics.jsonl and the summaries of train/.

    Args:
      directory: gets metrics.jsonl.
      resume_step: the step that training continues from.
      total_steps: for the terminal.
      summaries: of the run; None is TensorBoard in `directory`.
      has_events: whether something else writes TensorBoard events into train/.

    Attributes:
      work: what was done since the log was opened.
    """

    def __init__(
        self,
        directory: Any,
        resume_step: int,
        total_steps: int,
        summaries: Summaries | None = None,
        has_events: bool = False,
    ) -> None:
        self.file = MetricsFile(directory / "metrics.jsonl", resume_step)
        boards = () if has_events else (TensorBoard(),)
        summaries = summaries or Summaries(boards, directory)
        self.summaries = summaries.folder(directory / "train", resume_step, has_events)
        self.total_steps = total_steps
        self.work = self._before = TrainingWork()
        self._since = time.perf_counter()

    def count(self, work: TrainingWork) -> None:
        """Adds what a step did, apart from its seconds, which are measured here."""
        self.work += work

    def _end_period(self, apart: float = 0.0) -> dict[str, float]:
        """Returns the speed since the last period, less the last `apart` seconds."""
        now = time.perf_counter()
        self.work += TrainingWork(seconds=now - self._since - apart)
        period = TrainingWork(*map(operator.sub, astuple(self.work), astuple(self._before)))
        self._since, self._before = now, self.work
        return period.speed()

    def step(self, step: int, metrics: Mapping[str, Any], learning_rate: float | None) -> None:
        """Closes the period at `step`."""
        values = {name: float(value) for name, value in metrics.items()}
        speed = self._end_period()
        if learning_rate is not None:
            values["learning_rate"] = learning_rate
        self.file.write(step, values)
        for name, value in {**values, **speed}.items():
            self.summaries.scalar(f"train/{name}", value, step)
        reporter.trained(values["loss"], **speed)
        reward = f"reward {values['reward']:.3f}  " if "reward" in values else ""
        reporter.say(
            f"step {step:>{len(str(self.total_steps))}}/{self.total_steps}  "
            f"loss {values['loss']:.4f}  accuracy {values['accuracy']:.3f}  {reward}"
            f"{speed['tokens_per_second']:,.0f} tokens/s  MFU {speed['mfu']:.1%}"
        )

    def evaluation(self, step: int, evaluate: Callable[[], Mapping[str, Any]]) -> dict[str, float]:
        """Makes an evaluation; writes and returns its dev metrics."""
        since = time.perf_counter()
        metrics = {name: float(value) for name, value in evaluate().items()}
        seconds = time.perf_counter() - since
        self._end_period(apart=seconds)
        self.work += TrainingWork(evaluation_seconds=seconds)
        self.file.write(step, {f"dev/{name}": value for name, value in metrics.items()})
        for name, value in metrics.items():
            self.summaries.scalar(f"dev/{name}", value, step)
        return metrics

    def flush(self) -> None:
        """Makes all lines so far safe; call this before saving a checkpoint."""
        self.file.flush()
        self.summaries.flush()

    def close(self) -> None:
        """Ends the files; the last lines may be lost without it."""
        self.file.flush()
        self.summaries.close()
