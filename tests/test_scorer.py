"""The scorer: what it asks, of whom, and that chunks and crashes leave no trace."""

import numpy as np
import pytest
from tiny_experiment import tiny_experiment

from ait_jax.errors import UserError
from ait_jax.models.parameters import init_params
from ait_jax.perturb import perturbed_instructions
from ait_jax.scorer import likelihoods
from ait_jax.scorer.engine import Engine
from ait_jax.scorer.scorer import Scorer, scoring_instances


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    experiment = tiny_experiment(tmp_path_factory.mktemp("unused"))
    engine = Engine(experiment.model, experiment.partitioner, experiment.buckets, 1024)
    params = engine.place(init_params(experiment.model, 1)[0])
    return experiment, engine, params


def score(setting, path, scorer=None, tasks=None, report=lambda line: None):
    experiment, engine, params = setting
    names = tasks or list(experiment.pool)[:4]
    (scorer or experiment.scorer).score(
        names, path, pool=experiment.pool, engine=engine, params=params,
        vocabulary=experiment.vocabulary, encoding=experiment.encoding, seed=0, round=1,
        report=report,
    )
    return likelihoods.read_rows(path)


@pytest.fixture(scope="module")
def rows(setting, tmp_path_factory):
    return score(setting, tmp_path_factory.mktemp("scored") / "likelihoods.parquet")


def test_every_instance_is_scored_under_every_prompt(setting, rows):
    experiment, _, _ = setting
    keys = list(zip(rows["task"], rows["instance_id"], rows["prompt"]))
    expected = [
        (name, instance.id, j)
        for name in list(experiment.pool)[:4]
        for instance in scoring_instances(experiment.pool[name], 2, seed=0, round=1)
        for j in range(3)
    ]
    assert keys == expected
    assert all(value <= 0 and np.isfinite(value) for value in rows["log_likelihood"])


def test_a_row_is_the_likelihood_of_the_answer_under_that_prompt(setting, rows):
    experiment, engine, params = setting
    vocabulary, encoding = experiment.vocabulary, experiment.encoding
    row = 5  # second instance, last perturbation
    task = experiment.pool[rows["task"][row]]
    instance = next(i for i in task.instances if i.id == rows["instance_id"][row])
    instruction = perturbed_instructions(task, experiment.scorer.perturbation, 2, seed=0, round=1)[2]
    text = encoding.encode(
        instruction, instance.input, vocabulary.count_tokens, vocabulary.truncate
    ).text
    prompt = vocabulary.encode_source(text, 128)
    target = [*vocabulary.encode(rows["answer"][row])[:7], 1]
    assert rows["num_prompt_tokens"][row] == len(prompt)
    assert rows["num_answer_tokens"][row] == len(target)
    value = engine.log_likelihoods(params, [prompt], [target])[0]
    assert rows["log_likelihood"][row] == pytest.approx(float(value), abs=1e-5)


def test_chunks_do_not_change_the_numbers(setting, rows, tmp_path):
    one = score(setting, tmp_path / "a.parquet", Scorer(num_perturbations=2, num_instances=2))
    for name in ("task", "instance_id", "prompt", "answer"):
        assert one[name] == rows[name]
    np.testing.assert_allclose(one["log_likelihood"], rows["log_likelihood"], atol=1e-5)


def test_a_damaged_or_foreign_chunk_is_scored_again(setting, rows, tmp_path):
    folder = tmp_path / "likelihoods.chunks"
    folder.mkdir()
    (folder / "chunk_00000.parquet").write_bytes(b"PAR1 cut short")
    lines: list[str] = []
    again = score(setting, tmp_path / "likelihoods.parquet", report=lines.append)
    assert again == rows
    assert any("cannot be read as parquet" in line for line in lines)
    assert not folder.exists()


def test_gold_answers_are_the_first_references(setting, tmp_path):
    experiment, _, _ = setting
    gold = Scorer(num_perturbations=1, num_instances=1, answers="gold")
    rows = score(setting, tmp_path / "gold.parquet", gold)
    for name, instance_id, answer in zip(rows["task"], rows["instance_id"], rows["answer"]):
        instance = next(i for i in experiment.pool[name].instances if i.id == instance_id)
        assert answer == instance.outputs[0]


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="num_perturbations = 0"):
        Scorer(num_perturbations=0)
    with pytest.raises(UserError, match="answers = 'labels'"):
        Scorer(answers="labels")
