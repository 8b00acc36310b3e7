"""run_directory.py: starting, continuing, refusing, and stages that run once."""

import json
import subprocess
import sys

import pytest

from ait_jax.errors import UserError
from ait_jax.rounds.run_directory import RunDirectory

CONFIG = "MODEL_DIR = 'runs/a'\nROUNDS = 3\nexperiment.Experiment.rounds = %ROUNDS\n"
POOL = {"name": "mini", "fingerprint": "abc"}


def started(path, config=CONFIG, pool=POOL, seed=0) -> RunDirectory:
    directory = RunDirectory(str(path))
    directory.open(config, pool, seed)
    return directory


def begun(path) -> RunDirectory:
    """A run with one stage done."""
    directory = started(path)
    directory.stage("round_000/train", lambda: {"tasks": 8})
    return directory


def test_a_run_starts_and_continues(tmp_path):
    first = begun(tmp_path / "run")
    assert (tmp_path / "run" / "config.gin").read_text() == CONFIG
    again = RunDirectory(str(tmp_path / "run"))
    assert again.open(CONFIG, POOL, 0) is True
    assert again.is_done("round_000/train") and not again.is_done("round_000/score")
    assert first.folder(12) == tmp_path / "run" / "round_012"
    assert RunDirectory(str(tmp_path / "other")).open(CONFIG, POOL, 0) is False


def test_stages_run_once_and_failed_ones_again(tmp_path):
    directory = started(tmp_path)
    calls = []

    def work():
        calls.append(1)
        return {"margins": (1, 2), "counts": {1: 0.5}}

    # What a resumed run reads is what the first run saw: lists and string keys.
    expected = {"margins": [1, 2], "counts": {"1": 0.5}}
    assert directory.stage("select", work) == expected
    assert directory.stage("select", work) == expected
    assert started(tmp_path).stage("select", work) == expected
    assert len(calls) == 1

    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        directory.stage("train", fail)
    assert not started(tmp_path).is_done("train")


def test_run_json_is_a_function_of_the_run_and_times_lie_elsewhere(tmp_path):
    for name in ("a", "b"):
        directory = begun(tmp_path / name)
        directory.add_timing("round_000/train", 1.23456, tokens_per_s=10.0)
        directory.add_timing("round_000/score", 2.0 if name == "a" else 3.0)
    run = (tmp_path / "a" / "run.json").read_bytes()
    assert run == (tmp_path / "b" / "run.json").read_bytes()
    assert set(json.loads(run)) == {"schema_version", "code_version", "pool", "seed", "stages"}
    lines = (tmp_path / "a" / "timings.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"stage": "round_000/train", "seconds": 1.235, "tokens_per_s": 10.0},
        {"stage": "round_000/score", "seconds": 2.0},
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": CONFIG.replace("3", "4")}, "ROUNDS: was 3, now 4"),
        (
            {"pool": POOL | {"fingerprint": "xyz"}},
            "pool: was name mini, fingerprint abc, now name mini, fingerprint xyz",
        ),
        ({"pool": POOL | {"name": "niv2"}}, "pool: was name mini, fingerprint abc, now name niv2"),
        ({"seed": 7}, "seed: was 0, now 7"),
    ],
)
def test_another_run_is_refused_and_nothing_lost(tmp_path, change, named):
    begun(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="another configuration") as caught:
        started(tmp_path, **change)
    assert named in str(caught.value) and "--gin.MODEL_DIR" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_moved_run_continues(tmp_path):
    begun(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert started(tmp_path / "b", CONFIG.replace("runs/a", "runs/b")).is_done("round_000/train")


def test_a_run_that_did_nothing_yet_is_no_obstacle(tmp_path):
    """A first command with a mistake in it must not block the mended second one."""
    started(tmp_path)
    changed = CONFIG.replace("3", "4")
    assert RunDirectory(str(tmp_path)).open(changed, POOL, 0) is False
    assert (tmp_path / "config.gin").read_text() == changed


def test_another_schema_is_refused(tmp_path):
    begun(tmp_path)
    state = json.loads((tmp_path / "run.json").read_text()) | {"schema_version": 99}
    (tmp_path / "run.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="has schema 99, but this version of ait-jax reads 1"):
        started(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b'{"schema_version": 1,'),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"[]"),
        ("run.json", b'{"schema_version": 1}'),
        ("config.gin", None),
        ("config.gin", b"\xff\xfe"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    begun(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        started(tmp_path)


def test_rounds_without_a_record_are_not_ours(tmp_path):
    (tmp_path / "round_000").mkdir()
    with pytest.raises(UserError, match="has rounds but no run.json"):
        started(tmp_path)
    assert not (tmp_path / "config.gin").exists()


def test_an_unwritable_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    directory = RunDirectory(str(tmp_path / "file" / "run"))
    with pytest.raises(UserError, match="is not writable .*--gin.MODEL_DIR"), directory.lock():
        pass


def test_a_second_process_is_locked_out(tmp_path):
    program = (
        "import sys\n"
        "from ait_jax.errors import UserError\n"
        "from ait_jax.rounds.run_directory import RunDirectory\n"
        "try:\n"
        "    with RunDirectory(sys.argv[1]).lock(): print('entered')\n"
        "except UserError as error: print(error)\n"
    )

    def second() -> str:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with RunDirectory(str(tmp_path)).lock():
        assert "Another process is running in MODEL_DIR" in second()
    assert second() == "entered\n"


@pytest.mark.parametrize(
    "name", [".lock", "metrics.jsonl", "round_000", "round_000/a/checkpoint_1"]
)
def test_a_link_inside_is_refused_before_anything_is_written(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("precious")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if "." not in name else outside / "x")
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match=f"{link.name} is a link"), directory.lock():
        directory.open(CONFIG, POOL, 0)
    assert [path.name for path in outside.iterdir()] == ["x"]
    assert (outside / "x").read_text() == "precious"
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_given_folder_may_be_a_link_and_what_a_killed_run_left_goes(tmp_path):
    begun(tmp_path / "run")
    (tmp_path / "run" / ".tmp-.tmp-123-report.html").write_text("half")
    (tmp_path / "given").symlink_to(tmp_path / "run")
    directory = RunDirectory(tmp_path / "given")
    with directory.lock():
        assert directory.open(CONFIG, POOL, 0)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "config.gin",
        "run.json",
    ]
