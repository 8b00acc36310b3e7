"""launch/launch_spec.py, source.py, launch_command.py: what is refused before anything starts."""

import subprocess

import launches
import pytest
from ait_jax.launch import accelerators, launch_spec, source

from ait_jax import cli
from ait_jax.commands import launch_command as command_line
from ait_jax.errors import UserError

BAD_NAMES = ("A", "a_b", "-a", "a-", "a b", "a" * 41, "a;b", "$(x)", "../a", "a\n", "1a", "é")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_run_ids(name):
    with pytest.raises(UserError, match="--name="):
        launches.a_spec(name=name)


@pytest.mark.parametrize(
    "field, value",
    [
        ("bucket", "bucket"),
        ("bucket", "gs://b"),
        ("bucket", "gs://bucket/a b"),
        ("bucket", "gs://bucket/../x"),
        ("bucket", "gs://bucket/$(x)"),
        ("zone", "us-west4"),
        ("zone", "us-west4-a --spot"),
        ("project", "My Project"),
        ("runtime_version", "v2;x"),
        ("valid_until_duration", "soon"),
        ("use_existing", "a/b"),
        ("service_account", "me"),
    ],
)
def test_other_names(field, value):
    with pytest.raises(UserError, match=f"--{field}="):
        launches.a_spec(**{field: value})


def test_the_model_dir_is_the_runs_and_of_a_bucket():
    made = launches.a_spec(command=("run",))
    assert made.command == ("run", "--gin.MODEL_DIR=gs://bucket/runs/t5-xl/model_dir")
    kept = launches.a_spec(command=("score", "--gin.MODEL_DIR='gs://other/x'"))
    assert kept.command == ("score", "--gin.MODEL_DIR='gs://other/x'")
    with pytest.raises(UserError, match="a folder of one host"):
        launches.a_spec(command=("run", "--gin.MODEL_DIR=runs/a"))
    derived = launches.a_spec(bucket="", command=("run", "--gin.MODEL_DIR=gs://other/x"))
    assert derived.folder == "gs://other/t5-xl"
    with pytest.raises(UserError, match="--bucket is missing"):
        launches.a_spec(bucket="")


@pytest.mark.parametrize("argument", ["a\nb", "a\rb", "a\0b", "\x1b[0m", "a\u2028b"])
def test_line_breaks_are_refused(argument):
    with pytest.raises(UserError, match="line break or control character"):
        launches.a_spec(command=("run", f"--gin.A={argument}"))


@pytest.mark.parametrize("command", [(), ("ait-jax",), ("rum",), ("launch",), ("--gin_file=a",)])
def test_other_commands_are_refused(command):
    with pytest.raises(UserError, match="`-- run|Commands: run, score, pretrain"):
        launches.a_spec(command=command)


def test_ait_jax_may_be_written_out():
    assert launches.a_spec(command=("ait-jax", "score")).command[0] == "score"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"tier": "flex_start", "max_run_duration": "8d"}, "ends at 7d"),
        ({"tier": "flex_start"}, "needs --max_run_duration"),
        ({"max_run_duration": "1h"}, "needs --flex_start"),
        ({"reservation": "mine"}, "needs --reserved"),
        ({"max_retries": -1}, "--max_retries=-1"),
        (
            {"tier": "flex_start", "max_run_duration": "1h",
             "accelerator": accelerators.parse("v4-8")},
            "is not available for v4",
        ),
    ],
)  # fmt: skip
def test_tiers(changes, expected):
    with pytest.raises(UserError, match=expected):
        launches.a_spec(**changes)


def test_durations():
    assert launch_spec.seconds("1d12h") == 36 * 3600 and launch_spec.seconds("90m") == 5400


def test_the_fingerprint_is_of_the_command_and_the_slice():
    one = launches.a_spec()
    assert one.fingerprint() == launches.a_spec(tier="on_demand", keep=True).fingerprint()
    assert one.fingerprint() != launches.a_spec(command=("score",)).fingerprint()
    assert (
        one.fingerprint() != launches.a_spec(accelerator=accelerators.parse("v4-8")).fingerprint()
    )


def test_uncommitted_changes_are_refused_or_sent(tmp_path):
    clone = launches.a_clone(tmp_path / "clone")
    clean = source.archive(tmp_path / "a.tar.gz", folder=clone)
    (clone / "mine.gin").write_text("A = 1\n")
    (clone / "new.gin").write_text("A = 2\n")
    with pytest.raises(UserError, match=r"2 files .* not committed \(mine.gin, new.gin\)"):
        source.archive(tmp_path / "b.tar.gz", folder=clone)
    subprocess.run(["git", "-C", clone, "config", "user.name", "a"], check=True)
    subprocess.run(["git", "-C", clone, "config", "user.email", "a@b.example"], check=True)
    dirty = source.archive(tmp_path / "b.tar.gz", allow_dirty=True, folder=clone)
    assert dirty.commit != clean.commit and dirty.sha256 != clean.sha256
    assert dirty.warning == "untracked files are not sent: new.gin"
    text = subprocess.run(
        ["tar", "-xzOf", dirty.archive, "mine.gin"], capture_output=True, text=True
    )
    assert text.stdout == "A = 1\n"


def test_code_that_is_no_clone_or_has_no_lock(tmp_path):
    with pytest.raises(UserError, match="is not a git clone"):
        source.archive(tmp_path / "a.tar.gz", folder=tmp_path)
    clone = launches.a_clone(tmp_path / "clone")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "-C", clone, "rm", "-q", "constraints.txt"], check=True)
    subprocess.run(["git", "-C", clone, *identity, "commit", "-q", "-m", "x"], check=True)
    with pytest.raises(UserError, match=r"has no constraints.txt"):
        source.archive(tmp_path / "a.tar.gz", folder=clone)


def test_gin_files_that_hosts_would_not_find(tmp_path):
    clone = launches.a_clone(tmp_path / "clone")
    commit = source.archive(tmp_path / "a.tar.gz", folder=clone).commit
    good = ["--gin_file=experiments/niv2.gin", "--gin_file=mine.gin", "--gin_file", "mine.gin",
            "--gin_file=gs://bucket/a.gin"]  # fmt: skip
    source.check_gin_files(["run", *good], clone, commit)
    source.check_gin_files(["run", "--gin_file=niv2.gin", "--gin_search_paths=gin/experiments"],
                           clone, commit)  # fmt: skip
    with pytest.raises(UserError, match="the hosts have clone elsewhere. Write --gin_file=mine"):
        source.check_gin_files(["run", f"--gin_file={clone}/mine.gin"], clone, commit)
    with pytest.raises(UserError, match="is a path on this machine"):
        source.check_gin_files(["run", "--gin_file=/etc/passwd"], clone, commit)
    for bad in ("--gin_file=other.gin", "--gin_file=../mine.gin"):
        with pytest.raises(UserError, match="hosts would not find it"):
            source.check_gin_files(["run", bad], clone, commit)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("launch", "KIND"),
        ("launch tpuvm", "invalid choice"),
        ("launch tpu-vm --name=a", "--accelerator"),
        ("run -- x", "takes nothing after `--`"),
        ("launch logs --name=a --bucket=nowhere", "--bucket='nowhere'"),
        ("launch logs --name=../a --bucket=gs://bucket", "--name='../a'"),
    ],
)
def test_the_command_line_says_what_is_wrong(line, expected, capsys):
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_everything_after_the_dashes_is_the_hosts(capsys):
    own, command = command_line.split(["launch", "x", "--", "run", "--gin.A=1", "--", "-h"])
    assert own == ["launch", "x"] and command == ["run", "--gin.A=1", "--", "-h"]
