"""Datasets ranked by the prompt uncertainty of the tasks like theirs, on made-up scores."""

import json

import numpy as np
import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.grown_pool import read_entries, read_report
from ait_jax.tasks.grow.growth import Growth, grow
from ait_jax.tasks.grow.steering import KIND, NEAREST, NOTHING, OWN, Steering
from tiny_datasets import instruction, reviews, write_lines
from tiny_endpoint import connect, server  # noqa: F401

from ait_jax.errors import UserError
from ait_jax.runtime import reporter
from ait_jax.scorer.likelihoods import write_task_scores
from ait_jax.selection.uncertainty import TaskScores

# Dataset -> (what its task is about, the made-up prompt uncertainty).
SCORED = {
    "recipes": ("Name the herb that this soup recipe needs.", 0.4),
    "stews": ("Name the meat that this stew recipe needs.", 0.35),
    "rivers": ("Name the river that flows through this town.", 0.02),
    "lakes": ("Name the lake beside this mountain village.", 0.03),
}
CANDIDATES = {
    "towns": "Villages and towns beside a river or a lake.",
    "kitchen": "Soup and stew, each a recipe with herb and meat.",
    "planets": "Zyx qwv.",
}


def made_up_scores(folder, names, uncertainty):
    nan = np.full(len(names), np.nan)
    counts = np.full(len(names), 2)
    scores = TaskScores(
        tuple(names), np.array(uncertainty), nan, nan, nan, nan, nan, counts, counts
    )
    write_task_scores(folder / "task_scores.parquet", scores)


@pytest.fixture
def world(tmp_path):
    """A pool of one task a dataset, a scored round, and a file of more datasets."""
    released = [
        instruction(name, instruction=text, input_fields=["text"], output_field=["name"])
        for name, (text, _) in SCORED.items()
    ]
    (tmp_path / "instructions.json").write_text(json.dumps(released))
    grow(Growth(tmp_path / "pool", [str(tmp_path / "instructions.json")]))
    entries = list(read_entries(tmp_path / "pool"))
    by_dataset = {e.task.metadata["Source"][0]: e.task.name for e in entries}
    names = [by_dataset[name] for name in SCORED] + ["of_another_pool"]
    folder = tmp_path / "run" / "round_000"
    folder.mkdir(parents=True)
    made_up_scores(folder, names, [u for _, u in SCORED.values()] + [0.9])
    (folder / "ambiguous.txt").write_text(f"{by_dataset['recipes']}\n")
    lines = [reviews(name, summary=text) for name, text in CANDIDATES.items()]
    write_lines(tmp_path / "data.jsonl", lines)
    return tmp_path


def growth(world, **changed) -> Growth:
    sources = [str(world / "data.jsonl")]
    return Growth(
        **{"pool": world / "pool", "sources": sources, "steer": world / "run/round_000"} | changed
    )


def added(world, **changed):
    """The datasets of the tasks that a growth adds, in order, with its lines."""
    before = len(list(read_entries(world / "pool")))
    lines: list[str] = []
    with reporter.using(reporter.Reporter(line=lines.append)):
        grow(growth(world, **changed))
    entries = list(read_entries(world / "pool"))[before:]
    return list(dict.fromkeys(e.task.metadata["Source"][0] for e in entries)), "\n".join(lines)


def test_datasets_nearest_to_ambiguous_tasks_come_first(world):
    assert added(world)[0] == ["kitchen", "planets", "towns"]


def test_without_steering_the_source_has_its_order(world):
    assert added(world, steer=None)[0] == list(CANDIDATES)


def test_the_ranking_is_the_same_again_and_in_any_order_of_the_source(world):
    reports = []
    for number, names in enumerate((list(CANDIDATES), list(CANDIDATES)[::-1])):
        data = world / f"data{number}.jsonl"
        write_lines(data, [reviews(name, summary=CANDIDATES[name]) for name in names])
        (world / f"pool{number}").mkdir()
        for file in ("instructions.jsonl", "report.json"):
            (world / f"pool{number}" / file).write_bytes((world / "pool" / file).read_bytes())
        grow(growth(world, pool=world / f"pool{number}", sources=[str(data)]))
        reports.append(read_report(world / f"pool{number}")["growths"][-1]["steering"])
    assert reports[0] == reports[1]
    assert [row["dataset"] for row in reports[0]["datasets"]] == ["kitchen", "planets", "towns"]


def test_a_budget_of_tasks_goes_to_the_first(world):
    found, lines = added(world, max_tasks=1)
    assert found == ["kitchen"] and "stopped: --max_tasks=1" in lines
    assert len(list(read_entries(world / "pool"))) == len(SCORED) + 1
    # The same command goes on: what is there already costs nothing.
    assert added(world, max_tasks=1)[0] in (["kitchen"], ["planets"])


def test_only_what_is_more_sensitive_than_the_average(world):
    found, lines = added(world, steer_only=True)
    assert found == ["kitchen"]
    assert "2  left out: no more prompt-sensitive than the average" in lines


def test_the_choice_is_explained(world):
    _, lines = added(world)
    assert (
        "4 scored tasks of this pool (1 more are of other pools), mean prompt uncertainty 0.200"
        in lines
    )
    (line,) = [line for line in lines.splitlines() if " kitchen: " in line]
    assert "its nearest tasks" in line and "1 ambiguous: dynosaur_recipes_name" in line
    report = read_report(world / "pool")["growths"][-1]
    assert report["growth"]["steer"].endswith("round_000")
    first = report["steering"]["datasets"][0]
    assert (first["dataset"], first["evidence"], first["ambiguous"]) == ("kitchen", NEAREST, 1)
    assert first["tasks"][0].startswith("dynosaur_recipes") and first["uncertainty"] > 0.3


def test_own_tasks_tell_most_then_those_of_the_kind(world):
    entries = list(read_entries(world / "pool"))
    steering = Steering(world / "run/round_000", entries)
    assert steering.num_unknown == 1
    own = steering.estimate(Dataset("rivers", "x", "Soup and stew recipes with herb and meat."))
    assert (own.evidence, own.uncertainty) == (OWN, 0.02)
    nothing = steering.estimate(Dataset("zyx", "x", fields=(Field("qwv", "text"),)))
    assert nothing.evidence == NOTHING and nothing.uncertainty == pytest.approx(steering.mean)
    near = steering.estimate(Dataset("zyx", "x", "A soup recipe"))
    assert near.evidence == NEAREST and near.tasks[0].dataset == "recipes"


def test_tasks_of_the_same_category(world):
    data = world / "kinds.jsonl"
    kinds = {"first": "question-answering", "second": "summarization"}
    lines = [reviews(name, task_category=[kind]) for name, kind in kinds.items()]
    write_lines(data, lines)
    grow(Growth(world / "kinds", [str(data)]))
    entries = list(read_entries(world / "kinds"))
    made_up_scores(
        world,
        [e.task.name for e in entries],
        [0.5 if e.task.metadata["Source"] == ("first",) else 0.1 for e in entries],
    )
    steering = Steering(world, entries)
    categories = {
        c for e in entries if e.task.metadata["Source"] == ("first",) for c in e.task.categories
    }
    assert categories, "the templates name one"
    unknown = Dataset("third", "x", task_categories=("Question Answering",))
    other = Dataset("fourth", "x", task_categories=tuple(categories))
    assert KIND in {steering.estimate(d).evidence for d in (unknown, other)}


def test_released_instructions_are_steered_too(world):
    released = [
        instruction(
            "a", instruction="Which river flows here?", input_fields=["q"], output_field=["r"]
        ),
        instruction(
            "b",
            instruction="Which herb does the soup need?",
            input_fields=["q"],
            output_field=["r"],
        ),
    ]
    (world / "more.json").write_text(json.dumps(released))
    assert added(world, sources=[str(world / "more.json")])[0] == ["b", "a"]


def test_an_endpoint_is_asked_about_the_first_datasets_only(world, server, connect):
    task = {"instruction": "Rate it.", "input_fields": ["review"], "output_field": "label"}
    server.answer = lambda body: json.dumps(task)
    more = [reviews(f"kitchen_{i:02d}", summary=CANDIDATES["kitchen"]) for i in range(40)]
    write_lines(world / "many.jsonl", [*more, reviews("towns", summary=CANDIDATES["towns"])])
    found, _ = added(world, sources=[str(world / "many.jsonl")], endpoint=connect(), max_tasks=3)
    assert found == ["kitchen_00", "kitchen_01", "kitchen_02"]
    assert len(server.requests) == 2 * 16, "both styles, the first datasets alone"


def test_mistakes_are_named(world):
    with pytest.raises(
        UserError, match="has no task_scores.parquet.*Scored rounds there: round_000"
    ):
        grow(growth(world, steer=world / "run"))
    entries = read_entries(world / "empty")
    with pytest.raises(UserError, match="scored 5 tasks, none of them in the pool"):
        Steering(world / "run/round_000", entries)
