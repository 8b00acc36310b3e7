"""`ait-jax grow`: flags, errors and what it prints."""

import subprocess
import sys

import pytest
from tiny_datasets import reviews, write_lines
from tiny_endpoint import server  # noqa: F401

from ait_jax import cli


def run(capsys, *arguments):
    try:
        code = cli.main(["grow", *map(str, arguments)])
    except SystemExit as exit:
        code = exit.code
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_growth(tmp_path, capsys):
    path = write_lines(tmp_path / "data.jsonl", [reviews()])
    code, out, err = run(capsys, f"--pool={tmp_path / 'pool'}", f"--from={path}")
    assert code == 0 and "added, with instances" in out and err == ""
    assert (tmp_path / "pool" / "instructions.jsonl").exists()


def test_help_names_the_sources(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "instructions-full.json" in out and "OPENAI_API_KEY" in out


@pytest.mark.parametrize(
    "flags,message",
    [
        ("", "required: --pool, --from"),
        ("--pool=p --from=nothing", "--from=nothing: no such file or folder"),
        ("--pool=p --from=tfds --languages=de", "--languages=de is not one of en, any"),
        ("--pool=p --from=tfds --max_datasets=0", "--max_datasets=0 must be at least 1"),
        ("--pool=p --from=tfds --model=m", "--model needs --generator=endpoint"),
        ("--pool=p --from=tfds --prices=1,1", "--prices needs --generator=endpoint"),
        ("--pool=p --from=tfds --generator=endpoint", "--model is missing"),
        ("--pool=p --from=tfds --generator=endpoint --model=m --budget=1", "needs prices"),
        ("--pool=p --from=tfds --generator=endpoint --model=m --prices=1", "two numbers"),
        ("--pool=p --from=tfds --rows=nothing", "nothing: cannot read the file"),
        ("--pool=p --from=tfds --generator=template", "invalid choice: 'template'"),
        ("--pool=p --form=tfds --from=tfds", "'--from'?"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *flags.split())
    assert code == 2 and message in err and err.count("\n") == 1 and out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint(server, tmp_path, capsys):
    server.answer = lambda body: "No."
    path = write_lines(tmp_path / "data.jsonl", [reviews()])
    flags = ["--generator=endpoint", "--model=m", f"--base_url={server.base_url}", "--style=aware"]
    code, out, _ = run(capsys, f"--pool={tmp_path / 'pool'}", f"--from={path}", *flags)
    assert code == 0 and len(server.requests) == 1
    assert "1  unreadable: no dictionary in it" in out and "1 answers paid for" in out
    assert len(list((tmp_path / "pool" / "cache").glob("*/*.json"))) == 1
    flags[-1] = "--style=unaware"
    code, out, _ = run(
        capsys, f"--pool={tmp_path / 'pool'}", f"--from={path}", *flags, "--budget=0"
    )
    assert code == 3 and "the budget of $0 is used up" in out


def test_flags_of_steering(tmp_path, capsys):
    path = write_lines(tmp_path / "data.jsonl", [reviews()])
    flags = (f"--pool={tmp_path / 'pool'}", f"--from={path}")
    for flag, error in (
        ("--max_tasks=0", "--max_tasks=0 must be at least 1"),
        ("--steer_only", "--steer_only needs --steer"),
        (f"--steer={tmp_path}", "has no task_scores.parquet"),
    ):
        code, _, said = run(capsys, *flags, flag)
        assert code == 2 and error in said
    code, out, _ = run(capsys, *flags, "--max_tasks=1")
    assert code == 0 and "stopped: --max_tasks=1 tasks were added" in out


def test_the_flags_import_nothing_slow():
    program = (
        "import sys, argparse; from ait_jax.commands import grow_command as command_line; "
        "command_line.add(argparse.ArgumentParser().add_subparsers()); "
        "print([n for n in ('numpy', 'yaml', 'openai', 'tensorflow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
