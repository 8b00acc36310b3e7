"""What training says: a line on the terminal, metrics.jsonl, summaries."""

import json
import time
from collections.abc import Mapping
from typing import Any

from ait_jax.runtime import distributed, reporter
from ait_jax.runtime.lines_file import LinesFile
from ait_jax.summaries import Summaries, TensorBoard


class MetricsFile:
    """metrics.jsonl: one line per logged step, without wall-clock values.

    Lines are a function of the run's inputs alone, so a resumed run leaves the same
    file: opening it drops the lines after `resume_step`, which will be written again.
    """

    def __init__(self, path: Any, resume_step: int) -> None:
        self._file = LinesFile(path)
        kept = [line for line in self.lines() if line["step"] <= resume_step]
        self._file.replace([json.dumps(line) for line in kept])

    def lines(self) -> list[dict]:
        """Returns the whole lines; one cut short by a crash is left out."""
        lines = []
        for text in self._file.read():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if distributed.is_writer():
            self._file.add(json.dumps({"step": step, **values}))

    def flush(self) -> None:
        """Call it before a checkpoint is saved: a run that resumes there needs the lines."""
        self._file.flush()


class TrainingLog:
    """Writes every log period to the terminal, metrics.jsonl and the summaries of train/.

    Args:
      directory: gets metrics.jsonl.
      resume_step: the step that training continues from.
      total_steps: for the terminal.
      peak_flops: FLOP/s of all devices, for model-FLOP utilisation.
      report: takes one line of text.
      summaries: of the run; None is TensorBoard in `directory`.
    """

    def __init__(
        self,
        directory: Any,
        resume_step: int,
        total_steps: int,
        peak_flops,
        report,
        summaries: Summaries | None = None,
    ) -> None:
        self.file = MetricsFile(directory / "metrics.jsonl", resume_step)
        summaries = summaries or Summaries((TensorBoard(),), directory)
        self.summaries = summaries.folder(directory / "train", resume_step)
        self.total_steps = total_steps
        self.peak_flops = peak_flops
        self.report = report
        self._start_period()

    def _start_period(self) -> None:
        self._since = time.perf_counter()
        self._tokens = 0
        self._flops = 0.0

    def count(self, tokens: int, flops: float) -> None:
        """Adds the real (unpadded) tokens and model FLOPs of one step to the period."""
        self._tokens += tokens
        self._flops += flops

    def step(self, step: int, metrics: Mapping[str, float], learning_rate: float | None) -> None:
        """Closes the period at `step`."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        values = {name: float(value) for name, value in metrics.items()}
        if learning_rate is not None:
            values["learning_rate"] = learning_rate
        self.file.write(step, values)
        speed = {
            "tokens_per_second": self._tokens / seconds,
            "mfu": self._flops / seconds / self.peak_flops,
        }
        for name, value in {**values, **speed}.items():
            self.summaries.scalar(f"train/{name}", value, step)
        reporter.trained(values["loss"], **speed)
        reward = f"reward {values['reward']:.3f}  " if "reward" in values else ""
        self.report(
            f"step {step:>{len(str(self.total_steps))}}/{self.total_steps}  "
            f"loss {values['loss']:.4f}  accuracy {values['accuracy']:.3f}  {reward}"
            f"{speed['tokens_per_second']:,.0f} tokens/s  MFU {speed['mfu']:.1%}"
        )
        self._start_period()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.file.write(step, {f"dev/{name}": value for name, value in metrics.items()})
        for name, value in metrics.items():
            self.summaries.scalar(f"dev/{name}", value, step)
        self._start_period()

    def flush(self) -> None:
        """Makes all lines so far safe; call it before a checkpoint is saved."""
        self.file.flush()
        self.summaries.flush()

    def close(self) -> None:
        self.file.flush()
        self.summaries.close()
