"""Folders and files as people have them: links to nothing, pipes, odd names, other columns."""

import json
import os
import shutil

import pytest
from ait_jax.tasks import niv2, self_instruct
from shared_data import SHARED, needs_shared
from test_niv2 import task_json

from ait_jax import cli
from ait_jax.errors import UserError

CASES = SHARED / "cases" / "bug_reports"


def folder_of(tmp_path, *names):
    (tmp_path / "clone" / "tasks").mkdir(parents=True)
    for name in names:
        path = tmp_path / "clone" / "tasks" / f"{name}.json"
        path.write_text(json.dumps(task_json(name)))
    return tmp_path / "clone"


def odd_files(tasks):
    """Adds what cannot be read beside good tasks; returns the files' names."""
    (tasks / "gone.json").symlink_to("../gone")
    os.mkfifo(tasks / "pipe.json")
    (tasks / "endless.json").symlink_to("/dev/zero")
    (tasks / "folder.json").mkdir()
    return {"gone.json", "pipe.json", "endless.json", "folder.json"}


def test_what_is_no_task_file_is_refused_by_name_or_skipped_and_counted(tmp_path):
    clone = folder_of(tmp_path, "good")
    odd = odd_files(clone / "tasks")
    with pytest.raises(UserError, match=r"endless\.json: cannot read it: not a regular file"):
        niv2.prepare(clone, tmp_path / "data")
    prepared = niv2.prepare(clone, tmp_path / "data", on_bad_task="skip")
    assert prepared.num_tasks == 1 and set(prepared.skipped) == odd
    assert "No such file" in prepared.skipped["gone.json"]
    assert list(niv2.load_pool(tmp_path / "data")) == ["good"]
    assert not niv2.prepare(clone, tmp_path / "data", on_bad_task="skip").fresh
    (clone / "tasks" / "gone.json").unlink()
    (clone / "tasks" / "gone.json").write_text(json.dumps(task_json("gone")))
    with pytest.raises(UserError, match=r"1 file changed \(the first is 'tasks/gone\.json'\)"):
        niv2.prepare(clone, tmp_path / "data", on_bad_task="skip")


@pytest.mark.parametrize("name", ["\u6f22\u5b57", "_", "\u6f22 1", "my-task 3 (final)"])
def test_task_names_in_any_script(tmp_path, name):
    pool_of = folder_of(tmp_path, name)
    niv2.prepare(pool_of, tmp_path / "data")
    pool = niv2.load_pool(tmp_path / "data")
    assert list(pool) == [name] and pool[name].instances[0].id == f"{name}-000"


def test_a_damaged_record_of_a_prepared_pool_is_named(tmp_path):
    clone = folder_of(tmp_path, "good")
    niv2.prepare(clone, tmp_path / "data")
    path = tmp_path / "data" / "niv2" / "source.json"
    whole = json.loads(path.read_text())
    for change in (
        {"files": {"tasks/good.json": 3}}, {"files": [1]}, {"files": {"a": {"size": "x"}}},
        {"num_tasks": "one"}, {"skipped": ["a"]}, {"splits": {"default": 1}}, {"schema": [1]},
        {"fingerprint": None}, {"schema": True},
    ):  # fmt: skip
        path.write_text(json.dumps({**whole, **change}))
        for call in (lambda: niv2.load_pool(tmp_path / "data"),
                     lambda: niv2.prepare(clone, tmp_path / "data")):  # fmt: skip
            with pytest.raises(UserError, match=r"source\.json.*prepare again with overwrite"):
                call()
    for text in ("[]", "{", '{"schema": 1}', "[" * 1000, '{"schema": 1, "schema": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"source\.json.*[Pp]repare again with overwrite"):
            niv2.load_pool(tmp_path / "data")
    assert niv2.prepare(clone, tmp_path / "data", overwrite=True).fresh


def prepare(tmp_path, path, *flags):
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    return cli.main(
        ["prepare", "self_instruct", f"--source={path}", f"--data_dir={tmp_path / 'data'}", *flags]
    )


def instructions(tmp_path):
    pool = self_instruct.load_pool(tmp_path / "data")
    return {task.instruction.definition: task.instances[0] for task in pool.values()}


def test_columns_are_named_by_the_command_and_by_gin(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Say hi.", "reply": "hi"}\n')
    assert prepare(tmp_path, path) == 2
    assert "give --columns=instruction=question,output=reply" in capsys.readouterr().err
    columns = "--columns=instruction=question,output=reply"
    assert prepare(tmp_path, path, columns) == 0
    assert instructions(tmp_path)["Say hi."].outputs == ("hi",)
    command = [
        "tasks",
        "--gin_file=experiments/self_instruct_mini.gin",
        f"--gin.DATA_DIR={tmp_path / 'data'}",
        f"--gin.SELF_INSTRUCT_FILES={path}",
    ]
    for given in (columns, "--gin.COLUMNS=instruction=question,output=reply"):
        capsys.readouterr()
        assert cli.main([*command, given]) == 0
        assert "say_hi_" in capsys.readouterr().out
    assert cli.main(["tasks", columns]) == 2
    assert "--gin_file=pools/self_instruct.gin does" in capsys.readouterr().err, "no pool of rows"
    assert cli.main(command) == 2
    assert "was prepared with" in capsys.readouterr().err, "in another way"


def test_the_filter_of_self_instructs_code(tmp_path):
    rows = [
        ("Same.", "x", "1"), ("Same.", "x", "2"), ("Same.", "y", "3"),
        ("Open.", "", "1"), ("Open.", "", "2"),
        ("Invalid.", "echo", "echo"), ("Invalid.", "a:", "b"), ("Invalid.", "a", "b:"),
        ("Invalid.", "a", "b"),
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    lines = ({"instruction": i, "input": x, "output": o} for i, x, o in rows)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert prepare(tmp_path, path, "--filter_instances") == 0
    pool = self_instruct.load_pool(tmp_path / "data")
    # prepare_for_finetuning.py drops an instruction with one input and several outputs, unless the
    # input is empty; of the others it keeps what is valid.
    assert {
        task.instruction.definition: [(i.input, i.outputs) for i in task.instances]
        for task in pool.values()
    } == {"Open.": [("", ("1", "2"))], "Invalid.": [("a", ("b",))]}
    assert prepare(tmp_path, path) == 0
    assert len(self_instruct.load_pool(tmp_path / "data")) == 3


@needs_shared
def test_rows_that_were_reported(tmp_path, capsys):
    folder = CASES / "alpaca"
    assert prepare(tmp_path, folder / "dolly.jsonl") == 0
    found = instructions(tmp_path)
    assert len(found) == 6 and found["Name colour number 0."].input == "A list of colours."
    assert found["Name colour number 1."].input == ""
    assert found["Name colour number 1."].outputs == ("colour 1",)
    assert prepare(tmp_path, folder / "nan.json") == 0
    assert {i: x.input for i, x in instructions(tmp_path).items()} == {
        "Add two and three.": "", "Name a fruit.": "",
    }  # fmt: skip
    assert "2 empty cells (NaN) read as no text" in capsys.readouterr().out
    assert prepare(tmp_path, folder / "lf.json") == 0
    said = instructions(tmp_path)
    assert set(said) == {"You are terse.\n\nSay hi.", "Say bye."}
    assert said["You are terse.\n\nSay hi."].input == "User: a\n\nAssistant: b"
    for name in ("concat.json", "wrapped.json", "sharegpt.json", "ok.jsonl.gz", "u2028.jsonl"):
        assert prepare(tmp_path, folder / name) == 0, name
    capsys.readouterr()
    for name, problem in (
        ("utf16.jsonl", "utf16.jsonl, line 1: not UTF-8 text (UTF-16"),
        ("trailing.json", "trailing.json, line 2"),
        ("number.json", "'output' is a number, not a string"),
        ("upper.json", "--columns=instruction=Instruction,input=Input,output=Output"),
    ):
        assert prepare(tmp_path, folder / name) == 2, name
        said_so = capsys.readouterr().err
        assert problem in said_so and "Traceback" not in said_so
    assert prepare(tmp_path, folder / "dolly.jsonl", "--columns=instruction=instruction") == 2
    assert "rows without a column for the answer" in capsys.readouterr().err


@needs_shared
def test_task_folders_that_were_reported(tmp_path):
    dangling = tmp_path / "dangling"
    shutil.copytree(CASES / "dangling_symlink", dangling)
    os.chmod(dangling / "tasks", 0o755)
    (dangling / "tasks" / "task2.json").symlink_to("../gone")
    with pytest.raises(UserError, match=r"task2\.json"):
        niv2.prepare(dangling, tmp_path / "a")
    assert set(niv2.prepare(dangling, tmp_path / "a", on_bad_task="skip").skipped) == {"task2.json"}
    odd = tmp_path / "odd"
    shutil.copytree(CASES / "dangling_symlink", odd)
    os.chmod(odd / "tasks", 0o755)
    shutil.copy(odd / "tasks" / "ok.json", os.fsdecode(bytes(odd / "tasks") + b"/t\xe9.json"))
    prepared = niv2.prepare(odd, tmp_path / "b", on_bad_task="skip")
    assert list(prepared.skipped) == [r"t\xe9.json"] and prepared.num_tasks == 1
    assert any(r"t\xe9.json" in line for line in prepared.describe())
    assert niv2.prepare(CASES / "unicode_names", tmp_path / "c").num_tasks == 3
