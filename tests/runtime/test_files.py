import json
import os
import stat

import pytest

from ait_jax.errors import UserError
from ait_jax.runtime import files


def test_write_bytes_makes_folders_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.bin"
    files.write_bytes(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    assert os.listdir(path.parent) == ["x.bin"]


def test_write_accepts_strings_and_epath(tmp_path):
    from etils import epath

    files.write_text(str(tmp_path / "s.txt"), "é\n")
    files.write_text(epath.Path(tmp_path) / "e.txt", "é\n")
    assert (tmp_path / "s.txt").read_bytes() == (tmp_path / "e.txt").read_bytes() == b"\xc3\xa9\n"


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    files.write_text(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_write_json_keeps_order_and_ends_with_newline(tmp_path):
    files.write_json(tmp_path / "x.json", {"b": 1, "a": ["é"]})
    assert (tmp_path / "x.json").read_text(
        encoding="utf-8"
    ) == '{\n "b": 1,\n "a": [\n  "é"\n ]\n}\n'


def test_write_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_failure_inside_the_block_keeps_the_old_file_and_cleans_up(tmp_path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replace_with(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_leftover_of_a_killed_run_is_overwritten(tmp_path):
    (tmp_path / ".tmp-x.txt").write_text("left by a killed run, longer than the new text")
    files.write_text(tmp_path / "x.txt", "new")
    assert os.listdir(tmp_path) == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "new"


def test_unwritable_place_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x\.txt.*MODEL_DIR"):
        files.write_text(tmp_path / "file" / "x.txt", "")


def test_defects_are_not_called_user_errors(tmp_path):
    with pytest.raises(FileNotFoundError), files.replace_with(tmp_path / "x.txt"):
        (tmp_path / "not there").read_bytes()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["task001_a", "a.b-c_d", "задача", "a b", "x" * 200])
def test_good_names(name):
    assert files.check_name(name, "task name") == name


@pytest.mark.parametrize(
    "name, problem",
    [
        ("", "is empty"),
        (None, "not a string"),
        ("a/b", "path separator"),
        ("..\\b", "path separator"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\u2028b", "control character"),
        ("a\ud800b", "control character"),
        ("..", "starts with a dot"),
        (".hidden", "starts with a dot"),
        ("a ", "white space"),
        ("x" * 201, "201 bytes"),
        ("é" * 101, "202 bytes"),
    ],
)
def test_bad_names(name, problem):
    with pytest.raises(UserError, match=problem) as raised:
        files.check_name(name, "task name in a.txt")
    assert str(raised.value).startswith("task name in a.txt")
    assert len(str(raised.value)) < 400


def test_any_process_may_write_what_a_lock_guards(tmp_path, monkeypatch):
    monkeypatch.setattr(files.distributed, "is_writer", lambda: False)
    files.write_json(tmp_path / "a.json", 1)
    assert not (tmp_path / "a.json").exists()
    files.write_json(tmp_path / "a.json", 1, any_process=True)
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_names_that_utf8_cannot_hold_are_written_all_the_same(tmp_path):
    files.write_json(tmp_path / "a.json", {"path": "caf\udce9", "text": "whole \U0001f600"})
    written = (tmp_path / "a.json").read_bytes().decode()
    assert json.loads(written) == {"path": "caf\ufffd", "text": "whole \U0001f600"}
