"""A grown pool on disk."""

import json

import pytest
from ait_jax.tasks.grow.dataset import Dataset
from ait_jax.tasks.grow.grown_pool import GrownPool, make_task, read_entries, read_report, task_name
from ait_jax.tasks.grow.proposal import Proposal

from ait_jax.errors import UserError
from ait_jax.pool import Instance, read_task, task_digest

DATASET = Dataset("a/b c", "lines", license="CC BY-SA 3.0", website="https://example.org")
INSTANCES = (Instance("0", "in", ("out",)), Instance("1", "more", ("out",)))


def proposal(instruction="Do it.", **more):
    given = {"category": "Classification", "generator": "templates", **more}
    return Proposal("a/b c", instruction, ("x",), ("y",), **given)


def made(instruction="Do it.", instances=INSTANCES):
    return make_task(proposal(instruction), DATASET, instances, " Answers must be one of a, b.")


def grown(path, *tasks, growth=None):
    folder = GrownPool(path)
    for task in tasks:
        folder.add(task, is_cls=True)
    folder.commit(growth or {"n": 1})
    return folder


def test_a_task_has_provenance_and_license():
    task = made()
    assert task.instruction.definition == "Do it. Answers must be one of a, b."
    assert task.category == "Classification"
    metadata = {key: list(values) for key, values in task.metadata.items()}
    assert metadata == {
        "Contributors": ["ait-jax grow"],
        "Source": ["a/b c"],
        "URL": ["https://example.org"],
        "Instance License": ["cc-by-sa-3.0"],
        "Metadata Source": ["lines"],
        "Input Fields": ["x"],
        "Output Field": ["y"],
        "Generator": ["templates"],
        "Model": [],
    }
    unlicensed = make_task(proposal(), Dataset("d", "s"), ())
    assert unlicensed.metadata["Instance License"] == ("not recorded",)


def test_languages_of_input_and_output():
    translation = Proposal("d", "Translate.", ("en",), ("de",))
    task = make_task(translation, Dataset("d", "s", languages=("en", "de")), ())
    assert (task.input_languages, task.output_languages) == (("English",), ("German",))
    assert task.instruction_languages == ("English",)
    finnish = make_task(proposal(), Dataset("d", "s", languages=("fi",)), ())
    assert finnish.input_languages == finnish.output_languages == ("Finnish",)
    assert made().input_languages == ("English",)


def test_names_are_safe_and_depend_on_the_proposal_alone():
    name = task_name(proposal())
    assert name.startswith("dynosaur_a_b_c_y_") and name == task_name(proposal(model="other"))
    assert name != task_name(proposal("Do that."))
    long = Proposal("../" * 200 + "é" * 200, "Do it.", ("x",), ("y",))
    assert task_name(long).isascii() and "/" not in task_name(long) and len(task_name(long)) < 130


def test_what_is_written_is_read_again(tmp_path):
    grown(tmp_path, made(), made("Do that.", ()))
    first, second = read_entries(tmp_path)
    assert (first.num_instances, second.num_instances) == (2, 0) and first.is_cls
    assert first.task.instruction == made().instruction and first.task.instances == ()
    assert first.digest == task_digest(made()).hex()
    assert dict(first.task.metadata) == dict(made().metadata)
    (path,) = (tmp_path / "tasks").iterdir()
    assert read_task(path) == made()
    assert read_report(tmp_path) == {"schema": 1, "growths": [{"n": 1}]}


def test_growth_keeps_what_was_there(tmp_path):
    grown(tmp_path, made(), made("Do that.", ()))
    before = (tmp_path / "instructions.jsonl").read_text()
    folder = grown(tmp_path, made("New."), growth={"n": 2})
    after = (tmp_path / "instructions.jsonl").read_text()
    assert after.startswith(before) and len(folder.entries) == 3
    assert [growth["n"] for growth in read_report(tmp_path)["growths"]] == [1, 2]


def test_instances_may_come_later(tmp_path):
    without, other = made(instances=()), made("Other.")
    folder = grown(tmp_path, without, other)
    assert folder.has(without.name, with_instances=False)
    assert not folder.has(without.name, with_instances=True)
    grown(tmp_path, made())
    entries = list(read_entries(tmp_path))
    assert [entry.task.name for entry in entries] == [without.name, other.name]
    assert [entry.num_instances for entry in entries] == [2, 2]


def test_what_was_not_committed_is_no_part_of_the_pool(tmp_path):
    GrownPool(tmp_path).add(made(), is_cls=True)
    assert list(read_entries(tmp_path)) == []
    assert len(grown(tmp_path, made()).entries) == 1


def test_what_another_growth_committed_meanwhile_is_kept(tmp_path):
    folder = GrownPool(tmp_path)
    grown(tmp_path, made())
    with folder.locked():
        folder.add(made("Do that."), is_cls=True)
        folder.commit({"growth": "second"})
    assert len(list(read_entries(tmp_path))) == 2


def test_a_growth_that_adds_nothing_is_reported_once(tmp_path):
    for name in ("one", "other", "one"):
        GrownPool(tmp_path).commit({"growth": name})
    assert [growth["growth"] for growth in read_report(tmp_path)["growths"]] == ["one", "other"]
    assert not (tmp_path / "instructions.jsonl").exists()


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        '{"name": "a"}',
        '{"name": "../a", "num_instances": 1, "digest": "%s", "is_cls": true}' % ("0" * 64),
        '{"name": "a", "num_instances": 1, "digest": "zz", "is_cls": true}',
        '{"name": "a", "num_instances": true, "digest": "%s", "is_cls": true}' % ("0" * 64),
    ],
)
def test_damaged_lines(tmp_path, line):
    (tmp_path / "instructions.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="line 1"):
        GrownPool(tmp_path)


def test_damaged_reports_and_places_that_are_none(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"schema": 7}))
    with pytest.raises(UserError, match="another version"):
        read_report(tmp_path)
    for damaged in ("{", json.dumps({"schema": 1}), json.dumps({"schema": 1, "growths": [3]})):
        (tmp_path / "report.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"), GrownPool(tmp_path).locked():
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        GrownPool(tmp_path / "file")
    with pytest.raises(UserError, match="not on a local disk"):
        GrownPool("gs://bucket/pool")
