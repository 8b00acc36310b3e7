"""A whole experiment that runs in seconds, and a process that is killed in the middle of it.

    python tests/support/tiny_experiment.py MODEL_DIR POINT CALL [NUM_PARTITIONS] [TRAINER]

runs it, with the embedded trainer ("short": for one epoch a round), "t5x" or "both", and sends
itself SIGKILL at the CALL-th call of POINT ("never" runs to the end).
"""

import dataclasses
import functools
import importlib.util
import os
import signal
import sys

import whole_arrays
from ait_jax.tasks import mini

from ait_jax import assets, cli
from ait_jax.commands import subcommand
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.pool import Splits, TaskPool
from ait_jax.pool.initial import Drawn
from ait_jax.prompts.perturb import WordDrop
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.rounds.active import run
from ait_jax.rounds.experiment import Experiment
from ait_jax.runtime import files
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.scorer import likelihoods
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.selection import PromptUncertainty
from ait_jax.summaries import TensorBoard, WeightsAndBiases
from ait_jax.trainer import t5x
from ait_jax.trainer.checkpointing import Checkpoints
from ait_jax.trainer.embedded import EmbeddedTrainer
from ait_jax.trainer.optimizer import adafactor, constant_with_warmup

CONFIG = "tiny.seed = 0\n"


@functools.cache
def _mini_pool() -> TaskPool:
    return mini.load_pool(instances_per_task=40)  # of more, these are the first


def tiny_pool(num_tasks: int = 12, instances: int = 8) -> TaskPool:
    """Returns tasks of the mini pool with few instances: the last three are dev and test."""
    pool = _mini_pool()
    names = list(pool)[:: len(pool) // num_tasks][:num_tasks]
    tasks = [
        dataclasses.replace(pool[name], instances=pool[name].instances[:instances])
        for name in names
    ]
    splits = Splits(remain=names[:-3], dev=names[-3:-2], test=names[-2:])
    return TaskPool(tasks, {n: pool.is_cls(n) for n in names}, name="tiny", splits=splits)


def boards() -> tuple:
    """Returns TensorBoard, and Weights & Biases (offline) where it is installed."""
    has_wandb = importlib.util.find_spec("wandb") is not None
    return (TensorBoard(), *([WeightsAndBiases(mode="offline")] if has_wandb else []))


class Stopped(BaseException):
    """What no part of the program catches."""


def stopping_at(text: str, lines: list[str]):
    """Returns what reports lines to `lines`, and ends the run at the first one with `text`."""

    def report(line: str) -> None:
        lines.append(line)
        if text in line:
            raise Stopped

    return report


TRAINING = {
    "batch_size": 8,
    "epochs": 2,
    "schedule": constant_with_warmup(0.02, 1),
    "checkpoint_period": 1,
    "best_metric": "rougeL",
    "log_period": 1,
}


def short(model_dir) -> Experiment:
    """Two rounds with four steps and checkpoints in all."""
    trainer = EmbeddedTrainer(**TRAINING | {"epochs": 1})
    return tiny_experiment(model_dir, trainer=trainer)


def three_rounds(model_dir, trainer: str) -> Experiment:
    """Three rounds of T5X, or ("both") of the embedded trainer first and T5X from round 1 on."""
    with_t5x = t5x.T5XTrainer(**TRAINING, optimizer=adafactor)
    trainers = {0: EmbeddedTrainer(**TRAINING, optimizer=adafactor), 1: with_t5x}
    return tiny_experiment(model_dir, rounds=3, trainer=with_t5x if trainer == "t5x" else trainers)


def tiny_experiment(model_dir, num_partitions: int = 1, **changes) -> Experiment:
    config = T5Config(
        vocab_size=4096,
        emb_dim=16,
        num_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        head_dim=8,
        mlp_dim=32,
        mlp_activations=("gelu", "linear"),
        dropout_rate=0.1,
        logits_via_embedding=True,
    )
    experiment = Experiment(
        model_dir=str(model_dir),
        pool=tiny_pool(),
        initial_splits=Drawn(initial_tasks=2, dev_tasks=0),
        model=Transformer(config),
        vocabulary=Vocabulary(assets.mini_vocabulary()),
        trainer=EmbeddedTrainer(**TRAINING),
        scorer=Scorer(WordDrop(), num_perturbations=2, num_instances=2, prompts_per_chunk=18),
        strategy=PromptUncertainty(),
        partitioner=Partitioner(num_partitions=num_partitions),
        encoding=TkInstructEncoding(max_source_length=128),
        buckets=LengthBuckets(inputs=(128,), targets=(8,)),
        tokens_per_batch=2048,
        # One length, so few programs: compiling is most of what a run here costs.
        length_growth=99.0,
        rounds=2,
        tasks_per_round=3,
        max_instances_per_task=4,
        max_eval_instances=2,
        max_dev_instances=2,
        seed=0,
    )
    return dataclasses.replace(experiment, **changes)


def kill_at(point: str, call: int) -> None:
    """Makes this process die at the `call`-th call of a function, before it does anything."""
    owner, name = {
        "checkpoint": (Checkpoints, "save"),
        "chunk": (likelihoods, "write_rows"),
        "score": (Engine, "log_likelihoods"),
        "write": (files, "write_text"),
        "t5x": (t5x._Training, "_after_step"),
    }[point]
    original = getattr(owner, name)
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call or (point == "write" and str(args[0]).endswith("selected.txt")):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)


def main() -> None:
    model_dir, point, call, *rest = sys.argv[1:]
    if point != "never":
        kill_at(point, int(call))
    if rest[1:] == ["short"]:
        experiment = short(model_dir)
    elif len(rest) == 2:
        experiment = three_rounds(model_dir, rest[1])
    else:
        experiment = tiny_experiment(model_dir, int(rest[0]) if rest else 1, summaries=boards())
    run(experiment, CONFIG)


def main_of_a_pod() -> int:
    """One of several processes, as the command line would run it: MODEL_DIR is the argument."""
    partitions = int(os.environ["TINY_PARTITIONS"])
    whole_arrays.cut_again()

    def work(arguments):
        subcommand.start_jax(joins=True)
        experiment = tiny_experiment(arguments[0], partitions)
        config = dataclasses.replace(experiment.model.config, num_heads=4, head_dim=4)
        run(dataclasses.replace(experiment, model=Transformer(config)), CONFIG)
        return 0

    cli._main = work
    return cli.main()


if __name__ == "__main__":
    sys.exit(main_of_a_pod() if "TINY_PARTITIONS" in os.environ else main())
