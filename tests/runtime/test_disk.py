"""Full disks, links and what killed processes leave; `resource` limits stand in for full disks."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ait_jax.errors import UserError
from ait_jax.runtime import disk, files
from ait_jax.runtime.files import LinesFile


@pytest.fixture
def elsewhere(tmp_path):
    """A file outside of the folder that is written to."""
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    return outside


def _links(outside: Path, name: str) -> None:
    (outside.parent / "run" / name).symlink_to(outside)


@pytest.mark.parametrize("name", [".tmp-a.json", "a.json"])
def test_a_link_at_the_name_or_the_temporary_name_is_replaced(elsewhere, name):
    _links(elsewhere, name)
    path = elsewhere.parent / "run" / "a.json"
    files.write_json(path, 1)
    assert elsewhere.read_text() == "precious"
    assert path.read_text() == "1\n" and not path.is_symlink()
    assert os.listdir(path.parent) == ["a.json"]


def test_a_hard_link_at_the_temporary_name_is_not_written_to(elsewhere):
    os.link(elsewhere, elsewhere.parent / "run" / ".tmp-a.json")
    files.write_json(elsewhere.parent / "run" / "a.json", 1)
    assert elsewhere.read_text() == "precious"


def test_lines_are_not_appended_through_a_link(elsewhere):
    _links(elsewhere, "timings.jsonl")
    with pytest.raises(UserError, match=r"timings.jsonl is a link.*remove it"):
        LinesFile(elsewhere.parent / "run" / "timings.jsonl").add("{}")
    assert elsewhere.read_text() == "precious"


def test_lines_are_not_appended_to_the_other_names_of_a_file(elsewhere):
    path = elsewhere.parent / "run" / "timings.jsonl"
    path.write_text("{}\n")
    os.link(path, elsewhere.parent / "backup")
    LinesFile(path).add("[]")
    assert (elsewhere.parent / "backup").read_text() == "{}\n"
    assert path.read_text() == "{}\n[]\n"


def test_a_lock_is_no_link_and_no_pipe_and_stays_as_it_is(elsewhere):
    run = elsewhere.parent / "run"
    _links(elsewhere, ".lock")
    os.mkfifo(run / "pipe")
    for name, what in ((".lock", "is a link"), ("pipe", "not a regular file")):
        with pytest.raises(UserError, match=what):
            disk.lock_file(run / name)
    assert elsewhere.read_text() == "precious"
    disk.lock_file(elsewhere).close()
    assert elsewhere.read_text() == "precious"


def test_tidy_removes_what_dead_processes_left_and_keeps_what_a_living_one_writes(tmp_path):
    (tmp_path / "round_000").mkdir()
    (tmp_path / "round_000" / ".tmp-eval.json").write_text("half")
    (tmp_path / ".tmp-.tmp-123-report.html").write_text("half")
    (tmp_path / ".tmp-base").mkdir()
    (tmp_path / ".tmp-run.json").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").write_text("kept")
    with disk.exclusive(tmp_path / ".tmp-report.html"):
        disk.tidy(tmp_path)
        assert sorted(os.listdir(tmp_path)) == [".tmp-report.html", "kept", "round_000"]
    assert os.listdir(tmp_path / "round_000") == []


def test_tidy_refuses_links_but_a_link_to_the_folder_itself_and_those_of_others(tmp_path):
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    (run / "wandb").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to(run)
    scratch.mkdir()
    (tmp_path / "given").symlink_to(run)
    disk.tidy(tmp_path / "given", ("wandb",))
    disk.tidy(tmp_path / "absent")
    (run / "round_000").symlink_to(scratch)
    with pytest.raises(UserError, match=r"run/round_000 is a link"):
        disk.tidy(run, ("wandb",))


def test_two_writers_of_one_file_take_turns(tmp_path):
    """Each text is whole: with a shared temporary file they would mix."""
    path, began = tmp_path / "report.html", threading.Event()

    def second():
        began.wait()
        files.write_text(path, "second")

    thread = threading.Thread(target=second)
    thread.start()
    with files.replace_with(path) as temporary:
        began.set()
        temporary.write_text("fir")
        thread.join(timeout=0.2)
        assert thread.is_alive()  # waits
        temporary.write_text("first")
    thread.join(timeout=10)
    assert path.read_text() == "second" and os.listdir(tmp_path) == ["report.html"]


def test_a_writer_that_was_killed_keeps_nobody_waiting(tmp_path):
    script = (
        "import os, signal, sys; from ait_jax.runtime import files\n"
        "with files.replace_with(sys.argv[1]) as t: os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.txt")], check=False)
    assert killed.returncode == -signal.SIGKILL and os.listdir(tmp_path) == [".tmp-a.txt"]
    files.write_text(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.fixture
def small_files():
    """Files of at most 1,000 bytes: more fails with EFBIG, as a quota or a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, small_files):
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UserError, match=r"cannot write '.*a\.txt': .*File too large.*free some"):
        files.write_text(tmp_path / "a.txt", "x" * 2000)
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_line_that_does_not_fit_is_not_half_there(tmp_path, small_files):
    file = LinesFile(tmp_path / "a.jsonl")
    file.add('"first"')
    with pytest.raises(UserError, match="File too large"):
        file.add("9" * 2000)
    assert (tmp_path / "a.jsonl").read_text() == '"first"\n'


@pytest.mark.parametrize(
    "found, expected",
    [
        ("", "[3]\n"),
        ("[1]\n", "[1]\n[3]\n"),
        ("[1]\n[2", "[1]\n[3]\n"),  # cut by a crash
        ("[1]\n[2]", "[1]\n[2]\n[3]\n"),  # whole but for its end
        ("[2" + "2" * 200_000, "[3]\n"),
    ],
)
def test_a_cut_last_line_does_not_swallow_the_next(tmp_path, found, expected):
    (tmp_path / "a.jsonl").write_text(found)
    LinesFile(tmp_path / "a.jsonl").add("[3]")
    assert (tmp_path / "a.jsonl").read_text() == expected


def test_too_many_open_files_names_the_limit():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/pool/a.parquet")
    words = disk.trouble(error)
    assert words is not None
    assert words.startswith("/pool/a.parquet: Too many open files") and f"{soft} (`ulimit" in words


def test_trouble_is_found_behind_the_errors_of_libraries():
    told = ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [os_error 28]")
    other = RuntimeError("the background thread failed")
    other.__cause__ = told
    assert "No space left on device" in (disk.trouble(ExceptionGroup("", [other])) or "")
    assert disk.trouble(ValueError("no such thing")) is None
    assert disk.trouble(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None


@pytest.mark.parametrize(
    "given, problem",
    [
        ("a\0b", "NUL"),
        ("runs/" + "x" * 256, "256 bytes"),
        ("é" * 128 + "/b", "256 bytes"),
        ("~nosuchuser/x", "no user is called nosuchuser"),
        ("a\ud800", "half a character"),
    ],
)
def test_impossible_paths_are_refused_by_name(given, problem):
    with pytest.raises(UserError, match=problem):
        files.as_path(given)
    assert files.as_path("~/x") == Path.home() / "x"
    assert files.as_path("x" * 255) == Path("x" * 255)


def test_a_folder_in_place_of_a_file_is_said(tmp_path):
    with pytest.raises(UserError, match=r"is a folder; give a file"):
        files.write_text(tmp_path, "x")


NAMES = ("run.json", ".tmp-run.json", "metrics.jsonl", ".lock", "round_000", ".tmp-round_000")


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["link", "hard", "pipe", "folder"])))
def test_nothing_outside_changes_whatever_lies_in_the_folder(found):
    """`pytest -n0 --hypothesis-profile=long -k outside` tries 10,000 folders."""
    with tempfile.TemporaryDirectory() as top:
        outside, run = Path(top) / "outside", Path(top) / "run"
        (outside / "folder").mkdir(parents=True)
        run.mkdir()
        for number, (name, kind) in enumerate(found.items()):
            target = outside / f"file_{number}"
            target.write_text("precious")
            if kind == "link":
                (run / name).symlink_to(outside / "folder" if "round" in name else target)
            elif kind == "hard":
                os.link(target, run / name)
            elif kind == "pipe":
                os.mkfifo(run / name)
            else:
                (run / name).mkdir()
        before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
        try:
            with disk.lock_file(run / ".lock"):
                disk.tidy(run)
                files.write_json(run / "run.json", {})
                LinesFile(run / "metrics.jsonl").add("{}")
                files.write_text(run / "round_000" / "selected.txt", "a\n")
        except (UserError, IsADirectoryError):
            pass
        assert before == {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
        assert all(p.read_text() == "precious" for p in outside.rglob("file_*"))
