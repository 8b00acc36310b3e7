"""A model, data and meshes so small that training them takes no time."""

import dataclasses
import json
from functools import cache, cached_property

import jax
import numpy as np
import optax
import whole_arrays  # noqa: F401

from ait_jax import randomness
from ait_jax.models import parameters, t5
from ait_jax.runtime import reporter
from ait_jax.runtime.partitioning import Partitioner, make_mesh
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.interface import TrainingJob

TINY = t5.T5Config(
    vocab_size=64,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=32,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.0,
)
# Equal trainings share a compiled step: equal schedules are one object.
SCHEDULE = optax.constant_schedule(1e-3)
DROPPING = dataclasses.replace(TINY, dropout_rate=0.2)


@cache
def _initial_params(config, seed):
    return parameters.init_params(t5.Transformer(config), seed)[0]


def model_and_params(config=TINY, seed=0):
    """Returns a Transformer and its initial values as host arrays of the caller's own."""
    return t5.Transformer(config), jax.tree.map(np.array, _initial_params(config, seed))


@dataclasses.dataclass(frozen=True)
class OnDevices(Partitioner):
    """The rules on the first few devices only."""

    num_devices: int = 1

    @cached_property
    def mesh(self):
        devices = np.asarray(jax.devices()[: self.num_devices])
        return make_mesh(devices.reshape(-1, self.num_partitions))


class FirstTokens:
    """Examples whose target is the input's first token and how many tokens there are."""

    def __init__(self, size=20):
        self.buckets = LengthBuckets((8,), (4,))
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        length = randomness.integer(2, 7, index, "length")
        tokens = [randomness.integer(10, 40, index, i) for i in range(length)]
        targets = [tokens[0], 40 + length, 1] if index % 3 else [tokens[0], 1]
        return [*tokens, 1], targets

    def collate(self, examples):
        return self.buckets.collate(examples)

    def batch(self, indices):
        return self.collate([self[i] for i in indices])


def trainer(**changes):
    """An EmbeddedTrainer of 6 steps with a checkpoint at every second one."""
    arguments = {
        "batch_size": 8,
        "epochs": None,
        "steps": 6,
        "schedule": SCHEDULE,
        "checkpoint_period": 2,
        "log_period": 1,
    }
    return EmbeddedTrainer(**(arguments | changes))


def job(directory, config=TINY, **changes):
    """A training on `FirstTokens`, on one device, without a word."""
    model, params = model_and_params(config)
    arguments = {
        "examples": FirstTokens(),
        "params": params,
        "directory": directory,
        "model": model,
        "partitioner": OnDevices(),
        "seed": 3,
    }
    return TrainingJob(**(arguments | changes))


def train(directory, settings=None, config=TINY, report=lambda line: None, **changes):
    """Trains `job`."""
    with reporter.using(reporter.Reporter(line=report)):
        return (settings or trainer()).train(job(directory, config, **changes))


def assert_trees_equal(one, other, **tolerance):
    """Bit for bit, or within `atol`."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if tolerance:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, **tolerance)
        else:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def metric_lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


class Killed(Exception):
    """Stands for whatever ends a process early."""


def killing_at(step):
    def report(line):
        if line.startswith(f"step {step}/"):
            raise Killed

    return report
