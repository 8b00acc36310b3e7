"""Run directories from strangers: whatever their files hold, readers answer or say what is wrong.

`pytest -n0 --hypothesis-profile=long tests/rounds/test_hostile_record.py` tries 10,000 of them.
"""

import contextlib
import io
import json

import pytest
from hostile import damaged, unchanged
from hypothesis import given
from hypothesis import strategies as st
from tiny_report import settings_of, synthetic_pool, write_run

from ait_jax import cli
from ait_jax.compare import finished_runs
from ait_jax.errors import UserError
from ait_jax.pool import Splits
from ait_jax.report import pool_view, run_report
from ait_jax.rounds import record

FILES = (
    "run.json", "run.json", "run.json", "timings.jsonl", "live.json", "base/eval.json",
    "round_000/eval.json", "round_000/metrics.jsonl", "round_000/race.json",
    "round_000/selected.txt", "round_000/ambiguous.txt", "round_001/train_tasks.txt", "config.gin",
    "round_000/task_scores.parquet", "round_000/likelihoods.parquet",
)  # fmt: skip
POOL = synthetic_pool(14, words=12, instances=4)
NAMES = list(POOL)
FIGURES = {"rougeL": 1.5, "exact_match": 0.0}
EVALUATED = {s: FIGURES | {"cls": FIGURES, "gen": FIGURES} for s in ("test", "dev")}
LIVE = {
    "kind": "run", "state": "running", "problem": "", "host": "x", "pid": 7, "updated": 5.0,
    "seconds": 1.0, "plan": [["round_001/train", 9]], "stage": "round_001/train",
    "activities": [{"what": "training", "done": 3, "total": 8, "note": "", "seconds_left": 61.0}],
    "stage_seconds": 20.0, "losses": [3.0, 2.0], "tokens_per_second": 1234.0, "mfu": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of two rounds, with what a running one has beside it."""
    path = tmp_path_factory.mktemp("stranger") / "run"
    config = "ROUNDS = 2\nexperiment.Experiment.rounds = %ROUNDS\nSTRATEGY = @selection.Random()\n"
    splits = Splits(train=NAMES[:2], remain=NAMES[2:8], dev=NAMES[8:10], test=NAMES[10:])
    write_run(path, settings_of(POOL), splits, config=config)
    state = json.loads((path / "run.json").read_text())
    for name in state["stages"]:
        if name.endswith("evaluate"):
            state["stages"][name] = EVALUATED
    (path / "run.json").write_text(json.dumps(state))
    (path / "live.json").write_text(json.dumps(LIVE))
    race = {"report": {"passes": 1, "full_passes": 2}, "verdicts": {}}
    (path / "round_000" / "race.json").write_text(json.dumps(race))
    return path


def read_all(path) -> None:
    """Reads a run directory in every way; each is right or raises UserError."""
    for read in (
        finished_runs.read,
        lambda path: run_report.make(path, settings_of(POOL), out=path / "report.html"),
        lambda path: pool_view._found(record.read(path)),
    ):
        with contextlib.suppress(UserError):
            read(path)
    for arguments in (["status", str(path)], ["status", str(path), "--json"]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(arguments)
        assert code in (0, 2, 3) and "Traceback" not in err.getvalue()
        assert code != 2 or (err.getvalue().count("\n") == 1 and len(err.getvalue()) < 1500)
        assert "\x1b[2J" not in out.getvalue() + err.getvalue()


def test_the_undamaged_one_is_read(run_dir):
    assert len(finished_runs.read(run_dir).points) == 3
    read_all(run_dir)
    (run_dir / "report.html").unlink()


@given(st.sampled_from(FILES), st.data())
def test_damaged_files_are_answered_or_named(run_dir, name, data):
    file = run_dir / name
    whole = file.read_bytes()
    with unchanged(run_dir.parent):
        try:
            file.write_bytes(data.draw(damaged(whole)))
            read_all(run_dir)
        finally:
            file.write_bytes(whole)
            (run_dir / "report.html").unlink(missing_ok=True)
