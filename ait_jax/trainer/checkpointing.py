"""Checkpoints of a training, by Orbax: asynchronous, whole or absent, the best one kept."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ait_jax.errors import UserError, first_line
from ait_jax.runtime import buckets, disk, distributed, files

# The latest one may turn out to be damaged or, after the loss has run away, useless.
NUM_LATEST = 2
# Orbax's mark of a whole checkpoint in a bucket.
_FINISHED = "commit_success.txt"


class Checkpoints:
    """checkpoint_<step>/ folders of one training.

    Keeps the latest two checkpoints and, where `best_metric` is set, the one with its highest
    value (the earliest of equals; NaN is below everything).

    Raises:
      UserError: the folder cannot be written to, or its checkpoints cannot be read.
    """

    def __init__(self, directory: Any, best_metric: str | None = None) -> None:
        import orbax.checkpoint as ocp

        from ait_jax.models.checkpoints.orbax_checkpoint import plain_path

        self._ocp = ocp
        self.best_metric = best_metric
        self.directory = files.absolute(directory)
        try:
            with buckets.errors_of(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._remove_unfinished()
            options = ocp.CheckpointManagerOptions(
                step_prefix="checkpoint",
                create=True,
                cleanup_tmp_directories=buckets.is_local(self.directory),
                preservation_policy=self,
                # Orbax stores metrics only where they rank checkpoints. Its own ranking prefers
                # the latest of equals, so the choice is made here.
                best_fn=self._value if best_metric else None,
            )
            self._manager = _manager(plain_path(self.directory), options)
        except OSError as error:
            raise UserError(
                f"Checkpoints cannot be written to {self.directory}: {first_line(error)}. Give a "
                "writable folder (MODEL_DIR)."
            ) from error
        except ValueError as error:
            raise UserError(
                f"The metrics of {_damaged_metrics(self.directory)} are damaged: "
                f"{first_line(error)}. Delete that folder to continue without it."
            ) from error

    def _remove_unfinished(self) -> None:
        """Deletes what a killed process left in a bucket, where whole files are not renamed.

        Orbax's own cleanup would delete every folder there, the scorer's chunks included.
        """
        if buckets.is_local(self.directory):
            return
        if distributed.is_writer():
            for folder in self.directory.glob("checkpoint_*"):
                if not (folder / _FINISHED).exists():
                    files.remove_tree(folder)
        distributed.barrier(f"{self.directory}: unfinished checkpoints removed")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with disk.writing(self.directory):
            self._manager.close()

    def _value(self, metrics: Mapping[str, float]) -> float:
        return float(metrics.get(self.best_metric or "", math.nan))

    def _best(self, metrics_by_step: Mapping[int, Mapping[str, float] | None]) -> int | None:
        return best_step({s: self._value(m) for s, m in metrics_by_step.items() if m is not None})

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Orbax's PreservationPolicy: called at every save, with the new checkpoint."""
        del context
        kept = {info.step for info in checkpoints[-NUM_LATEST:]}
        if self.best_metric:
            kept.add(self._best({info.step: info.metrics for info in checkpoints}))
        return [info.step in kept for info in checkpoints]

    @property
    def steps(self) -> list[int]:
        """Those of finished checkpoints, in order."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The last of `steps`."""
        return self._manager.latest_step()

    @property
    def chosen_step(self) -> int:
        """The best step by `best_metric`, the latest without one."""
        step = self.latest_step
        if self.best_metric:
            step = self._best({step: self._manager.metrics(step) for step in self.steps})
        if step is None:
            raise UserError(f"No finished checkpoint in {self.directory}.")
        return step

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None) -> None:
        """Starts to write checkpoint_<step>, and returns. Raises as `wait`, of the one before."""
        with disk.writing(self.directory):  # also what failed while the one before was written
            self._manager.save(
                step,
                args=self._ocp.args.StandardSave(state),
                metrics=dict(metrics) if metrics else None,
            )

    def wait(self) -> None:
        """Returns once everything is on disk.

        Raises:
          UserError: the disk is full, or whatever went wrong while writing.
        """
        with disk.writing(self.directory):
            self._manager.wait_until_finished()

    def keep_only(self, steps: Iterable[int]) -> None:
        """Deletes all other checkpoints."""
        for step in set(self.steps) - set(steps):
            self._manager.delete(step)

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Returns the state of `step` (the latest by default), placed as `abstract_state` says.

        Raises:
          UserError: the checkpoint is damaged, or of another model or optimizer.
        """
        step = self.latest_step if step is None else step
        try:
            return self._manager.restore(step, args=self._ocp.args.StandardRestore(abstract_state))
        # Orbax raises many kinds, bare Exception for a cut array among them.
        except Exception as error:
            raise UserError(
                f"{self.directory / f'checkpoint_{step}'} cannot be read; it is damaged or of "
                f"another model or optimizer: {first_line(error)}. Delete that folder to "
                "continue from the checkpoint before it."
            ) from error


def _manager(directory: Any, options: Any) -> Any:
    """Returns Orbax's manager, which leaves it to `preemption` when to stop."""
    import orbax.checkpoint as ocp

    class Manager(ocp.CheckpointManager):
        def reached_preemption(self, step: int) -> bool:
            # Asked with its own steps, JAX would agree on a point that the program never asks for.
            return False

    return Manager(directory, options=options)


def best_step(values: Mapping[int, float]) -> int | None:
    """Returns the step of the highest value, the earliest of equals; NaN is below everything."""
    ranks = {step: -math.inf if math.isnan(value) else value for step, value in values.items()}
    return min(ranks, key=lambda step: (-ranks[step], step)) if ranks else None


def _damaged_metrics(directory: Any) -> Any:
    """Returns the checkpoint whose metrics are not JSON, for the message."""
    for path in sorted(directory.glob("checkpoint_*/metrics/metrics")):
        try:
            json.loads(path.read_text())
        except ValueError:
            return path.parent.parent
    return directory / "checkpoint_<step>"
