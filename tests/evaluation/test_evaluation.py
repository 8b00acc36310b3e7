"""evaluation.py against rouge_score used directly and against cases worked by hand."""

import json
import random

import pytest
from rouge_score import rouge_scorer
from shared_data import NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.evaluation import evaluation
from ait_jax.evaluation.evaluation import (
    Prediction,
    evaluate,
    evaluate_splits,
    exact_match,
    rouge_l,
)


def item(task, instance_id, prediction, *references) -> Prediction:
    return Prediction(task, str(instance_id), prediction, references)


def is_cls(task: str) -> bool:
    return task.startswith("c")


def category_of(task: str) -> str:
    return {"c1": "Textual Entailment", "c2": "Word Analogy"}.get(task, "Title Generation")


WORDS = "the cats running quickly Run ran 3.5 naïve don't, caresses (ponies) — été".split()


def test_rouge_l_is_the_librarys():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    generator = random.Random(0)
    values = set()
    for _ in range(300):
        texts = [" ".join(generator.choices(WORDS, k=generator.randint(0, 12))) for _ in range(3)]
        expected = max(
            scorer.score(target=reference, prediction=texts[0])["rougeL"].fmeasure
            for reference in texts[1:]
        )
        assert rouge_l(texts[0], texts[1:]) == expected
        values.add(expected)
    assert len(values) > 30


def test_rouge_l_by_hand():
    # LCS "the cat" of 3 and 4 words: P 2/3, R 2/4, F 4/7. The second pair needs stemming.
    assert rouge_l("the cat slept", ["the black cat ran"]) == pytest.approx(4 / 7)
    assert rouge_l("running horses", ["run horse"]) == pytest.approx(1.0)
    assert rouge_l("b", ["a", "b", "c"]) == 1.0
    assert rouge_l("", ["a"]) == rouge_l("a", [""]) == rouge_l("", [""]) == 0.0
    assert rouge_l("東京", ["東京"]) == 0.0  # as in Tk-Instruct's English track


def test_exact_match_by_hand():
    assert exact_match(" The  Cat.\n", ["the cat"]) == 1.0
    assert exact_match("cat", ["the cat"]) == 0.0  # articles stay
    assert exact_match("no", ["yes", "No!"]) == 1.0
    assert exact_match("It's (A)", ["its a"]) == 1.0
    assert exact_match("a-b", ["a b"]) == 0.0  # punctuation goes, leaving no space
    assert exact_match("", ["."]) == 1.0 and exact_match("", ["x"]) == 0.0
    assert exact_match("ÉTÉ", ["été"]) == 1.0 and exact_match("東京", ["東京"]) == 1.0
    assert exact_match("«oui»", ["oui"]) == 0.0  # ASCII punctuation only


PREDICTIONS = [
    item("c1", 0, "yes", "yes"),
    item("c1", 1, "no", "yes"),
    item("c2", 0, "king", "King."),
    item("g1", 0, "the cat slept", "the black cat ran"),
    item("g1", 1, "", "a title"),
]


def test_evaluate_by_hand():
    result = evaluate(PREDICTIONS, is_cls, category_of)
    figures = {
        "rougeL": 51.4286,
        "rouge1": 51.4286,
        "exact_match": 40.0,
        "num_instances": 5,
        "num_tasks": 3,
    }
    assert {key: result[key] for key in figures} == figures  # (1 + 0 + 1 + 4/7 + 0) / 5
    assert result["cls"] == {
        "rougeL": 66.6667,
        "rouge1": 66.6667,
        "exact_match": 66.6667,
        "num_instances": 3,
        "num_tasks": 2,
    }
    assert result["gen"]["rougeL"] == 28.5714 and result["gen"]["exact_match"] == 0.0
    title = {
        "rougeL": 28.5714,
        "rouge1": 28.5714,
        "exact_match": 0.0,
        "num_instances": 2,
        "num_tasks": 1,
    }
    assert result["per_category"] == {
        "Textual Entailment": {
            "rougeL": 50.0,
            "rouge1": 50.0,
            "exact_match": 50.0,
            "num_instances": 2,
            "num_tasks": 1,
            "metric": "exact_match",
            "headline": 50.0,
        },
        "Title Generation": {**title, "metric": "rougeL", "headline": 28.5714},
        "Word Analogy": {
            "rougeL": 100.0,
            "rouge1": 100.0,
            "exact_match": 100.0,
            "num_instances": 1,
            "num_tasks": 1,
            "metric": "exact_match",
            "headline": 100.0,
        },
    }
    assert result["per_task"]["g1"] == {
        "rougeL": 28.5714,
        "rouge1": 28.5714,
        "exact_match": 0.0,
        "num_instances": 2,
    }
    assert list(result["per_task"]) == ["c1", "c2", "g1"]


def test_means_over_tasks_count_each_task_once():
    result = evaluate(PREDICTIONS, is_cls, category_of)
    # c1 50, c2 100, g1 (4/7 + 0) / 2.
    assert result["over_tasks"]["rougeL"] == pytest.approx((50 + 100 + 28.5714) / 3, abs=1e-4)
    assert result["over_tasks"]["exact_match"] == 50.0
    assert set(evaluate([], is_cls, category_of)["over_tasks"].values()) == {None}


def test_the_headline_metric_is_the_categorys():
    predictions = [item("c1", 0, "it is entailed", "it is neutral")]
    by_category = evaluate(predictions, is_cls, category_of)["per_category"]
    assert by_category["Textual Entailment"]["headline"] == 0.0
    by_category = evaluate(predictions, is_cls, lambda _: "Unheard Of")["per_category"]
    assert by_category["Unheard Of"]["headline"] == 66.6667
    by_category = evaluate(predictions, is_cls, lambda _: "Keyword Tagging")["per_category"]
    assert by_category["Keyword Tagging"]["metric"] == "rougeL"


def test_order_changes_nothing_and_json_is_stable():
    results = [
        json.dumps(evaluate(order, is_cls, category_of))
        for order in (PREDICTIONS, PREDICTIONS[::-1])
    ]
    assert results[0] == results[1]


def test_empty_groups_have_no_figures():
    result = evaluate([item("g1", 0, "a", "a")], is_cls, category_of)
    assert result["cls"] == {
        "rougeL": None,
        "rouge1": None,
        "exact_match": None,
        "num_instances": 0,
        "num_tasks": 0,
    }
    assert evaluate([], is_cls, category_of)["rougeL"] is None


def test_splits_are_apart():
    result = evaluate_splits(
        PREDICTIONS, {"test": ["c1", "c2"], "dev": ["g1"]}, is_cls, category_of
    )
    assert list(result) == ["test", "dev"]
    assert result["test"]["num_instances"] == 3 and result["dev"]["rougeL"] == 28.5714
    with pytest.raises(UserError, match="'g1', which is not in the splits test"):
        evaluate_splits(PREDICTIONS, {"test": ["c1", "c2"]}, is_cls, category_of)


def test_what_has_no_reference_is_counted_and_not_measured():
    result = evaluate([item("g1", 7, "a"), item("g1", 8, "b", "b")], is_cls, category_of)
    assert (result["rougeL"], result["num_instances"], result["num_without_references"]) == (
        100.0,
        1,
        1,
    )
    result = evaluate([item("g1", 7, "a")], is_cls, category_of)
    assert result["rougeL"] is None and result["per_task"] == {}


def test_bad_predictions_are_refused():
    with pytest.raises(UserError, match="task 'g1', instance '7' has two predictions"):
        evaluate([item("g1", 7, "a", "a")] * 2, is_cls, category_of)


def test_predictions_round_trip_in_t5x_format(tmp_path):
    path = tmp_path / "round_000" / "predictions.jsonl"
    predictions = [
        Prediction("g1", "id-1", "été 東京\u2028x", ("a\nb", "c"), 'prompt "q"\n'),
        Prediction("g1", "id-2", "", ("",), ""),
    ]
    evaluation.write_predictions(path, predictions)
    assert evaluation.read_predictions(path) == predictions
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3 and not lines[2]
    assert json.loads(lines[0]) == {
        "inputs": {
            "inputs_pretokenized": 'prompt "q"\n',
            "targets_pretokenized": "a\nb",
            "task": "g1",
            "id": "id-1",
            "references": ["a\nb", "c"],
        },
        "prediction": "été 東京\u2028x",
    }
    assert "été 東京" in lines[0].decode()
    assert [p.name for p in path.parent.iterdir()] == ["predictions.jsonl"]


def test_plain_t5x_lines_can_be_read(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"inputs": {"inputs_pretokenized": "q", "targets_pretokenized": "t"}, "prediction": "p"}\n'
    )
    assert evaluation.read_predictions(path) == [Prediction("", "1", "p", ("t",), "q")]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        "3",
        '{"inputs": {}}',
        '{"inputs": {"targets_pretokenized": 3}, "prediction": "x"}',
    ],
)
def test_broken_lines_are_named(tmp_path, line):
    path = tmp_path / "p.jsonl"
    evaluation.write_predictions(path, PREDICTIONS[:1])
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError, match="p.jsonl, line 2"):
        evaluation.read_predictions(path)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the predictions"):
        evaluation.read_predictions(tmp_path / "none.jsonl")
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        evaluation.read_predictions(tmp_path / "b")


@needs_shared
def test_baselines_on_real_tasks_score_as_baselines_do():
    """On all of NIV2's test tasks the papers give 28.5 and 14.2; these are 20 others."""
    paths = sorted((NIV2 / "tasks").glob("*.json"))[:20]
    demo, copied = [], []
    for path in paths:
        task = json.loads(path.read_text())
        outputs = [example["output"] for example in task["Positive Examples"]]
        for instance in task["Instances"][:10]:
            key = (path.stem, instance["id"])
            references = tuple(instance["output"])
            demo.append(Prediction(*key, outputs[0], references))
            copied.append(Prediction(*key, instance["input"], references))
    results = [evaluate(items, is_cls, category_of)["rougeL"] for items in (demo, copied)]
    assert all(5 < result < 60 for result in results)
