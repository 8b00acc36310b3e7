"""The parts of T5X's `train`, made from ours. Imports T5X: import this late.

Model, optimizer, mesh, first state and the action after every step (t5x/models.py,
t5x/adafactor.py, t5x/partitioning.py, t5x/utils.py, t5x/trainer.py at commit cc342d4), and a
trainer's examples as a SeqIO mixture.
"""

# T5X is optional.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import optax
import seqio
import tensorflow as tf
from flax import linen as nn
from flax.core import freeze, unfreeze
from jax.sharding import Mesh
from t5x import adafactor as t5x_adafactor
from t5x import models, optimizers, partitioning, train_state, utils
from t5x import trainer as t5x_trainer
from t5x.examples.t5 import network as t5x_network

from ait_jax.errors import UserError
from ait_jax.models.t5 import Transformer
from ait_jax.prompts.vocabulary import EOS_ID
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.tasks.seqio_tasks import PositionSource
from ait_jax.trainer.data import Examples, in_order
from ait_jax.trainer.optimizer import Adafactor
from ait_jax.trainer.t5x import check_network

_SPLIT = "train"


def network(model: Any, name: str = "ait_jax") -> nn.Module:
    """Returns our network, or T5X's own T5 of the same sizes and parameters.

    Args:
      name: "ait_jax" or "t5x".

    Raises:
      UserError: another name, a model other than T5, or scanned layers, which T5X's T5 lacks.
    """
    check_network(name, "NETWORK")
    if name == "ait_jax":
        return model
    if not isinstance(model, Transformer):
        raise UserError(
            "NETWORK = 't5x' is T5X's own T5, an encoder and a decoder, which "
            f"{type(model).__name__} is not. T5X has no network of LLaMA's kind (rotary positions, "
            "key heads shared by query heads): set NETWORK = 'ait_jax', and T5X trains ours."
        )
    if model.config.scan_layers:
        raise UserError(
            "T5X's own T5 cannot scan its layers: set t5.T5Config.scan_layers = False or "
            "NETWORK = 'ait_jax'."
        )
    known = {field.name for field in fields(t5x_network.T5Config)}
    values = {name: value for name, value in vars(model.config).items() if name in known}
    return t5x_network.Transformer(config=t5x_network.T5Config(**values))


def encoder_decoder(
    module: nn.Module,
    vocab_size: int,
    optimizer: optax.GradientTransformation,
    *,
    z_loss: float,
    label_smoothing: float,
) -> models.EncoderDecoderModel:
    """Returns T5X's model around a network, for examples that are already token ids.

    The loss is the mean over a (micro)batch's target tokens. Adafactor is T5X's own, which takes
    the learning rate from T5X's Trainer; other optimizers are wrapped and follow their schedule.
    """
    if isinstance(optimizer, Adafactor):
        rules = t5x_adafactor.standard_logical_factor_rules()
        definition = t5x_adafactor.Adafactor(**optimizer.settings, logical_factor_rules=rules)
    else:
        definition = optimizers.OptaxWrapper(optimizer)
    vocabulary = seqio.PassThroughVocabulary(vocab_size, eos_id=EOS_ID)
    return models.EncoderDecoderModel(
        module=module,
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=definition,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
        loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
    )


class MeshPartitioner(partitioning.PjitPartitioner):
    """T5X's partitioner on our mesh, with our rules first.

    T5X makes its own mesh by the kind of device; on CPUs all of them go to 'model'.
    """

    def __init__(self, partitioner: Partitioner) -> None:
        rules = [tuple(rule) for rule in partitioner.logical_axis_rules]
        known = {axis for axis, _ in rules}
        others = partitioning.standard_logical_axis_rules()
        rules += [rule for rule in others if rule[0] not in known]
        super().__init__(num_partitions=partitioner.num_partitions, logical_axis_rules=tuple(rules))
        self._given_mesh = partitioner.mesh

    @property
    def mesh(self) -> Mesh:
        """Ours."""
        return self._given_mesh


def start_from(params: Any) -> type[utils.TrainStateInitializer]:
    """Returns T5X's initializer "from scratch", but with `params` in place of random values.

    T5X uses it if model_dir has no checkpoint.
    """

    class FromParams(utils.TrainStateInitializer):
        def __init__(self, optimizer_def: Any, *arguments: Any, **named: Any) -> None:
            self._optimizer_def = optimizer_def
            super().__init__(optimizer_def, *arguments, **named)

        def from_scratch(self, init_rng: Any) -> train_state.FlaxOptimTrainState:
            del init_rng
            params_axes = self.global_train_state_shape.params_axes

            def create(given: Any) -> train_state.FlaxOptimTrainState:
                variables = freeze({"params": given, "params_axes": params_axes})
                return train_state.FlaxOptimTrainState.create(self._optimizer_def, variables)

            place = self._partitioner.partition(
                create,
                in_axis_resources=(self.train_state_axes.params,),
                out_axis_resources=self.train_state_axes,
            )
            return place(freeze(params))

    return FromParams


class EveryStep(t5x_trainer.BaseAction):
    """Calls a function with every step's number, metrics and parameters."""

    def __init__(self, call: Callable[[int, Mapping[str, Any], Any], None]) -> None:
        self._call = call

    def run(self, train_state: Any, metrics_by_task: Mapping[str, Any]) -> bool:
        """T5X calls it after every step; True would end the training."""
        (metrics,) = metrics_by_task.values()
        step = int(utils.get_local_data(train_state.step))
        values = {name: getattr(metric, "value", metric) for name, metric in metrics.items()}
        self._call(step, values, unfreeze(train_state.params))
        return False


class OrderedExamples(PositionSource):
    """The (inputs, targets) examples of steps start..stop-1, in the embedded trainer's order.

    The examples of a step do not depend on where a run stopped, so a run that continues at `start`
    skips what it has seen without reading it.
    """

    def __init__(
        self, examples: Examples, *, batch_size: int, seed: int, start: int, stop: int
    ) -> None:
        self._examples = in_order(examples, seed=seed, num_examples=stop * batch_size)
        self._positions = range(start * batch_size, stop * batch_size)
        self.error: UserError | None = None
        super().__init__(splits=[_SPLIT])

    def positions(self, split: str) -> range:
        """See `PositionSource`."""
        return self._positions

    def elements(self, split: str, positions: tf.data.Dataset) -> tf.data.Dataset:
        """Returns "inputs" and "targets", int32 vectors of token ids."""

        def read(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            try:
                inputs, targets = self._examples[int(position)]
            except UserError as error:
                self.error = error
                raise
            return np.asarray(inputs, np.int32), np.asarray(targets, np.int32)

        def features(position: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs, targets = tf.numpy_function(read, [position], [tf.int32, tf.int32])
            inputs.set_shape([None])
            targets.set_shape([None])
            return {"inputs": inputs, "targets": targets}

        return positions.map(features)


@contextmanager
def mixture(
    name: str,
    examples: Examples,
    *,
    vocab_size: int,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
) -> Iterator[str]:
    """Registers the examples of steps start..stop-1 with SeqIO while the block runs.

    Args:
      name: letters, digits and underscores; replaces what had it before.
      vocab_size: of the model; the examples are already token ids.

    Yields:
      The mixture's name. Its only task has the split "train".
    """
    task = f"{name}_examples"
    vocabulary = seqio.PassThroughVocabulary(vocab_size, eos_id=EOS_ID)
    feature = seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    ordered = OrderedExamples(examples, batch_size=batch_size, seed=seed, start=start, stop=stop)
    _remove(name, task)
    seqio.TaskRegistry.add(
        task,
        source=ordered,  # pyright: ignore - SeqIO's protocol and base class differ
        preprocessors=[],
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=None,
    )
    seqio.MixtureRegistry.add(name, [(task, 1.0)])
    try:
        yield name
    except Exception as error:
        # TensorFlow passes on the text of an error, not the error.
        if ordered.error is not None:
            raise ordered.error from error
        raise
    finally:
        _remove(name, task)


def _remove(name: str, task: str) -> None:
    seqio.MixtureRegistry.remove(name)
    seqio.TaskRegistry.remove(task)
