"""What a report says of a run: every figure comes from the run's files, and damage is named."""

import dataclasses
import json
import shutil

import pytest
from tiny_report import SEED, settings_of, synthetic_pool, write_record, write_run
from tiny_report import score as score_round

from ait_jax import __version__, cli
from ait_jax.errors import UserError
from ait_jax.pool import Splits, TaskPool
from ait_jax.pool.splits import read_names
from ait_jax.report import run_report, settings
from ait_jax.report.run_report import payload_and_details
from ait_jax.report.run_results import MOST_POINTS, thinned
from ait_jax.rounds import record
from ait_jax.runtime import files
from ait_jax.scorer.likelihoods import read_task_scores

POOL = synthetic_pool(14, words=12, instances=4)
NAMES = list(POOL)
SPLITS = Splits(train=NAMES[:2], remain=NAMES[2:8], dev=NAMES[8:10], test=NAMES[10:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of two rounds, not to be written to."""
    path = tmp_path_factory.mktemp("run") / "tiny"
    write_run(path, settings_of(POOL), SPLITS)
    return path


def report_of(path, known=None, **changes):
    arguments = {"title": "runs/tiny", "detail_megabytes": 12.0}
    return payload_and_details(record.read(path), known or settings_of(POOL), **arguments | changes)


def test_summary_tasks_and_curves(finished):
    payload, _ = report_of(finished)
    summary = payload["summary"]
    assert summary["state"] == "finished" and summary["rounds_done"] == summary["rounds"] == 2
    assert (summary["tasks"], summary["cls"], summary["gen"]) == (14, 7, 7)
    assert any("last gen task of round 0 won by 3.1e-06" in note for note in summary["notes"])
    tasks = payload["tasks"]
    assert tasks["name"] == NAMES and tasks["split"] == [0] * 2 + [1] * 6 + [2] * 2 + [3] * 4
    categories = [payload["task_categories"][number] for number in tasks["category"]]
    assert categories == [POOL[name].category for name in NAMES]
    assert POOL[NAMES[3]].instruction.definition.startswith(tasks["instruction"][3].rstrip("…"))
    evaluations = payload["evaluations"]
    assert [(e["name"], e["num_tasks"]) for e in evaluations] == [
        ("base", 0),
        ("round 0", 2),
        ("round 1", 4),
    ]
    assert [e["test"]["overall"]["rougeL"] for e in evaluations] == [10.0, 11.0, 12.0]
    assert evaluations[0]["dev"]["tasks"].keys() == {"8", "9"}
    json.dumps(payload, allow_nan=False)


def test_rounds_hold_the_scores_and_the_selection(finished):
    payload, _ = report_of(finished)
    (round,) = payload["rounds"]
    scores = read_task_scores(finished / "round_000" / "task_scores.parquet")
    assert [NAMES[number] for number in round["task"]] == list(scores.tasks)
    assert round["prompt_uncertainty"] == pytest.approx(scores.prompt_uncertainty, rel=1e-4)
    assert round["measures"]["std"] == pytest.approx(scores.std, rel=1e-3)
    assert [NAMES[n] for n in round["selected"]] == list(
        read_names(finished / "round_000" / "selected.txt")
    )
    regions = {1: "ambiguous", 2: "easy", 3: "difficult"}
    for number, name in regions.items():
        listed = set(read_names(finished / "round_000" / f"{name}.txt"))
        assert {
            NAMES[t] for t, r in zip(round["task"], round["region"], strict=True) if r == number
        } == listed
    training = payload["training"][0]
    assert training["step"] == [10, 20, 30, 40, 50] and training["chosen_step"] == 50
    assert training["dev"] == {"step": [50], "rougeL": [20.0]}


def test_cost_is_seconds_times_devices(finished):
    payload, _ = report_of(finished, price_per_device_hour=2.0)
    stages = len(payload["timings"])
    cost = payload["cost"]
    assert (cost["devices"], cost["device_kind"]) == (4, "TPU v4") and stages == 7
    assert cost["device_hours"] == pytest.approx(stages * 90 * 4 / 3600)
    assert cost["total"] == pytest.approx(2 * cost["device_hours"])
    assert payload["timings"][0]["padding"] == 0.2


@pytest.mark.parametrize(
    ("gone", "stages", "comes_next"),
    [
        (("round_001",), 6, "round_001/train"),
        (("round_001", "round_000/selected.txt", "round_000/ambiguous.txt"), 5, "round_000/select"),
        (("round_001", "round_000", "base"), 0, "round_000/splits"),
    ],
)
def test_whatever_a_killed_run_left_is_shown(finished, tmp_path, gone, stages, comes_next):
    shutil.copytree(finished, tmp_path / "run")
    for name in gone:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    record = json.loads((finished / "run.json").read_text())
    record["stages"] = dict(list(record["stages"].items())[:stages])
    files.write_json(tmp_path / "run" / "run.json", record)
    with open(tmp_path / "run" / "timings.jsonl", "a") as file:
        file.write('{"stage": "round_001/tr')
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    payload, _ = report_of(tmp_path / "run")
    assert payload["summary"]["state"] == f"unfinished: {comes_next} comes next"
    assert any(
        "--gin.MODEL_DIR=runs/tiny" in c["line"] and c["what"] == "continue it"
        for c in payload["commands"]
    )
    run_report.make(tmp_path / "run", settings_of(POOL))
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == sorted(
        [*before, "report.html"]
    )


def test_without_the_pool_or_with_another_one_the_notes_say_so(finished):
    changed = dataclasses.replace(POOL[NAMES[3]], instances=POOL[NAMES[3]].instances[:3])
    other = TaskPool([changed if name == NAMES[3] else POOL[name] for name in NAMES])
    for known, why in (
        (settings.of_config("tiny.seed = 5\n", SEED), "config.gin names no pool"),
        (settings_of(other), "its fingerprint was"),
    ):
        payload, details = report_of(finished, known)
        assert why in payload["summary"]["notes"][-1] and details == []
        assert payload["details_left_out"] == 14
        assert payload["tasks"]["is_cls"] == [None] * 14 and payload["summary"]["cls"] is None
        assert payload["rounds"][0]["selected"]


def test_a_pool_that_only_grew_is_the_runs(finished, tmp_path):
    grown = synthetic_pool(18, words=12, instances=4)
    shutil.copytree(finished, tmp_path / "run")
    lines = [f"{digest.hex()} {name}" for name, digest in sorted(POOL.digests().items())]
    files.write_lines(tmp_path / "run" / "pool_000.txt", lines)
    added = list(grown)[14:]
    files.write_lines(tmp_path / "run" / "round_000" / "joined_tasks.txt", added[:3])
    payload, details = report_of(tmp_path / "run", settings_of(grown))
    assert payload["summary"]["tasks"] == 17 and payload["rounds"][0]["joined"] == [14, 15, 16]
    assert payload["tasks"]["split"][14:] == [1, 1, 1] and payload["tasks"]["instruction"][16]
    assert details and not any("Without" in note for note in payload["summary"]["notes"])


def test_random_selection_has_no_scores(tmp_path):
    unscored = settings_of(POOL, needs_scores=False, strategy="random")
    write_run(tmp_path / "run", unscored, SPLITS)
    for name in ("task_scores.parquet", "likelihoods.parquet", "ambiguous.txt"):
        (tmp_path / "run" / "round_000" / name).unlink()
    payload, details = report_of(tmp_path / "run", unscored)
    assert payload["rounds"][0]["task"] == [] and len(payload["rounds"][0]["selected"]) == 2
    assert len(details[0]["tasks"]) == 14, "instructions are shown without scores, too"
    assert details[0]["data"]["0"]["rounds"] == {}


def test_a_folder_of_scores_is_one_task_map(tmp_path):
    known = settings_of(POOL, rounds=None)
    files.write_lines(tmp_path / "tasks.txt", NAMES[:6])
    score_round(tmp_path, known, NAMES[:6], 0, 2, lambda task, instance, j, kept: -0.5 - j / 10)
    write_record(tmp_path, POOL, {"score": {"prompts_cut": 3}, "map": {}}, "tiny.seed = 5\n")
    record = json.loads((tmp_path / "run.json").read_text())
    record["pool"]["tasks"] = "6 named"
    files.write_json(tmp_path / "run.json", record)
    payload, details = report_of(tmp_path, known)
    assert payload["summary"]["work"] == "score" and payload["summary"]["state"] == "finished"
    assert payload["evaluations"] == payload["training"] == []
    assert payload["rounds"][0]["round"] == 0 and len(payload["rounds"][0]["task"]) == 6
    assert "3 prompts of round 0 were too long" in payload["summary"]["notes"][0]
    assert payload["commands"][0]["line"].startswith(
        "ait-jax score --gin_file=runs/tiny/config.gin"
    )
    assert set(details[0]["data"]["0"]["rounds"]) == {"0"}


def test_curves_are_thinned_to_what_a_screen_shows():
    lines = list(range(7 * MOST_POINTS + 3))
    kept = thinned(lines)
    assert len(kept) <= MOST_POINTS and kept[-1] == lines[-1] and kept == sorted(kept)
    assert thinned(lines[:5]) == lines[:5] and thinned([]) == []


def test_the_command_and_its_errors(finished, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert cli.main(["report", str(finished), f"--out={out}", "--price_per_device_hour=1.5"]) == 0
    assert (
        out.read_text().lower().startswith("<!doctype html>")
        and str(out) in capsys.readouterr().out
    )
    assert not (finished / "report.html").exists()
    for arguments, words in (
        ([str(finished.parent / "tni")], f"Did you mean '{finished}'?"),
        ([str(finished), "--detail_megabytes=-1"], "must be a number, 0 or more"),
        ([str(finished), f"--out={finished}/run.json/page.html"], "cannot write"),
    ):
        assert cli.main(["report", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "base/eval.json", "round_000/task_scores.parquet"])
def test_a_damaged_file_is_named(finished, tmp_path, name):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        report_of(tmp_path / "run")


def test_another_rouge_than_english_is_noted(tmp_path):
    def notes(**splits):
        stages = {"round_000/splits": splits}
        state = {"code_version": __version__, "pool": {"name": "x"}, "stages": stages}
        run = record.Record(tmp_path, state, "")
        return run_report._notes(run)

    assert notes() == notes(rouge_tokenizer="english") == []
    assert len(notes(rouge_tokenizer="unicode")) == 1
    assert "ROUGE splits texts by" in notes(rouge_tokenizer="unicode")[0]
