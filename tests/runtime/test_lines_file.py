import pytest

from ait_jax.runtime.files import LinesFile


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_lines_are_added_read_and_replaced(where, bucket, tmp_path):
    path = tmp_path / "a.txt" if where == "disk" else "gs://bucket/a.txt"
    file = LinesFile(path)
    assert file.read() == []
    file.replace(["one"])
    file.add("two")
    assert file.read() == ["one", "two"]
    file.flush()
    assert LinesFile(path).read() == ["one", "two"]
    again = LinesFile(path)
    again.add("three")
    again.flush()
    assert LinesFile(path).read() == ["one", "two", "three"]


def test_a_bucket_gets_lines_when_they_are_flushed(bucket):
    file = LinesFile("gs://bucket/a.txt")
    file.add("one")
    assert bucket.names() == []
    file.flush()
    assert bucket.read("bucket/a.txt") == b"one\n"
    uploads = len(bucket.requests)
    file.flush()
    assert len(bucket.requests) == uploads


def test_a_disk_has_every_line_at_once(tmp_path):
    file = LinesFile(tmp_path / "a.txt")
    file.add("one")
    assert (tmp_path / "a.txt").read_text() == "one\n"
