"""Checkpoints of a training, by Orbax: asynchronous, whole or not there, the best one kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ait_jax.errors import UserError


class Checkpoints:
    """checkpoint_<step>/ folders of one training.

    Keeps the latest checkpoint and, where `best_metric` is set, the one with the highest
    value of it (the earliest of equals).
    """

    def __init__(self, directory: Path, best_metric: str | None = None):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers

        self._ocp = ocp
        self.best_metric = best_metric
        keep = [checkpoint_managers.LatestN(1)]
        if best_metric:
            keep.append(
                checkpoint_managers.BestN(
                    n=1,
                    get_metric_fn=lambda metrics: metrics[best_metric],
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(
                step_prefix="checkpoint",
                create=True,
                cleanup_tmp_directories=True,
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
                best_fn=(lambda metrics: metrics[best_metric]) if best_metric else None,
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def chosen_step(self) -> int:
        """The best step where a metric was given, else the latest."""
        step = self._manager.best_step() if self.best_metric else self._manager.latest_step()
        if step is None:
            raise UserError(f"No finished checkpoint in {self._manager.directory}.")
        return step

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None) -> None:
        """Starts to write checkpoint_<step>; training goes on meanwhile."""
        if self.best_metric and metrics is not None and self.best_metric not in metrics:
            raise UserError(
                f"EmbeddedTrainer.best_metric = {self.best_metric!r} is none of the dev metrics "
                f"{sorted(metrics)}."
            )
        self._manager.save(
            step,
            args=self._ocp.args.StandardSave(state),
            metrics=dict(metrics) if metrics else None,
        )

    def wait(self) -> None:
        """Returns once everything is on disk; raises what went wrong while writing."""
        self._manager.wait_until_finished()

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """Returns the state of `step` (the latest by default), placed as `abstract_state` says."""
        step = self._manager.latest_step() if step is None else step
        try:
            return self._manager.restore(
                step, args=self._ocp.args.StandardRestore(abstract_state)
            )
        except (ValueError, FileNotFoundError, OSError) as error:
            raise UserError(
                f"{self._manager.directory / f'checkpoint_{step}'} cannot be read: "
                f"{str(error).splitlines()[0]}. Delete that folder to continue from an earlier one."
            ) from error
