"""Self-Instruct: rows of every schema, bad ones counted, and the prepared pool."""

import json
import os
import shutil

import pytest
from ait_jax.tasks import collected_task, self_instruct
from shared_data import SHARED, needs_shared

from ait_jax import cli
from ait_jax.assets import mini_vocabulary
from ait_jax.config.configuration import gin_folder
from ait_jax.errors import UserError
from ait_jax.pool.instruction_rows import Findings
from ait_jax.prompts.prompts import AlpacaEncoding
from ait_jax.runtime.files import check_name

REAL = SHARED / "data" / "self-instruct"


def row(instruction, input="", output="out", **more):
    return {"instruction": instruction, "input": input, "output": output, **more}


def write_lines(path, *rows):
    path.write_bytes(
        b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows)
    )
    return path


def write_list(path, *rows, indent=2):
    path.write_text(json.dumps(rows, indent=indent))
    return path


def prepare(tmp_path, source, test=None, **options):
    return self_instruct.prepare(
        [source], tmp_path / "data", test_source=[test] if test else None, **options
    )


def load(tmp_path, source, test=None, **options):
    prepare(tmp_path, source, test, **options)
    return self_instruct.load_pool(tmp_path / "data")


def by_instruction(pool):
    return {task.instruction.definition: task for task in pool.values()}


@pytest.mark.parametrize("write", [write_lines, write_list])
def test_rows_of_an_instruction_are_its_instances(tmp_path, write):
    source = write(
        tmp_path / "rows.json",
        row("Add.", "1 and 1", "2"),
        row("Greet.", None, "Hello"),
        row(" Add.\n", "1 and 2", "3", id=7),
        row("Add.", "1 and 1", "two"),
        row("Add.", " 1 and 1", "2 "),
        row("Rhyme.", "<noinput>", ["time", "lime"]),
    )
    prepared = prepare(tmp_path, source)
    pool = self_instruct.load_pool(tmp_path / "data")
    tasks = by_instruction(pool)
    assert list(tasks) == ["Add.", "Greet.", "Rhyme."]
    added = tasks["Add."].instances
    assert [(i.input, i.outputs) for i in added] == [("1 and 1", ("2", "two")), ("1 and 2", ("3",))]
    assert [i.id for i in added] == [f"{tasks['Add.'].name}-0", "7"]
    assert tasks["Greet."].instances[0].input == "" == tasks["Rhyme."].instances[0].input
    assert tasks["Rhyme."].instances[0].outputs == ("time", "lime")
    assert {reason: entry["count"] for reason, entry in prepared.findings.noted.items()} == {
        "instances merged: the same instruction and input, another reference": 1,
        "instances dropped: exact duplicates": 1,
        "inputs '<noinput>' read as none": 1,
    }
    assert (prepared.num_tasks, prepared.num_instances, prepared.num_test_tasks) == (3, 4, 0)
    assert pool.splits.remain == tuple(pool) and not pool.splits.test


def test_names_are_of_the_instruction_alone():
    name = collected_task.task_name
    assert name("Translate: “Guten Tag”").startswith("translate_guten_tag_")
    assert name("Say A.").startswith("say_a_") and name("Say A.") != name("Say a.")
    assert name("写一首诗").startswith("instruction_")
    for text in ("x" * 500, "..", "a/../b\x00", "a b " * 100, "\ud7ff", "CON", "-"):
        check_name(name(text), "task name")
        assert len(name(text)) < 70


def test_labels_apps_and_provenance(tmp_path):
    source = write_lines(
        tmp_path / "seed.jsonl",
        {"id": "s0", "name": "a", "instruction": "Spam?", "is_classification": True,
         "instances": [{"input": "buy", "output": "yes"}, {"input": "hi", "output": "no"}]},
        {"id": "s1", "name": "b", "instruction": "Write a poem.", "is_classification": False,
         "instances": [{"input": "", "output": "Roses"}]},
        row("Answer yes or no.", "a", "yes"), row("Answer yes or no.", "b", "no"),
        row("Spam?", "c", "yes", license="mit", website="https://example.org", taskname="x"),
    )  # fmt: skip
    test = write_lines(
        tmp_path / "test.jsonl",
        {
            "id": "u0",
            "motivation_app": "Gmail",
            "instruction": "Reply.",
            "instances": [{"input": "", "output": "Ok"}],
        },
    )
    pool = load(tmp_path, source, test)
    tasks = by_instruction(pool)
    assert [pool.is_cls(task.name) for task in tasks.values()] == [True, False, True, False]
    assert [i.id for i in tasks["Spam?"].instances] == ["s0-0", "s0-1", f"{tasks['Spam?'].name}-2"]
    assert tasks["Spam?"].metadata == {
        "Source": ("seed.jsonl",),
        "URL": ("https://example.org",),
        "Instance License": ("mit",),
    }
    assert tasks["Reply."].category == "Gmail" and tasks["Reply."].instances[0].id == "u0"
    assert pool.splits.test == (tasks["Reply."].name,)


def test_test_instructions_are_not_trained_on_and_need_no_reference(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", row("Shared."), row("Own."), row("Empty.", "", " "))
    test = write_lines(tmp_path / "b.jsonl", {"instruction": "Shared."}, row("Open.", "x", ""))
    prepared = prepare(tmp_path, source, test)
    pool = self_instruct.load_pool(tmp_path / "data")
    tasks = by_instruction(pool)
    assert list(tasks) == ["Own.", "Shared.", "Open."], "test tasks last, Empty. left out"
    assert pool.splits.remain == (tasks["Own."].name,)
    assert tasks["Shared."].instances[0].outputs == () == tasks["Open."].instances[0].outputs
    assert sorted(entry["count"] for entry in prepared.findings.noted.values()) == [1, 1, 2]
    assert any("a.jsonl, line 1" in line for line in prepared.describe())


BAD = {
    "rows that are not UTF-8": b'{"instruction": "caf\xe9", "input": "", "output": "x"}',
    "places of broken JSON": b'{"instruction": "x", "output": ',
    "rows of a wrong type": b"[1]",
    "rows of another schema": b'{"question": "x", "answer": "y"}',
    "rows of mixed schemas": b'{"instruction": "x", "output": "y", "instances": []}',
    "empty instructions": b'{"instruction": " ", "output": "y"}',
    "fields of a wrong type": b'{"instruction": "x", "output": 5}',
    "rows without a column for the answer": b'{"instruction": "x", "answer": "y"}',
    "conversations that are not read": b'{"messages": [{"role": "tool", "content": "x"}]}',
    "rows without an instance": b'{"instruction": "x", "instances": []}',
}


def test_bad_rows_are_counted_by_reason_and_the_first_is_named(tmp_path):
    rows = [line for line in BAD.values() for _ in range(2)]
    source = write_lines(
        tmp_path / "bad.jsonl", row("Good.", other="field"), b"", *rows, row("Good too.")
    )
    with pytest.raises(UserError) as error:
        prepare(tmp_path, source)
    for number, reason in enumerate(BAD):
        assert f"2 {reason}; the first: bad.jsonl, line {3 + 2 * number}: " in str(error.value)
    assert "20 bad rows" in str(error.value) and "--on_bad_task=skip" in str(error.value)
    assert not (tmp_path / "data" / "self_instruct").exists()
    prepared = prepare(tmp_path, source, on_bad_task="skip")
    assert {
        reason: entry["count"] for reason, entry in prepared.findings.bad.items()
    } == dict.fromkeys(BAD, 2)
    assert (
        "1 fields that are not used; the first: bad.jsonl, line 1: 'other'" in prepared.describe()
    )
    assert list(by_instruction(self_instruct.load_pool(tmp_path / "data"))) == [
        "Good.",
        "Good too.",
    ]
    with pytest.raises(UserError, match="prepared without 20 bad rows"):
        prepare(tmp_path, source)


@pytest.mark.parametrize(
    "value, field",
    [
        ({"instruction": 1}, "'instruction' is a number"),
        ({"instruction": "x", "input": ["y"], "output": "z"}, "'input' is a list"),
        ({"instruction": "x", "output": ["a", None, {}]}, "'output' is an object"),
        ({"instruction": "x", "instances": {"input": "y"}}, "'instances' is an object"),
        ({"instruction": "x", "instances": ["y"]}, "an instance is a string"),
        (
            {"instruction": "x", "output": "y", "is_classification": "yes"},
            "'is_classification' is a string",
        ),
        ({"instruction": "x", "output": "y", "id": {}}, "'id' is an object"),
    ],
)
def test_wrong_types_are_named(tmp_path, value, field):
    source = write_lines(tmp_path / "a.jsonl", row("Good."), value)
    with pytest.raises(UserError, match=f"a.jsonl, line 2: {field}"):
        prepare(tmp_path, source)


@pytest.mark.parametrize(
    "end, line, kept",
    [
        ('\n {"instruction": "c", "out', 3, 2),
        ("", 2, 2),
        (' "x"]', 2, 2),
        ("]\n[]", 2, 2),
        (', {"instruction": ' + "[" * 100_000, 2, 2),
    ],
)
def test_a_list_that_breaks_off_gives_what_comes_before(tmp_path, end, line, kept):
    text = '[{"instruction": "a", "output": "1"},\n{"instruction": "b", "output": "2"}'
    source = tmp_path / "broken.json"
    source.write_text(text + ("," if end.startswith("\n") else "") + end)
    with pytest.raises(
        UserError, match=f"1 places of broken JSON; the first: broken.json, line {line}: "
    ):
        prepare(tmp_path, source)
    assert prepare(tmp_path, source, on_bad_task="skip").num_tasks == kept


def test_text_is_kept_as_it_is(tmp_path):
    text = "tabs\tand\u2028separators\x85, \U0001f600 e\u0301, {instruction} %s \\u0041"
    source = tmp_path / "a.jsonl"
    lone = b'{"instruction": "lone", "output": "half \\ud83d pair"}'
    source.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps(row(text, text, text), ensure_ascii=False).encode()
        + b"\r\n"
        + lone
    )
    tasks = by_instruction(load(tmp_path, source))
    assert tasks[text].instances[0].input == text and tasks[text].instances[0].outputs == (text,)
    assert tasks["lone"].instances[0].outputs == ("half \ufffd pair",)
    encoding = AlpacaEncoding(10_000)
    shown = encoding.encode(tasks[text].instruction, text, len, lambda t, n: t[:n]).text
    assert shown.count(text) == 2, "the template is filled once"


def test_a_file_name_that_is_not_utf8(tmp_path):
    source = write_lines(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), row("One."), row("One."))
    prepared = prepare(tmp_path, source)
    assert any(r"caf\xe9.jsonl, line 2" in line for line in prepared.describe())
    (task,) = self_instruct.load_pool(tmp_path / "data").values()
    assert task.metadata["Source"] == (r"caf\xe9.jsonl",)


def test_files_without_a_row(tmp_path):
    for content in (b"", b"\n \n", b"[]", b"[ ]\n"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match="has no instruction to select from"):
            prepare(tmp_path, tmp_path / "a.json")
    with pytest.raises(UserError, match=r"does not exist; the source .*SELF_INSTRUCT_FILES"):
        prepare(tmp_path, tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        prepare(tmp_path, tmp_path)
    with pytest.raises(UserError, match="no source is given"):
        self_instruct.prepare(" , ", tmp_path / "data")
    good = write_lines(tmp_path / "b.json", row("Only a test."))
    with pytest.raises(UserError, match="no instruction to select from; 1 rows left out"):
        prepare(tmp_path, good, good)


def test_a_changed_source_is_refused_or_replaced(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", row("One."))
    test = write_lines(tmp_path / "t.jsonl", row("Test."))
    assert prepare(tmp_path, source, test).fresh
    assert not prepare(tmp_path, source, test).fresh
    with pytest.raises(UserError, match="1 file removed.*test/t.jsonl"):
        prepare(tmp_path, source)
    write_lines(source, row("One."), row("Two."))
    with pytest.raises(
        UserError, match=r"1 file changed.*`ait-jax prepare self_instruct --overwrite`"
    ):
        prepare(tmp_path, source, test)
    opened = self_instruct.load_pool(tmp_path / "data")
    assert prepare(tmp_path, source, test, overwrite=True).num_tasks == 3
    assert len(opened) == 2 and next(iter(opened.values())).instances[0].outputs == ("out",)
    assert len(self_instruct.load_pool(tmp_path / "data")) == 3
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        ".self_instruct.lock",
        "self_instruct",
    ]


def test_pools_of_several_names_lie_side_by_side(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", row("One."))
    second = write_lines(tmp_path / "b.jsonl", row("Two."))
    prepare(tmp_path, first)
    assert prepare(tmp_path, second, name="second").directory.name == "second"
    assert list(by_instruction(self_instruct.load_pool(tmp_path / "data", name="second"))) == [
        "Two."
    ]
    with pytest.raises(UserError, match="path separator"):
        prepare(tmp_path, first, name="../second")
    with pytest.raises(UserError, match="'third' is not prepared"):
        self_instruct.load_pool(tmp_path / "data", name="third")


def test_the_command(tmp_path, capsys):
    a = write_lines(tmp_path / "a.jsonl", row("One."), row("One."))
    b = write_lines(tmp_path / "b.jsonl", row("Two."))
    t = write_lines(tmp_path / "t.jsonl", row("Test."))
    command = [
        "prepare",
        "self_instruct",
        f"--source={a},{b}",
        f"--test_source={t}",
        f"--data_dir={tmp_path / 'data'}",
    ]
    assert cli.main(command) == 0
    output = capsys.readouterr().out
    assert "prepared 3 tasks with 3 instances" in output and "1 of them are test tasks" in output
    assert "1 instances dropped: exact duplicates; the first: a.jsonl, line 2" in output
    assert cli.main(command) == 0 and "already prepared" in capsys.readouterr().out
    assert cli.main(["prepare", "niv2", "--source=x", "--test_source=y"]) == 2
    assert "`ait-jax prepare niv2` takes no --test_source" in capsys.readouterr().err


def test_plain_t5xs_gin_file(tmp_path, clean_gin):
    seqio = pytest.importorskip("seqio")
    source = write_lines(tmp_path / "a.jsonl", row("One."), row("Two."))
    prepare(tmp_path, source, write_lines(tmp_path / "t.jsonl", row("Test.")))
    with clean_gin.unlock_config():
        clean_gin.add_config_file_search_path(str(gin_folder()))
        values = f"DATA_DIR = '{tmp_path / 'data'}'\nVOCABULARY_PATH = '{mini_vocabulary()}'"
        clean_gin.parse_config_files_and_bindings(["t5x/self_instruct.gin"], values)
        names = [
            clean_gin.query_parameter(f"{macro}/gin.macro.value").scoped_configurable_fn()
            for macro in ("MIXTURE_OR_TASK_NAME", "EVAL_MIXTURE_OR_TASK_NAME")
        ]
    assert names == ["self_instruct_default_train", "self_instruct_default_test"]
    test = seqio.get_mixture_or_task(names[1])
    assert isinstance(test, seqio.Task)
    (shown,) = test.get_dataset(
        {"inputs": 64, "targets": 8}, "test", shuffle=False
    ).as_numpy_iterator()
    assert shown["inputs_pretokenized"].endswith(b"### Instruction:\nTest.\n\n### Response:")


@needs_shared
def test_real_seed_tasks_and_user_oriented_instructions(tmp_path):
    seed, user = REAL / "seed_tasks.jsonl", REAL / "user_oriented_instructions.jsonl"
    findings = Findings()
    tasks = collected_task.collect([seed], [], findings)
    # paper_facts D: 175 tasks, 26 of them classification; 252 instructions, 44 with empty input.
    assert (
        len(tasks) == 175
        and sum(bool(task.is_cls) for task in tasks) == 26
        and not findings.num_bad
    )
    pool = load(tmp_path, seed, user)
    instances = [i for name in pool.splits.test for i in pool[name].instances]
    assert len(instances) == 252 and sum(not i.input for i in instances) == 44
    assert len({i.id for i in instances}) == 252
    assert len(pool.splits.test) == 251, "one instruction is there twice, with two inputs"
    assert len(pool.splits.remain) == 174, "one seed task is a user-oriented instruction"
    assert len({pool[name].category for name in pool.splits.test}) == 71
    lines = [json.loads(line) for line in seed.read_bytes().splitlines()]
    listed = tmp_path / "seed_list.json"
    listed.write_text(json.dumps(lines, indent=1))
    again = collected_task.collect([listed], [], Findings())
    assert [t.build().instances for t in again] == [t.build().instances for t in tasks]


def test_a_killed_preparation_leaves_the_old_pool(tmp_path, monkeypatch):
    source = write_lines(tmp_path / "a.jsonl", row("One."))
    prepare(tmp_path, source)
    write_lines(source, row("One."), row("Two."))

    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(self_instruct.stored_pool, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, source, overwrite=True)
    assert len(self_instruct.load_pool(tmp_path / "data")) == 1
    data = tmp_path / "data"
    shutil.move(data / "self_instruct", data / ".self_instruct-replaced")
    monkeypatch.undo()
    write_lines(source, row("One."))
    assert not prepare(tmp_path, source).fresh, "put back after a kill between two renames"
