"""A task's details: the scored forms, the likelihoods under each, what every word does."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_report import SEED, settings_of, synthetic_pool, write_run

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.pool import Splits
from ait_jax.prompts.perturb import (
    ExampleResampling,
    WordDrop,
    WordMask,
    kept_words,
    perturbed_instruction,
)
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.randomness import Key
from ait_jax.report.likelihood_rows import opened, scored_instances
from ait_jax.report.run_report import payload_and_details
from ait_jax.report.run_results import TaskIndex
from ait_jax.report.task_details import details, in_order_of_interest, word_effects
from ait_jax.rounds import record
from ait_jax.scorer import likelihoods
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts

POOL = synthetic_pool(10, words=9, instances=4)
NAMES = list(POOL)
SPLITS = Splits(train=NAMES[:1], remain=NAMES[1:7], dev=NAMES[7:8], test=NAMES[8:])
SETTINGS = settings_of(POOL, num_perturbations=12)
THE_WORD = 4


def one_word_matters(task, instance, j, kept):
    """Without the fifth word of the definition the answer is unlikely."""
    return -0.1 if kept is None or kept[THE_WORD] else -2.0 - int(instance.id) / 10


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_run(path, SETTINGS, SPLITS, log_likelihood=one_word_matters)
    return path


@pytest.fixture(scope="module")
def shown(run):
    payload, chunks = payload_and_details(
        record.read(run), SETTINGS, title="t", detail_megabytes=1.0
    )
    assert payload["details_left_out"] == 0 and payload["details_note"] == ""
    return {NAMES[int(n)]: detail for chunk in chunks for n, detail in chunk["data"].items()}


def test_forms_answers_and_likelihoods_are_those_of_the_table(run, shown):
    rows = likelihoods.read_rows(run / "round_000" / "likelihoods.parquet")
    columns = ("task", "instance_id", "prompt", "log_likelihood")
    p = {
        (t, i, j): np.exp(np.float64(v))
        for t, i, j, v in zip(*(rows[c] for c in columns), strict=True)
    }
    name = NAMES[3]
    found = shown[name]["rounds"]["0"]
    assert shown[name]["definition"] == POOL[name].instruction.definition
    assert {instance["id"] for instance in found["instances"]} == {i for t, i, _ in p if t == name}
    for instance in found["instances"]:
        expected = [p[name, instance["id"], j] for j in range(13)]
        assert instance["p"] == pytest.approx(expected, rel=1e-3)
        assert instance["answer"] == f"answer {instance['id']}"
    for j, form in enumerate(found["forms"], start=1):
        perturbed = perturbed_instruction(POOL[name], SETTINGS.perturbation, j, Key(SEED, 0))
        assert form["definition"] == perturbed.definition
        words = POOL[name].instruction.definition.split()
        kept = [word for i, word in enumerate(words) if i not in form["dropped"]]
        assert " ".join(kept) == form["definition"]
        moved = [abs(p[name, i["id"], 0] - p[name, i["id"], j]) for i in found["instances"]]
        assert form["change"] == pytest.approx(np.mean(moved), rel=1e-3, abs=1e-9)


def test_the_word_that_matters_stands_out(shown):
    for name in SPLITS.remain:
        effects = shown[name]["rounds"]["0"]["word_effects"]
        known = {i: value for i, value in enumerate(effects) if value is not None}
        if THE_WORD not in known:
            continue  # never dropped, or always: nothing can be said
        assert max(known, key=known.get) == THE_WORD
        gap = np.exp(-0.1) - np.mean(
            [np.exp(-2.0 - int(i["id"]) / 10) for i in shown[name]["rounds"]["0"]["instances"]]
        )
        assert known[THE_WORD] == pytest.approx(gap, rel=1e-3)


def test_word_effects_equal_a_loop_in_float64():
    random = np.random.default_rng(0)
    kept = random.random((7, 5)) > 0.4
    kept[:, 0], kept[:, 1] = True, False
    change = random.random(7)
    change[2] = np.nan  # a race did not ask for it
    found = word_effects(kept, change)
    for word in range(5):
        with_it = [change[f] for f in range(7) if kept[f, word] and f != 2]
        without = [change[f] for f in range(7) if not kept[f, word] and f != 2]
        if with_it and without:
            expected = sum(without) / len(without) - sum(with_it) / len(with_it)
            assert found[word] == pytest.approx(expected, rel=1e-12)
        else:
            assert np.isnan(found[word])
    assert np.isnan(found[:2]).all() and np.isfinite(found[2:]).any()


@pytest.mark.parametrize(
    "perturbation", [WordDrop(), WordDrop(parts="EXAMPLES"), WordMask(rate=0.4)], ids=str
)
def test_kept_words_are_those_of_the_perturbed_definition(perturbation):
    for j in range(1, 6):
        task = POOL[NAMES[0]]
        kept = kept_words(task, perturbation, j, Key(1, 2))
        words = zip(task.instruction.definition.split(), kept, strict=True)
        perturbed = perturbed_instruction(task, perturbation, j, Key(1, 2)).definition.split()
        if isinstance(perturbation, WordMask):
            assert [not word.startswith("<extra_id_") for word in perturbed] == list(kept)
        else:
            assert [word for word, there in words if there] == perturbed
    assert kept_words(task, ExampleResampling(), 1, Key(1, 2)) is None


def test_a_race_leaves_gaps(run, tmp_path):
    """Other prompts for other instances, in two row groups: what was not asked is null."""
    path = tmp_path / "run"
    write_run(path, SETTINGS, SPLITS, log_likelihood=one_word_matters)
    table = path / "round_000" / "likelihoods.parquet"
    rows = likelihoods.read_rows(table)
    waves = []
    for wave in ((0, 1, 2), (5,)):
        keep = [
            n
            for n, j in enumerate(rows["prompt"])
            if j in wave and (j != 2 or rows["instance_id"][n] == "0")
        ]
        waves.append(tmp_path / f"{wave[0]}.parquet")
        likelihoods.write_rows(waves[-1], {c: [rows[c][n] for n in keep] for c in rows})
    likelihoods.concatenate(waves, table)
    _, chunks = payload_and_details(record.read(path), SETTINGS, title="t", detail_megabytes=1.0)
    found = chunks[0]["data"]["2"]["rounds"]["0"]
    for instance in found["instances"]:
        assert [j for j, p in enumerate(instance["p"]) if p is not None] == (
            [0, 1, 2, 5] if instance["id"] == "0" else [0, 1, 5]
        )
    assert [j for j, form in enumerate(found["forms"], 1) if form["change"] is not None][-1] == 5


def test_prompts_that_are_not_those_that_were_scored_are_not_shown(run):
    other = dataclasses.replace(SETTINGS, num_instances=3)
    payload, chunks = payload_and_details(record.read(run), other, title="t", detail_megabytes=1.0)
    assert chunks == [] and "would get others in round 0 now" in payload["summary"]["notes"][-1]
    # The table says 50 tokens of every prompt, and no prompt has as many.
    known = dataclasses.replace(SETTINGS, vocabulary=Vocabulary(assets.mini_vocabulary()))
    payload, chunks = payload_and_details(record.read(run), known, title="t", detail_megabytes=1.0)
    assert chunks == [] and "prompt 0 of task" in payload["summary"]["notes"][-1]


def test_the_prompts_of_the_scorer_itself_are_recognized(run, tmp_path):
    known = dataclasses.replace(SETTINGS, vocabulary=Vocabulary(assets.mini_vocabulary()))
    path = tmp_path / "run"
    write_run(path, SETTINGS, SPLITS)
    table = path / "round_000" / "likelihoods.parquet"
    rows = likelihoods.read_rows(table)
    prompts = TaskPrompts(
        POOL, known.vocabulary, known.encoding, known.perturbation, 2, Key(SEED, 0)
    )
    tokens = {
        (name, instance.id, j): len(prompt.tokens)
        for name in SPLITS.remain
        for instance, _, numbers, built in prompts.build(name, same_prompts(range(13)))
        for j, prompt in zip(numbers, built, strict=True)
    }
    rows["num_prompt_tokens"] = [
        tokens[key] for key in zip(rows["task"], rows["instance_id"], rows["prompt"], strict=True)
    ]
    likelihoods.write_rows(table, rows)
    _, chunks = payload_and_details(record.read(path), known, title="t", detail_megabytes=1.0)
    assert len(chunks[0]["tasks"]) == 10


def test_little_room_keeps_the_selected_tasks(run, monkeypatch):
    monkeypatch.setattr("ait_jax.report.task_details.TASKS_PER_CHUNK", 2)
    files, index = record.read(run), TaskIndex(record.read(run))
    payload, _ = payload_and_details(files, SETTINGS, title="t", detail_megabytes=1.0)
    order = in_order_of_interest(files, index, payload["rounds"])
    assert sorted(order) == sorted(NAMES)
    assert index.numbers(order[:2]) == payload["rounds"][0]["selected"]
    some, left_out = details(files, index, SETTINGS.pool, SETTINGS, payload["rounds"], 0.003)
    shown = [number for chunk in some for number in chunk["tasks"]]
    assert shown[:2] == payload["rounds"][0]["selected"] and 2 <= len(shown) < 10
    assert left_out == 10 - len(shown)
    payload, _ = payload_and_details(files, SETTINGS, title="t", detail_megabytes=0.003)
    assert f"Details of {len(shown)} of 10 tasks" in payload["details_note"]


def test_a_table_without_a_column_is_refused(tmp_path):
    pq.write_table(pa.table({"task": NAMES[:1]}), tmp_path / "likelihoods.parquet")
    refused = pytest.raises(UserError, match="lacks the column.*instance_id")
    with refused, opened(tmp_path / "likelihoods.parquet"):
        pass


def test_only_rows_of_the_tasks_asked_for_are_read(run):
    with opened(run / "round_000" / "likelihoods.parquet") as rows:
        assert set(rows.tasks) == set(SPLITS.remain)
        read = rows.read([NAMES[3], NAMES[4], "no such task"])
        assert set(scored_instances(read, NAMES)) == {NAMES[3], NAMES[4]}
        (of_task,) = scored_instances(read, [NAMES[3]]).values()
        assert len(of_task) == 2 and all(
            len(each.log_likelihood) == 13 for each in of_task.values()
        )
        assert scored_instances(rows.read(["no such task"]), NAMES) == {}
