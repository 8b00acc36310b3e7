"""Paths in buckets: files whole or not at all, errors that name the remedy, runs and pools."""

import json
import os
import signal

import pytest
from run_files import checkpoints, stable_files
from test_active import in_process
from tiny_experiment import CONFIG, short

from ait_jax.cli import main
from ait_jax.errors import ExitCode, UserError
from ait_jax.rounds import active
from ait_jax.runtime import buckets, files, lease
from ait_jax.runtime.buckets import Unavailable


def mirror(bucket, prefix, folder):
    """Writes the objects below `prefix` as files."""
    for name in bucket.names(prefix):
        path = folder / name.removeprefix(prefix).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.read(name))
    return folder


def test_a_file_appears_with_one_upload_and_no_rename(bucket):
    files.write_text("gs://bucket/a/b.txt", "é\n")
    assert bucket.names() == ["bucket/a/b.txt"] and bucket.read("bucket/a/b.txt") == "é\n".encode()
    assert files.read_text("gs://bucket/a/b.txt") == "é\n"
    files.write_text("gs://bucket/a/b.txt", "new")
    assert files.read_text("gs://bucket/a/b.txt") == "new"
    assert not [path for _, path in bucket.requests if "rewriteTo" in path or "moveTo" in path]


def test_a_failure_inside_the_block_keeps_the_old_object(bucket):
    files.write_text("gs://bucket/x.txt", "old")
    with pytest.raises(KeyboardInterrupt), files.replace_with("gs://bucket/x.txt") as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert bucket.names() == ["bucket/x.txt"] and bucket.read("bucket/x.txt") == b"old"


def test_large_objects_come_back_whole(bucket):
    data = bytes(range(256)) * 40_000  # more than one part of an upload
    files.write_bytes("gs://bucket/large.bin", data)
    with files.local_copy("gs://bucket/large.bin") as local:
        assert local.read_bytes() == data


def test_what_another_host_wrote_is_seen(bucket):
    folder = files.as_path("gs://bucket/f")
    files.write_text(folder / "a", "")
    assert [path.name for path in folder.iterdir()] == ["a"]
    bucket.put("bucket/f/b", b"")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"] and (folder / "b").exists()


def test_remove_tree(bucket):
    for name in ("f/a", "f/g/b", "fg"):
        files.write_text(f"gs://bucket/{name}", "")
    files.remove_tree("gs://bucket/f")
    files.remove_tree("gs://bucket/not_there")
    assert bucket.names() == ["bucket/fg"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gcs://b/x", r"'gcs://b/x' is neither .* Did you mean 'gs://'"),
        ("gs://", "names no bucket; give gs://BUCKET/FOLDER"),
        ("s3://bucket/x", "needs the package s3fs: pip install s3fs"),
    ],
)
def test_paths_that_cannot_be(path, message, monkeypatch):
    monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        files.as_path(path)


def test_a_bucket_that_refuses_is_named(bucket):
    bucket.refuses = 403  # a status that gcsfs does not try again
    with pytest.raises(UserError, match="gs://bucket/x: the bucket refuses .*credentials"):
        files.write_text("gs://bucket/x", "")
    with pytest.raises(UserError, match="the same command continues"):
        files.read_text("gs://bucket/x")


def _errors():
    import aiohttp
    from gcsfs.retry import HttpError
    from google.auth.exceptions import DefaultCredentialsError

    return [
        (HttpError({"code": 503, "message": "busy"}), Unavailable),
        (HttpError({"code": 429, "message": "slow down"}), Unavailable),
        (HttpError({"code": 403, "message": "no"}), UserError),
        (aiohttp.ServerDisconnectedError(), Unavailable),
        (TimeoutError(), Unavailable),
        (OSError("Forbidden: gs://bucket/x"), UserError),
        (DefaultCredentialsError("none found"), UserError),
        (FileNotFoundError("x"), FileNotFoundError),
    ]


@pytest.mark.parametrize("number", range(8))
def test_what_may_pass_is_told_from_mistakes(number):
    """The launcher's worker tries the command again after the one, not after the other."""
    error, expected = _errors()[number]
    with pytest.raises(expected), buckets.errors_of("gs://bucket/x"):
        raise error


def test_the_command_line_tells_of_a_bucket_that_does_not_answer(monkeypatch, capsys):
    def unavailable(options, flags):
        raise Unavailable("gs://bucket/x: the bucket does not answer (TimeoutError)")

    monkeypatch.setattr("ait_jax.commands.prepare_command.run", unavailable)
    assert main(["prepare", "niv2", "--source=x"]) == ExitCode.FAILED
    assert "does not answer (TimeoutError). The same command continues." in capsys.readouterr().err


@pytest.fixture(scope="module")
def local_run(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("local") / "run"
    active.run(short(model_dir), CONFIG, lambda line: None)
    return model_dir


@pytest.mark.parametrize(
    ("point", "call"), [("checkpoint", 4), pytest.param("chunk", 2, marks=pytest.mark.benchmark)]
)
def test_a_run_in_a_bucket_killed_and_continued_equals_one_on_disk(
    bucket, local_run, tmp_path, monkeypatch, point, call
):
    model_dir = "gs://bucket/runs/tiny"
    killed = in_process(model_dir, point, call, 1, "short")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "bucket/runs/tiny/.lock" in bucket.names()
    monkeypatch.setattr(lease, "STALE_SECONDS", 5.0)  # of the dead holder's silence
    lines: list[str] = []
    active.run(short(model_dir), CONFIG, lines.append)
    resumed = {"checkpoint": "continuing from step", "chunk": "tasks were scored before"}[point]
    assert any(resumed in line for line in lines), lines
    found = mirror(bucket, "bucket/runs/tiny", tmp_path / "mirror")
    expected, there = stable_files(local_run), stable_files(found)
    assert list(expected) == list(there)
    assert [name for name in expected if expected[name] != there[name]] == []
    for name, params in checkpoints(local_run).items():
        for parameter, values in checkpoints(found)[name].items():
            assert (values == params[parameter]).all()
    assert len({path.parent for path in found.glob("round_*/train/events*")}) == 2
    assert len((found / "timings.jsonl").read_text().splitlines()) == 7
    assert not (found / ".lock").exists() and not list(found.glob("**/*.chunks"))


def test_niv2_is_prepared_into_a_bucket_and_read_from_there(bucket, tmp_path):
    niv2 = pytest.importorskip("ait_jax.tasks.niv2")
    from test_niv2 import GROWN, PLAIN, write_clone

    clone = write_clone(tmp_path / "clone")
    arguments = ["prepare", "niv2", f"--source={clone}", "--data_dir=gs://bucket/data"]
    assert main(arguments) == 0
    names = bucket.names("bucket/data/niv2/")
    assert "bucket/data/niv2/source.json" in names and len(names) > 5
    assert not [name for name in bucket.names() if "lock" in name or "preparing" in name]
    local = niv2.load_pool(niv2.prepare(clone, tmp_path / "data").directory.parent)
    bucket.requests.clear()
    pool = niv2.load_pool("gs://bucket/data")
    assert pool.fingerprint() == local.fingerprint() and list(pool) == list(local)
    assert tuple(pool[PLAIN].instances) == tuple(local[PLAIN].instances)
    fetched = [path for _, path in bucket.requests if "array_record" in path]
    assert any(PLAIN in path for path in fetched) and not any(GROWN in path for path in fetched)
    # Nothing to do, then a pool that is replaced is opened anew.
    assert not niv2.prepare(clone, "gs://bucket/data").fresh
    changed = json.loads((clone / "tasks" / f"{PLAIN}.json").read_text())
    changed["Instances"] = changed["Instances"][:2]
    (clone / "tasks" / f"{PLAIN}.json").write_text(json.dumps(changed))
    assert main([*arguments, "--overwrite"]) == 0
    assert len(niv2.load_pool("gs://bucket/data")[PLAIN].instances) == 2


def test_a_pool_whose_upload_was_cut_is_not_there(bucket, tmp_path):
    niv2 = pytest.importorskip("ait_jax.tasks.niv2")
    from test_niv2 import write_clone

    clone = write_clone(tmp_path / "clone")
    niv2.prepare(clone, "gs://bucket/data")
    del bucket.blobs["bucket/data/niv2/source.json"]
    with pytest.raises(UserError, match="not prepared in 'gs://bucket/data'"):
        niv2.load_pool("gs://bucket/data")
    assert niv2.prepare(clone, "gs://bucket/data").fresh
    assert len(niv2.load_pool("gs://bucket/data")) == 3


@pytest.mark.benchmark
def test_a_pod_writes_to_a_bucket_and_continues_there(bucket, tmp_path):
    """Two processes with four devices each: one is killed while the other works, both go on."""
    from test_distributed import assert_same_run, children, finished, pod, run, wait_for

    run(tmp_path / "whole")
    launcher = pod("gs://bucket/run")
    wait_for(launcher, "round_000/score|scored")
    os.kill(children(launcher)[1], signal.SIGKILL)
    finished(launcher, ExitCode.HOST_LOST)
    run("gs://bucket/run")
    assert_same_run(mirror(bucket, "bucket/run", tmp_path / "mirror"), tmp_path / "whole")
