"""Round 0 taken over from another strategy's run: the folder is the one that a run alone leaves."""

import dataclasses
import json
import os

import numpy as np
import pytest
from run_files import checkpoints, stable_files
from tiny_experiment import tiny_experiment

from ait_jax.errors import UserError
from ait_jax.rounds import active, round_zero
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.selection.selection import Easy, PromptUncertainty, Random

CONFIG = """\
experiment.Experiment.strategy = %STRATEGY
tiny.seed = 0
"""


def config_of(strategy) -> str:
    name = f"selection.{type(strategy).__name__}"
    return f"STRATEGY = @{name}()\n{CONFIG}STRATEGY/{name}.direction = 'high'\n"


def run(folder, strategy, **arguments):
    made = tiny_experiment(folder, strategy=strategy, rounds=2)
    return active.run(made, config_of(strategy), lambda line: None, **arguments)


@pytest.fixture(scope="module")
def giver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("giver")
    run(folder, PromptUncertainty())
    return folder


# With another strategy a third run is needed, half a minute: these run with -m benchmark.
@pytest.mark.parametrize(
    "strategy",
    [
        PromptUncertainty(),
        pytest.param(Easy(), marks=pytest.mark.benchmark),
        pytest.param(Random(), marks=pytest.mark.benchmark),
    ],
    ids=lambda strategy: strategy.name,
)
def test_the_folder_equals_that_of_a_run_alone(giver, tmp_path, strategy):
    before = stable_files(giver)
    points = run(tmp_path / "shared", strategy, round_0_from=str(giver))
    alone = giver
    if strategy != PromptUncertainty():
        alone = tmp_path / "alone"
        assert points == run(alone, strategy)
    assert stable_files(giver) == before, "the giver is as it was"
    expected, found = stable_files(alone), stable_files(tmp_path / "shared")
    assert list(expected) == list(found)
    assert [name for name in expected if expected[name] != found[name]] == []
    wanted, there = checkpoints(alone), checkpoints(tmp_path / "shared")
    assert list(wanted) == list(there)
    for name in wanted:
        for parameter in wanted[name]:
            np.testing.assert_array_equal(wanted[name][parameter], there[name][parameter])
    timings = [
        json.loads(line) for line in (tmp_path / "shared/timings.jsonl").read_text().splitlines()
    ]
    shared = {timing["stage"] for timing in timings if timing.get("shared_from") == giver.name}
    assert ("round_000/score" in shared) == strategy.needs_scores
    assert {"base/evaluate", "round_000/train", "round_000/evaluate"} <= shared
    assert "round_000/select" not in shared
    linked = [p for p in (tmp_path / "shared/round_000").glob("checkpoint_*/**/*") if p.is_file()]
    assert linked and all(os.stat(path).st_nlink > 1 for path in linked)


def test_stopped_while_copying_it_begins_again(giver, tmp_path, monkeypatch):
    real = round_zero._copy_folder

    def stopped(source, target, left_out):
        if target.name == "round_000":
            raise KeyboardInterrupt
        real(source, target, left_out)

    monkeypatch.setattr(round_zero, "_copy_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Random(), round_0_from=str(giver))
    assert json.loads((tmp_path / "run.json").read_text())["stages"] == {}
    monkeypatch.undo()
    experiment = tiny_experiment(tmp_path, strategy=Random())
    directory = RunDirectory(tmp_path)
    round_zero.take_over(directory, giver, experiment, config_of(Random()))
    assert list(json.loads((tmp_path / "run.json").read_text())["stages"]) == [
        "round_000/splits",
        "base/evaluate",
        "round_000/train",
        "round_000/evaluate",
    ]
    # Begun, it is left as it is, whatever is given.
    round_zero.take_over(directory, tmp_path / "gone", experiment, config_of(Random()))


def test_what_differs_or_is_not_done_is_refused(giver, tmp_path):
    made = tiny_experiment(tmp_path, strategy=Easy())
    directory = RunDirectory(tmp_path)

    same = config_of(Easy())

    def take(source, config=same):
        round_zero.take_over(directory, source, made, config)

    with pytest.raises(
        UserError, match="differs from this run in more.*\n  tiny.seed: was 0, now 1"
    ):
        take(giver, config_of(Easy()).replace("tiny.seed = 0", "tiny.seed = 1"))
    with pytest.raises(UserError, match="has no run.json"):
        take(tmp_path / "nowhere")
    state = json.loads((giver / "run.json").read_text())
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.gin").write_text(config_of(PromptUncertainty()))
    stages = {"round_000/splits": state["stages"]["round_000/splits"]}
    (half / "run.json").write_text(json.dumps({**state, "stages": stages}))
    with pytest.raises(UserError, match="has not evaluated its round 0"):
        take(half)
    (half / "run.json").write_text(json.dumps({**state, "code_version": "0"}))
    with pytest.raises(UserError, match="version of ait-jax: was 0"):
        take(half)
    assert not (tmp_path / "run.json").exists()


def test_scores_are_shared_only_where_they_are_the_same():
    stages = {"round_000/splits": 1, "round_000/score": 2, "round_000/select": 3}
    scored = tiny_experiment("unused")
    assert round_zero.shared_stages(scored, stages) == {"round_000/splits": 1, "round_000/score": 2}
    for change in ({"strategy": Random()}, {"racing": True}, {"grow_pool": True}):
        changed = dataclasses.replace(scored, **change)
        assert round_zero.shared_stages(changed, stages) == {"round_000/splits": 1}


def test_only_the_strategys_own_parameters_may_differ():
    saved, current = config_of(PromptUncertainty()), config_of(Easy())
    assert round_zero.other_differences(saved, current) == []
    extra = f"{current}selection.Other.direction = 'low'\n"
    assert round_zero.other_differences(saved, extra) == [
        "selection.Other.direction: was not set, now 'low'"
    ]


def test_macros_that_only_the_strategy_uses_are_the_strategys():
    config = (
        "RELEASED_LISTS = 'Random_{round}'\nSEED = 1\nSTRATEGY = @released.Released()\n"
        "STRATEGY/released.Released.lists = %RELEASED_LISTS\n"
        "STRATEGY/released.Released.missing_tasks = %MISSING\nMISSING = 'drop'\n"
        "INITIAL_SPLITS/initial.Drawn.missing_tasks = %MISSING\n"
        "experiment.Experiment.seed = %SEED\nexperiment.Experiment.strategy = %STRATEGY\n"
    )
    parameters = round_zero.strategy_parameters(config)
    assert "RELEASED_LISTS" in parameters and not {"SEED", "MISSING"} & parameters
