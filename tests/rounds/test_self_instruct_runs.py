"""Runs on a Self-Instruct pool: Alpaca's prompts, a schedule, test tasks without references."""

import dataclasses
import json

import pytest
from test_self_instruct import load, row, write_lines
from tiny_experiment import CONFIG, Stopped, stopping_at, tiny_experiment

from ait_jax.errors import UserError
from ait_jax.pool.initial import Drawn
from ait_jax.pool.splits import read_splits
from ait_jax.prompts.perturb import ExampleResampling, WordDrop
from ait_jax.prompts.prompts import AlpacaEncoding
from ait_jax.rounds import active
from ait_jax.scorer.scorer import Scorer


def tiny_run(tmp_path, pool, **changes):
    return tiny_experiment(
        tmp_path / "run",
        pool=pool,
        initial_splits=Drawn(initial_tasks=2, dev_tasks=0),
        encoding=AlpacaEncoding(128),
        scorer=Scorer(WordDrop(parts="TD"), num_perturbations=2, num_instances=1),
        **changes,
    )


def test_a_run_with_a_schedule_and_test_tasks_without_references(tmp_path):
    source = write_lines(
        tmp_path / "a.jsonl",
        *(row(f"Say number {i} in a word.", "x" * (i % 2), f"n{i}") for i in range(12)),
    )
    test = write_lines(
        tmp_path / "t.jsonl", row("Open question?", "", ""), row("Another?", "", "yes")
    )
    experiment = tiny_run(tmp_path, load(tmp_path, source, test), rounds=3, tasks_per_round=[1, 4])
    lines = []
    with pytest.raises(Stopped):
        active.run(experiment, CONFIG, stopping_at("round_002: training", lines))
    sizes = [len(read_splits(tmp_path / "run" / f"round_00{i}").train) for i in range(3)]
    assert sizes == [2, 3, 7]
    assert not any("fewer than 2 positive examples" in line for line in lines), (
        "the template shows none"
    )
    predictions = tmp_path / "run" / "round_001" / "predictions.jsonl"
    found = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [len(f["inputs"]["references"]) for f in found] == [0, 1]
    assert found[0]["inputs"]["inputs_pretokenized"].endswith(
        "### Instruction:\nOpen question?\n\n### Response:"
    )
    result = json.loads((tmp_path / "run" / "round_001" / "eval.json").read_text())["test"]
    assert (result["num_instances"], result["num_without_references"]) == (1, 1)


def test_a_run_without_any_reference(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", *(row(f"Say {i}.", "", f"n{i}") for i in range(6)))
    test = write_lines(tmp_path / "t.jsonl", {"instruction": "Open question?"})
    lines = []
    experiment = tiny_run(tmp_path, load(tmp_path, source, test), rounds=1)
    active.run(experiment, CONFIG, lines.append)
    assert any("no test instance has a reference" in line for line in lines)


def test_schedules_and_perturbations_that_cannot_be(tmp_path):
    pool = load(tmp_path, write_lines(tmp_path / "a.jsonl", *(row(f"Say {i}.") for i in range(6))))
    with pytest.raises(
        UserError, match=r"TASKS_PER_ROUND = \[1, 2\] is for 2 selections, ROUNDS = 4 makes 3"
    ):
        tiny_run(tmp_path, pool, rounds=4, tasks_per_round=[1, 2])
    for wrong in ([], [1, 0], [1, 2.5], 0, [True]):
        with pytest.raises(UserError, match="TASKS_PER_ROUND = .* must be a whole number"):
            tiny_run(tmp_path, pool, tasks_per_round=wrong)
    with pytest.raises(
        UserError, match=r"2 selections of TASKS_PER_ROUND = \[1, 4\] need 5 tasks, 4 remain"
    ):
        active.run(
            tiny_run(tmp_path, pool, rounds=3, tasks_per_round=[1, 4]), CONFIG, lambda line: None
        )
    for perturbation in (ExampleResampling(), WordDrop(parts="EXAMPLES")):
        with pytest.raises(UserError, match="which AlpacaEncoding does not show"):
            experiment = tiny_run(tmp_path, pool)
            dataclasses.replace(experiment, scorer=Scorer(perturbation))
