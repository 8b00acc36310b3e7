"""The feedback stage: rewards rise, resume, meshes, what is kept, and what is refused."""

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import optax
import processes
import pytest
from shared_data import SUPPORT
from tiny_training import (
    DROPPING,
    SCHEDULE,
    TINY,
    Killed,
    OnDevices,
    assert_trees_equal,
    job,
    killing_at,
    metric_lines,
    trainer,
)
from tiny_training import train as train_on

from ait_jax import randomness
from ait_jax.errors import UserError
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.trainer import embedded, feedback_step
from ait_jax.trainer.feedback import FeedbackTrainer
from ait_jax.trainer.interface import Trained, Trainer

# Token ids of the only words: an answer is one of them, the prompt's own or not.
WORDS = range(10, 18)


class Echo:
    """Prompts are one word between two others of another kind; that word is the answer."""

    buckets: ClassVar = LengthBuckets((8,), (3,))

    def __len__(self):
        return 24

    def __getitem__(self, index):
        word = WORDS[index % len(WORDS)]
        around = [randomness.integer(40, 60, index, side) for side in "ab"]
        return [around[0], word, around[1], 1], [word, 1]

    def collate(self, examples):
        return self.buckets.collate(examples)

    def references(self, index):
        return (self.decode(self[index][1]),)

    def decode(self, tokens):
        return " ".join(str(token) for token in tokens if token != 1)


def same(answer, references):
    return float(answer in references)


@dataclass(frozen=True, kw_only=True)
class Given(Trainer):
    """Stands for the supervised trainer where it does not matter: nothing is trained."""

    epochs: int | None = None
    steps: int | None = 1

    def train(self, job) -> Trained:
        return Trained(job.params, 0, job.directory)


def settings(supervised=None, **changes):
    arguments = {
        "supervised": supervised or trainer(steps=4),
        "reward": same,
        "batch_size": 8,
        "steps": 6,
        "schedule": SCHEDULE,
        "checkpoint_period": 2,
        "log_period": 1,
    }
    return FeedbackTrainer(**(arguments | changes))


def train(directory, config=None, model_config=TINY, **changes):
    changes = {"examples": Echo()} | changes
    return train_on(directory, config or settings(), model_config, **changes)


def killing_in_feedback(step):
    def report(line):
        if line.startswith("feedback: "):
            killing_at(step)(line.removeprefix("feedback: "))

    return report


def feedback_lines(directory):
    return [line for line in metric_lines(directory / "feedback") if "loss" in line]


# Enough supervision to answer with one of the words, not enough to know which.
STEEP = optax.constant_schedule(5e-3)
FEW = {"steps": 20, "batch_size": 24, "schedule": STEEP, "log_period": 100}


def rewards_of(directory, **changes):
    """Rewards, step by step, of feedback alone: nothing else tells which word is right."""
    config = settings(
        trainer(**FEW, checkpoint_period=100),
        steps=40,
        batch_size=24,
        num_samples=8,
        supervised_weight=0.0,
        schedule=STEEP,
        checkpoint_period=100,
        **changes,
    )
    train(directory, config)
    return np.array([line["reward"] for line in feedback_lines(directory)])


def test_the_expected_reward_rises(tmp_path):
    rewards = rewards_of(tmp_path)
    assert 0.1 < rewards[:5].mean() < 0.4
    assert rewards[-5:].mean() > 0.8


@pytest.mark.parametrize("factor", [0.0, pytest.param(-1.0, marks=pytest.mark.benchmark)])
def test_without_advantages_it_does_not(tmp_path, monkeypatch, factor):
    right = feedback_step.leave_one_out
    monkeypatch.setattr(feedback_step, "leave_one_out", lambda rewards: factor * right(rewards))
    # Not the step that an equal training has compiled.
    monkeypatch.setattr(embedded, "_compiled_step", embedded._compiled_step.__wrapped__)
    rewards = rewards_of(tmp_path)
    first, last = rewards[:5].mean(), rewards[-5:].mean()
    assert 0.1 < first < 0.4
    assert abs(last - first) < 0.08 if factor == 0 else last < first / 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """4 supervised steps and 6 of feedback, uninterrupted, with dropout."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory, model_config=DROPPING)


@pytest.fixture
def supervised(whole, tmp_path):
    """A folder with that supervised training; the stage of feedback is to be done."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "feedback")
    return tmp_path


def test_what_a_stage_leaves(whole):
    directory, trained = whole
    assert trained.step == 10 and trained.directory == directory / "feedback" / "checkpoint_6"
    assert trained.work.steps == 10 and trained.work.tokens < trained.work.padded_tokens
    assert [p.name for p in directory.glob("checkpoint_*")] == ["checkpoint_4"]
    assert [p.name for p in (directory / "feedback").glob("checkpoint_*")] == ["checkpoint_6"]
    assert list((directory / "feedback" / "train").glob("events.out.tfevents.*"))
    assert_trees_equal(open_checkpoint(trained.directory).load(), trained.params)
    lines = feedback_lines(directory)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert line["loss"] == pytest.approx(
            line["policy_loss"] + line["supervised_loss"], abs=1e-5
        )
        assert line["tokens"] == 16 and 1 <= line["answer_tokens"] <= 3
        assert 0 <= line["right"] == line["reward"] <= 1


def test_the_supervised_training_is_that_of_its_trainer(whole, tmp_path):
    alone = trainer(steps=4).train(job(tmp_path, DROPPING, examples=Echo()))
    assert_trees_equal(open_checkpoint(whole[0] / "checkpoint_4").load(), alone.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("step", [1, pytest.param(5, marks=pytest.mark.benchmark)])
def test_killed_and_continued_is_the_same_run(whole, tmp_path, step):
    directory, trained = whole
    with pytest.raises(Killed):
        train(tmp_path, model_config=DROPPING, report=killing_in_feedback(step))
    said = []
    continued = train(tmp_path, model_config=DROPPING, report=said.append)
    if step == 5:
        assert said[0] == "feedback: continuing from step 4"
    assert_trees_equal(continued.params, trained.params)
    for name in ("metrics.jsonl", "feedback/metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


STOPPED_PROCESS = """
import os, signal, sys
sys.path[:0] = [sys.argv[2], *(sys.argv[2] + "/../" + room for room in (".", "trainer"))]
import conftest
from pathlib import Path
from ait_jax.runtime import preemption
from test_feedback import DROPPING, train

def report(line):
    print(line, flush=True)
    if line.startswith("feedback: step 3/"):
        os.kill(os.getpid(), int(sys.argv[3]))

preemption.heed()
try:
    train(Path(sys.argv[1]), model_config=DROPPING, report=report)
except preemption.Preempted:
    sys.exit(75)
"""


@pytest.mark.benchmark
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_signals_lose_nothing(whole, tmp_path, number, code):
    directory, trained = whole
    arguments = [
        sys.executable,
        "-c",
        STOPPED_PROCESS,
        str(tmp_path),
        str(SUPPORT),
        str(int(number)),
    ]
    stopped = subprocess.run(arguments, stdout=subprocess.PIPE, text=True)
    assert stopped.returncode == code
    if number == signal.SIGTERM:
        assert "feedback: saved step " in stopped.stdout
    continued = train(tmp_path, model_config=DROPPING)
    assert_trees_equal(continued.params, trained.params)
    written = (tmp_path / "feedback" / "metrics.jsonl").read_bytes()
    assert written == (directory / "feedback" / "metrics.jsonl").read_bytes()


def test_a_finished_stage_is_not_repeated(whole):
    directory, trained = whole
    said = []
    again = train(directory, model_config=DROPPING, report=said.append)
    assert said == [] and again.step == 10
    assert_trees_equal(again.params, trained.params)


def test_the_mesh_does_not_matter(whole, supervised):
    partitioner = OnDevices(num_partitions=2, num_devices=8)
    trained = train(supervised, model_config=DROPPING, partitioner=partitioner)
    kernel = trained.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 16)
    assert_trees_equal(trained.params, whole[1].params, atol=1e-5)
    ours, theirs = feedback_lines(supervised), feedback_lines(whole[0])
    assert [line["reward"] for line in ours] == [line["reward"] for line in theirs]


ONE_OF_TWO = """
import sys
sys.path[:0] = [sys.argv[4], *(sys.argv[4] + "/../" + room for room in (".", "trainer"))]
from pathlib import Path
from ait_jax.runtime import distributed
index, address, folder = sys.argv[1:4]
distributed.initialize(
    {distributed.KIND: "local", distributed.COORDINATOR: address,
     distributed.COUNT: "2", distributed.INDEX: index}
)
from ait_jax.runtime.partitioning import Partitioner
from test_feedback import DROPPING, train

train(Path(folder), model_config=DROPPING, partitioner=Partitioner(num_partitions=2))
"""


@pytest.mark.benchmark
def test_two_processes_draw_and_judge_what_one_does(whole, tmp_path):
    here = str(SUPPORT)
    processes.run(
        lambda index, address: ["-c", ONE_OF_TWO, str(index), address, str(tmp_path), here]
    )
    assert_trees_equal(
        open_checkpoint(tmp_path / "feedback" / "checkpoint_6").load(), whole[1].params, atol=1e-5
    )
    ours, theirs = feedback_lines(tmp_path), feedback_lines(whole[0])
    for name in ("reward", "answer_tokens"):
        assert [line[name] for line in ours] == [line[name] for line in theirs]


def test_accumulation_draws_the_same_and_learns_the_same(tmp_path):
    one = train(tmp_path / "one", settings(Given()))
    two = train(tmp_path / "two", settings(Given(), num_microbatches=2))
    assert_trees_equal(two.params, one.params, atol=1e-5)


def test_the_seed_matters(whole, supervised):
    train(supervised, model_config=DROPPING, seed=4)
    ours, theirs = feedback_lines(supervised), feedback_lines(whole[0])
    assert [line["answer_tokens"] for line in ours] != [line["answer_tokens"] for line in theirs]


def test_answers_are_the_policys_of_that_step(tmp_path, monkeypatch):
    """Step by step: who is judged, and that draws of two samples or steps are not the same."""
    judged = []
    monkeypatch.setattr(Echo, "references", lambda self, index: judged.append(index) or ("x",))
    train(tmp_path, settings(Given(), steps=2, num_samples=3))
    assert len(judged) == 2 * 8 * 3
    steps = np.array(judged).reshape(2, 8, 3)
    assert (steps == steps[:, :, :1]).all()
    # 24 examples, 8 a step: an epoch's steps share none.
    assert len(np.unique(steps)) == 16


DEV = {"worse": (0.5, 0.2, 0.3), "better": (0.5, 0.7, 0.6)}


@pytest.mark.parametrize("way", DEV)
def test_the_best_checkpoint_of_both_stages_is_kept(tmp_path, way):
    """The supervised one where the feedback made it worse."""
    values, said, seen = iter(DEV[way]), [], []

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return {"rougeL": next(values) if len(seen) > 1 else 0.1}

    config = settings(trainer(steps=4, best_metric="rougeL"), eval_period=3, best_metric="rougeL")
    trained = train(tmp_path, config, evaluate=evaluate, report=said.append)
    assert trained.work.evaluation_seconds > 0
    lines = [line for line in metric_lines(tmp_path / "feedback") if "dev/rougeL" in line]
    assert [(line["step"], line["dev/rougeL"]) for line in lines] == list(
        zip((0, 3, 6), DEV[way], strict=True)
    )
    if way == "worse":
        assert trained.step == 4 and trained.directory == tmp_path / "checkpoint_4"
        assert_trees_equal(trained.params, open_checkpoint(tmp_path / "checkpoint_4").load())
        assert said[-1] == "feedback: no checkpoint is better than checkpoint_4, which is kept"
    else:
        assert trained.step == 7 and trained.directory == tmp_path / "feedback" / "checkpoint_3"
        assert_trees_equal(trained.params, seen[2])
    again = train(tmp_path, config, evaluate=evaluate)
    assert again.directory == trained.directory
    assert_trees_equal(again.params, trained.params)


def test_killed_before_the_first_checkpoint_measures_the_beginning_once(tmp_path):
    config = settings(Given(), eval_period=3, best_metric="rougeL", checkpoint_period=100)

    def evaluate(params):
        return {"rougeL": 0.5}

    with pytest.raises(Killed):
        train(tmp_path, config, evaluate=evaluate, report=killing_in_feedback(1))
    train(tmp_path, config, evaluate=evaluate)
    lines = metric_lines(tmp_path / "feedback")
    assert [line["step"] for line in lines if "dev/rougeL" in line] == [0, 3, 6]


@pytest.mark.benchmark
def test_running_away_stops(tmp_path):
    config = settings(schedule=lambda count: np.float32(1e30) + 0 * count)
    with pytest.raises(UserError, match=r"at step 1 is .*no checkpoint was made"):
        train(tmp_path, config)
    assert (tmp_path / "checkpoint_4").is_dir()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_samples": 1}, r"FeedbackTrainer.num_samples \(NUM_SAMPLES\) = 1 must be at least 2"),
        ({"temperature": 0}, r"FeedbackTrainer.temperature \(TEMPERATURE\) = 0 must be above 0"),
        ({"top_k": 0}, r"\(TOP_K\) = 0"),
        ({"top_p": 1.5}, r"\(TOP_P\) = 1.5"),
        ({"supervised_weight": -1}, r"\(SUPERVISED_WEIGHT\) = -1"),
        ({"steps": 0}, "feedback.FeedbackTrainer.steps = 0"),
        ({"batch_size": 8, "num_microbatches": 3}, "not a multiple of num_microbatches"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        settings(**changes)


def test_a_stage_before_a_stage_is_refused():
    with pytest.raises(UserError, match=r"\(SUPERVISED_TRAINER\) is itself a FeedbackTrainer"):
        settings(settings())
