"""From made-up finished runs to numbers, words and a picture; numbers worked by hand."""

import csv
import json
import math

import pytest
from fake_runs import NAMES, write_run

from ait_jax.compare import comparison_figure, comparison_result, comparison_text, finished_runs
from ait_jax.compare.overlap import Draw
from ait_jax.errors import UserError

SCORES = {
    ("uncertain", 0): (8.0, 10.0, 17.0),
    ("uncertain", 1): (9.0, 12.0, 19.0),
    ("uncertain", 2): (7.0, 11.0, 18.0),
    ("random", 0): (8.0, 9.0, 16.0),
    ("random", 1): (9.0, 10.0, 17.0),
    ("random", 2): (7.0, 8.0, 12.0),
}


def runs(folder, scores=SCORES):
    made = []
    for (strategy, seed), values in scores.items():
        first = {"random": 3, "easy": 12}.get(strategy, 0)
        path = write_run(folder / f"{strategy}_{seed}", strategy, seed, values, first=first)
        made.append(finished_runs.read(path))
    return finished_runs.grouped(made)[0]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return comparison_result.compare(runs(tmp_path_factory.mktemp("runs")))


def test_means_areas_and_paired_differences_by_hand(result):
    assert result["baseline"] == "random" and result["num_tasks"] == [4, 10, 16]
    assert [point["mean"] for point in result["curves"]["uncertain"]["overall"]] == [
        8.0,
        11.0,
        18.0,
    ]
    assert [point["mean"] for point in result["curves"]["random"]["gen"]] == [9.0, 10.0, 16.0]
    # (8 + 10) / 2 * 6 + (10 + 17) / 2 * 6 over 12.
    assert result["areas"]["uncertain"]["overall"]["by_seed"]["0"] == 11.25
    last = result["differences"]["uncertain"]["overall"]["rounds"][-1]
    assert (last["n"], last["mean"]) == (3, 3.0)  # of 1, 2, 6
    assert last["low"] == pytest.approx(3 - 0.95 / math.sqrt(2 * 0.975 * 0.025) * math.sqrt(7 / 3))
    assert last["seeds_needed"] > 3
    shared = result["differences"]["uncertain"]["overall"]["rounds"][0]
    assert (shared["mean"], shared["std"], shared["p"]) == (0.0, 0.0, 1.0)
    assert result["differences"]["uncertain"]["overall"]["area"]["mean"] == pytest.approx(
        ((1 / 2 + 2 / 2) + (2 / 2 + 4 / 2) + (3 / 2 + 9 / 2)) / 2 / 3
    )


def test_tasks_to_reach_the_baselines_last_mean(result):
    target = result["target"]
    assert target["score"] == 15.0 and not target["given"]
    # From 11 at 10 tasks to 18 at 16.
    assert target["tasks"]["uncertain"]["mean_curve"] == pytest.approx(10 + 6 * 4 / 7)
    assert target["tasks"]["random"]["by_seed"]["2"] is None


def test_overlaps(result):
    (pair,) = result["overlaps"]
    first = pair["selections"][0]
    assert first["common"] == 3 and first["by_seed"] == {"0": 1 / 3, "1": 1 / 3, "2": 1 / 3}
    assert first["expected_common"] == 1.0  # 36 tasks, each in either draw with the chance 6 / 36
    assert len(pair["selections"]) == 2 and pair["together"]["common"] == 9


def test_text_and_verdict(result):
    text = comparison_text.render(result)
    (line,) = comparison_text.verdict(result)
    assert line == (
        "uncertain cannot be told from random at 16 tasks: +3.00 [-3.57, +9.57] test ROUGE-L over "
        "3 seeds, within noise, as for the whole curve, CLS and GEN; to see such a difference "
        "takes about "
        "9 seeds"
    )
    assert (
        "3 seeds are few" in text
        and "tasks needed to reach 15.00 (the last mean of random)" in text
    )
    (rows,) = [part for part in text.split("\n\n") if part.startswith("test ROUGE-L")]
    assert rows.splitlines()[2].split() == [
        "uncertain",
        "overall",
        "8.00",
        "11.00",
        "18.00",
        "12.00",
        "3",
    ]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_score_is_in_the_csv(result):
    rows = list(csv.DictReader(comparison_text.csv_text(result).splitlines()))
    assert len(rows) == 6 * 4 * 6  # runs x (base and 3 rounds) x 2 splits x 3 groups
    assert rows[0] == {
        "strategy": "uncertain",
        "seed": "0",
        "round": "base",
        "num_tasks": "0",
        "split": "test",
        "group": "overall",
        "rougeL": "1.0",
    }


def test_a_clear_difference_and_one_of_many(tmp_path):
    scores = {("random", s): (8.0, 16.0 + s) for s in range(6)}
    scores |= {("easy", s): (8.0, 18.0 + s + 0.2 * (s % 2)) for s in range(6)}
    result = comparison_result.compare(runs(tmp_path, scores))
    (line,) = comparison_text.verdict(result)
    assert line.startswith(
        "easy is better than random at 10 tasks: +2.10 [+1.99, +2.21] test ROUGE-L"
    )
    assert line.endswith(
        "over 6 seeds, beyond noise, as for the whole curve (+1.05), CLS (+2.10) and GEN (+2.10)"
    )
    assert comparison_text.warnings(result) == []
    result["holm"]["easy"] = 0.07
    result["holm"]["other"] = 0.5
    assert "not as one of 2 comparisons (Holm p = 0.07)" in comparison_text.verdict(result)[0]


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    scores = {key: value for key, value in SCORES.items() if key[1] == 0}
    result = comparison_result.compare(runs(tmp_path, scores), target=99.0)
    text = comparison_text.render(result)
    assert "+1.00 [no interval] test ROUGE-L over 1 seed; one seed does not tell" in " ".join(
        text.split()
    )
    assert "one seed has no interval" in text and "not reached" in text
    comparison_figure.plot(tmp_path / "a.png", result)
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_missing_seeds_are_left_out_of_pairs_and_named(tmp_path):
    scores = {key: value for key, value in SCORES.items() if key != ("random", 2)}
    left_out = [{"strategy": "random", "seed": 2, "path": "x", "reason": "it failed"}]
    result = comparison_result.compare(runs(tmp_path, scores), left_out=left_out)
    assert result["differences"]["uncertain"]["overall"]["rounds"][-1]["n"] == 2
    assert result["curves"]["uncertain"]["overall"][-1]["n"] == 3
    assert "left out: random with seed 2: it failed" in comparison_text.warnings(result)
    scores = {("easy", 0): (1.0, 2.0), ("random", 1): (1.0, 2.0)}
    result = comparison_result.compare(runs(tmp_path / "b", scores))
    assert "no seed in common with random" in comparison_text.render(result)
    comparison_figure.plot(tmp_path / "b.png", result)


def test_the_baseline(tmp_path):
    made = runs(tmp_path)
    assert comparison_result.compare(made, baseline="uncertain")["baseline"] == "uncertain"
    only = [run for run in made if run.strategy == "uncertain"]
    result = comparison_result.compare(only)
    assert result[
        "baseline"
    ] == "uncertain" and "nothing to compare it with" in comparison_text.render(result)
    with pytest.raises(UserError, match="'uncertian' is not among.*Did you mean 'uncertain'"):
        comparison_result.compare(made, baseline="uncertian")
    with pytest.raises(UserError, match="no finished run"):
        comparison_result.compare([])


def test_released_selections(tmp_path):
    selection = Draw(frozenset([*NAMES[4:7], "elsewhere"]), frozenset([*NAMES[4:14], "elsewhere"]))
    made = runs(tmp_path)
    result = comparison_result.compare(made, released={("split", "random"): [selection]})
    assert (result["released"]["names"], result["released"]["unknown_names"]) == (11, 1)
    found = {each["strategy"]: each["selections"][0] for each in result["released"]["overlaps"]}
    # Of the 10 tasks that both know "uncertain" took the first six, they the first three.
    assert (found["uncertain"]["common"], found["uncertain"]["jaccard"]) == (3, 3 / 6)
    assert "left out: 1 of their 11 tasks, not in this pool" in comparison_text.render(result)
    foreign = {("split", "random"): [Draw(frozenset("a"), frozenset("ab"))]}
    assert "nothing to compare" in comparison_text.render(
        comparison_result.compare(made, released=foreign)
    )


def test_the_picture_is_the_same_bytes_and_has_the_papers_curves_beside(result, tmp_path):
    for name in "ab":
        comparison_figure.plot(tmp_path / name, result)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with_paper = {**result, "paper": comparison_result.assets.paper_curves()}
    comparison_figure.plot(tmp_path / "c", with_paper)
    width = [int.from_bytes((tmp_path / name).read_bytes()[16:20], "big") for name in "ac"]
    assert width[1] > width[0] + 500
    text = comparison_text.render(with_paper)
    assert "the paper's own curves, not ours" in text and "48.38" in text


def test_labels_are_moved_apart_and_no_further():
    assert comparison_figure.spread([1.0, 5.0], 1.0) == [1.0, 5.0]
    assert comparison_figure.spread([2.0, 2.0], 1.0) == [1.5, 2.5]
    assert comparison_figure.spread([3.0, 2.0, 2.5], 1.0) == [3.5, 1.5, 2.5]


def test_finished_runs_say_what_cannot_be_compared(tmp_path):
    def made(name, strategy="random", seed=0, scores=(1.0, 2.0), **changes):
        return finished_runs.read(write_run(tmp_path / name, strategy, seed, scores, **changes))

    first = made("a")
    with pytest.raises(UserError, match="has a different pool"):
        finished_runs.grouped([first, made("b", "easy", pool="other")])
    unicode = made("u", "easy", rouge_tokenizer="unicode")
    with pytest.raises(UserError, match="by the tokenizer 'unicode', .*/a by 'english'"):
        finished_runs.grouped([first, unicode])
    finished_runs.grouped([first, made("v", "easy", rouge_tokenizer="english")])
    with pytest.raises(UserError, match="curves are compared point by point"):
        finished_runs.grouped([first, made("c", "easy", scores=(1.0, 2.0, 3.0))])
    with pytest.raises(UserError, match="are both random with seed 0"):
        finished_runs.grouped([first, made("d")])
    with pytest.raises(finished_runs.Unfinished, match="1 of 2 rounds"):
        made("e", scores=(1.0,), rounds=2)
    with pytest.raises(UserError, match="does not exist"):
        finished_runs.read(tmp_path / "nowhere")
    other = made("f", seed=1, config="scorer.Scorer.num_instances = 9")
    (_, second), remarks = finished_runs.grouped([first, other])
    assert second.strategy == "random [scorer.Scorer.num_instances = 9]"
    assert remarks == [
        f"{second.strategy} differs in more than its strategy: scorer.Scorer.num_instances: was "
        "not set, now 9"
    ]
    for damaged in ("{}", '{"schema_version": 1'):
        (tmp_path / "f" / "run.json").write_text(damaged)
        with pytest.raises(UserError, match="run.json"):
            finished_runs.read(tmp_path / "f")


def test_costs_are_added_up_over_rounds(tmp_path):
    for strategy, scored in (("random", 0), ("easy", 500)):
        for seed in (0, 1):
            folder = write_run(tmp_path / f"{strategy}_{seed}", strategy, seed, (1.0, 2.0, 3.0))
            lines = [
                {"stage": "base/evaluate", "seconds": 9.0, "tokens": 5},
                {"stage": "round_000/train", "seconds": 10.0, "steps": 6, "tokens": 100},
                {"stage": "round_000/score", "seconds": 4.0, "tokens": scored},
                {"stage": "round_001/train", "seconds": 20.0 + seed, "steps": 8, "tokens": 300},
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "timings.jsonl").write_text(text)
    made = [finished_runs.read(path) for path in sorted(tmp_path.iterdir())]
    result = comparison_result.compare(made)
    assert result["costs"]["easy"] == {
        "training_steps": 14,
        "training_tokens": 400,
        "training_seconds": 30.5,
        "scoring_tokens": 500,
        "scoring_seconds": 4,
    }
    (line,) = [line for line in comparison_text.render(result).splitlines() if "500" in line]
    assert line.split() == ["easy", "14", "400", "30", "500", "4", "34"]
    (tmp_path / "random_0" / "timings.jsonl").unlink()
    assert finished_runs.read(tmp_path / "random_0").costs == {}
