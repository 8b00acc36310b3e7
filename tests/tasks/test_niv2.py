"""NIV2: the clone, the builder with its full schema, and the pool read back without TensorFlow."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ait_jax.tasks import niv2
from shared_data import NIV2, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool import read_task, task_to_json

DOTTED = "task1529_scitail1.1_classification"
PLAIN = "task001_colour_naming"
GROWN = "task002_word_chain"


def task_json(name: str, num_instances: int = 7) -> dict:
    """A task with every field of the schema, and some that only careless files have."""
    return {
        "Contributors": ["A. Author", "B. Author"],
        "Source": ["invented"],
        "URL": ["https://example.org/?a=1&b=2"],
        "Categories": ["Textual Entailment", "Other"],
        "Reasoning": [],
        "Definition": [f"Do what {name} asks: é, 漢字, \U0001f600.", "A second definition."],
        "Input_language": ["English", "French"],
        "Output_language": ["French"],
        "Instruction_language": ["English"],
        "Domains": ["Science"],
        "Positive Examples": [
            {"input": "one\n two ", "output": "", "explanation": "because"},
            {"input": "three", "output": "four", "explanation": ""},
        ],
        "Negative Examples": [{"input": "x", "output": "y", "explanation": "no\tno"}],
        "Instances": [
            {
                "id": f"{name}-{i:03d}",
                "input": f"input {i}\nof {name}",
                "output": [f"answer {i}", "oui", ""][: 1 + i % 3],
            }
            for i in range(num_instances)
        ],
        "Instance License": ["CC BY 4.0"],
        "Our Own Field": ["kept", "too"],
    }


def write_clone(directory: Path, names=(PLAIN, GROWN, DOTTED)) -> Path:
    (directory / "tasks").mkdir(parents=True)
    for name in names:
        (directory / "tasks" / f"{name}.json").write_text(json.dumps(task_json(name)))
    default = directory / "splits" / "default"
    default.mkdir(parents=True)
    (default / "train_tasks.txt").write_text(f"{GROWN}\n{PLAIN}\ntask999_elsewhere\n")
    (default / "test_tasks.txt").write_text(f"{DOTTED}\n")
    (default / "excluded_tasks.txt").write_text("task800_gone\n")
    return directory


@pytest.fixture
def clone(tmp_path):
    return write_clone(tmp_path / "clone")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A synthetic clone and the data_dir it was prepared to; tests must not change them."""
    root = tmp_path_factory.mktemp("niv2")
    clone = write_clone(root / "clone")
    return clone, root / "data", niv2.prepare(clone, root / "data")


def listing(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def test_every_field_and_every_reference_come_back(made):
    clone, data, prepared = made
    assert (prepared.num_tasks, prepared.fresh, dict(prepared.skipped)) == (3, True, {})
    pool = niv2.load_pool(data)
    assert set(pool) == {PLAIN, GROWN, DOTTED}
    for name in pool:
        # The JSON itself, not our reading of it, is what must come back.
        assert task_to_json(pool[name]) == json.loads(
            (clone / "tasks" / f"{name}.json").read_text()
        )
    assert pool[PLAIN].instances[2].outputs == ("answer 2", "oui", "")


def test_instances_are_a_lazy_sequence(made):
    pool = niv2.load_pool(made[1])
    instances = pool[DOTTED].instances
    whole = tuple(instances)
    assert len(instances) == len(whole) == 7
    assert instances[-1] == whole[6] and instances[2:5] == whole[2:5] and instances[5:2] == ()
    assert instances == whole and whole == instances and instances != whole[:-1]
    assert pickle.loads(pickle.dumps(instances))[3] == whole[3]
    assert len(pickle.dumps(instances)) < 1000
    with pytest.raises(IndexError):
        instances[7]


def test_pool_equals_the_one_read_from_the_files(made):
    from ait_jax.pool import TaskPool

    clone, data, _ = made
    pool = niv2.load_pool(data)
    direct = TaskPool([read_task(path) for path in sorted((clone / "tasks").iterdir())])
    assert TaskPool(pool.values()).fingerprint() == direct.fingerprint()
    assert pool.fingerprint() == niv2.prepare(clone, data).fingerprint, "no instance is read for it"


def test_splits_and_labels(made):
    pool = niv2.load_pool(made[1], cls_gen_labels={PLAIN: True, GROWN: False})
    assert pool.splits.remain == (GROWN, PLAIN, "task999_elsewhere")
    assert (pool.splits.test, pool.splits.dev, pool.splits.train) == ((DOTTED,), (), ())
    assert pool.is_cls(PLAIN) and not pool.is_cls(GROWN)
    with pytest.raises(UserError, match="splits/xlingual"):
        niv2.load_pool(made[1], splits="xlingual")


def test_labels_from_a_file(made, tmp_path):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({PLAIN: "CLS", GROWN: "GEN"}))
    pool = niv2.load_pool(made[1], cls_gen_labels=labels)
    assert pool.is_cls(PLAIN) and not pool.is_cls(GROWN)


def test_second_call_does_nothing(made):
    clone, data, prepared = made
    before = {name: (data / name).stat().st_mtime_ns for name in listing(data)}
    again = niv2.prepare(clone, data)
    assert not again.fresh and again.fingerprint == prepared.fingerprint
    assert {name: (data / name).stat().st_mtime_ns for name in listing(data)} == before


def test_touched_files_with_the_same_content_are_unchanged(clone, tmp_path):
    niv2.prepare(clone, tmp_path / "data")
    os.utime(clone / "tasks" / f"{PLAIN}.json", ns=(1, 1))
    assert not niv2.prepare(clone, tmp_path / "data").fresh


@pytest.mark.parametrize("change", ["edit", "add", "remove", "splits"])
def test_changed_source_is_refused_or_replaced(clone, tmp_path, change):
    data = tmp_path / "data"
    first = niv2.prepare(clone, data)
    before = niv2.load_pool(data)[PLAIN].instances[0]
    path = clone / "tasks" / f"{PLAIN}.json"
    if change == "edit":
        edited = task_json(PLAIN)
        edited["Instances"][0]["input"] = "Input 0\nof " + PLAIN  # the same size
        path.write_text(json.dumps(edited))
        os.utime(path, ns=(1, 1))
        named = f"1 file changed (the first is 'tasks/{PLAIN}.json')"
    elif change == "add":
        (clone / "tasks" / "task003_new.json").write_text(json.dumps(task_json("task003_new")))
        named = "1 file added (the first is 'tasks/task003_new.json')"
    elif change == "remove":
        path.unlink()
        named = f"1 file removed (the first is 'tasks/{PLAIN}.json')"
    else:
        (clone / "splits" / "default" / "test_tasks.txt").write_text("")
        named = "1 file changed (the first is 'splits/default/test_tasks.txt')"
    with pytest.raises(UserError) as refused:
        niv2.load_pool(data, clone)
    assert named in str(refused.value) and "overwrite" in str(refused.value)
    assert niv2.load_pool(data)[PLAIN].instances[0] == before

    again = niv2.prepare(clone, data, overwrite=True)
    assert again.fresh and again.fingerprint != first.fingerprint
    pool = niv2.load_pool(data, clone)
    assert set(pool) == {p.stem for p in (clone / "tasks").iterdir()}
    if change == "edit":
        assert pool[PLAIN].instances[0].input.startswith("Input")
    assert [p.name for p in data.iterdir() if p.name not in ("niv2", ".niv2.lock")] == []


def test_not_prepared_names_niv2_dir(tmp_path):
    with pytest.raises(UserError, match="NIV2_DIR"):
        niv2.load_pool(tmp_path / "data")
    with pytest.raises(UserError, match="NIV2_DIR.*not a folder"):
        niv2.load_pool(tmp_path / "data", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"NIV2_DIR.*tasks/\*.json"):
        niv2.prepare(tmp_path, tmp_path / "data")


def test_load_prepares_what_is_not_prepared(clone, tmp_path):
    pool = niv2.load_pool(tmp_path / "data", clone)
    assert len(pool) == 3 and (tmp_path / "data" / "niv2" / "source.json").is_file()


def test_bad_json_names_file_and_line_and_leaves_nothing(clone, tmp_path):
    (clone / "tasks" / "task500_bad.json").write_text(
        '{\n "Definition": ["a"],\n "Instances": [}\n'
    )
    with pytest.raises(UserError, match=r"task500_bad\.json, line 3"):
        niv2.prepare(clone, tmp_path / "data")
    assert listing(tmp_path / "data") == [".niv2.lock"]


def test_bad_tasks_can_be_skipped_and_are_counted(clone, tmp_path):
    (clone / "tasks" / "task500_bad.json").write_text("{")
    (clone / "tasks" / "task501_empty.json").write_text(
        json.dumps({**task_json("x"), "Instances": []})
    )
    data = tmp_path / "data"
    prepared = niv2.prepare(clone, data, on_bad_task="skip")
    assert prepared.num_tasks == 3
    assert set(prepared.skipped) == {"task500_bad.json", "task501_empty.json"}
    assert "line 1" in prepared.skipped["task500_bad.json"]
    again = niv2.prepare(clone, data, on_bad_task="skip")
    assert not again.fresh and again.skipped == prepared.skipped
    assert len(niv2.load_pool(data)) == 3
    with pytest.raises(UserError, match="2 bad task files"):
        niv2.prepare(clone, data)
    with pytest.raises(UserError, match="Did you mean 'skip'"):
        niv2.prepare(clone, data, on_bad_task="skp")


def test_a_skipped_file_whose_name_is_not_utf_8_has_a_printable_one(clone, tmp_path):
    with open(os.fsencode(clone / "tasks") + b"/t\xe9.json", "w") as file:
        file.write(json.dumps(task_json("x")))
    prepared = niv2.prepare(clone, tmp_path / "data", on_bad_task="skip")
    assert prepared.num_tasks == 3 and set(prepared.skipped) == {r"t\xe9.json"}
    assert niv2.prepare(clone, tmp_path / "data", on_bad_task="skip").skipped == prepared.skipped


def test_only_bad_tasks(tmp_path):
    (tmp_path / "clone" / "tasks").mkdir(parents=True)
    (tmp_path / "clone" / "tasks" / "task1.json").write_text("[]")
    with pytest.raises(UserError, match="none of its 1 task files"):
        niv2.prepare(tmp_path / "clone", tmp_path / "data", on_bad_task="skip")
    assert listing(tmp_path / "data") == [".niv2.lock"]


def test_unsafe_names(clone, tmp_path):
    (clone / "tasks" / "a\\b.json").write_text(json.dumps(task_json("x")))
    with pytest.raises(UserError, match="path separator"):
        niv2.prepare(clone, tmp_path / "data")
    (clone / "tasks" / "a\\b.json").unlink()
    (clone / "tasks" / "._task001.json").write_text("junk that macOS leaves")
    (clone / "splits" / "default" / "train_tasks.txt").write_text("ok\n../../etc/passwd\n")
    with pytest.raises(UserError, match=r"train_tasks\.txt, line 2.*path separator"):
        niv2.prepare(clone, tmp_path / "data")


def test_unwritable_data_dir(clone, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        niv2.prepare(clone, tmp_path / "file")


def test_damaged_files_are_the_users_to_mend(clone, tmp_path):
    data = tmp_path / "data"
    niv2.prepare(clone, data)
    pool = niv2.load_pool(data)
    for file in (data / "niv2").rglob("*array_record*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        list(pool[PLAIN].instances)
    with pytest.raises(UserError, match="damaged"):
        niv2.load_pool(data)
    (data / "niv2" / "source.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        niv2.load_pool(data, clone)
    niv2.prepare(clone, data, overwrite=True)
    assert len(tuple(niv2.load_pool(data, clone)[PLAIN].instances)) == 7


def run_python(code: str, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_killed_and_prepared_again(clone, tmp_path, made):
    data = tmp_path / "data"
    child = run_python(
        """
        import sys, time
        from ait_jax.tasks import niv2
        read = niv2._Reader.__call__
        def slow(self, path):
            slow.calls += 1
            if slow.calls == 6:  # the last task's instances: all else is written by then
                print("there", flush=True)
                time.sleep(60)
            return read(self, path)
        slow.calls = 0
        niv2._Reader.__call__ = slow
        niv2.prepare(sys.argv[1], sys.argv[2])
        """,
        clone,
        data,
    )
    try:
        assert any("there" in line for line in child.stdout)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert (data / ".niv2-preparing").is_dir() and not (data / "niv2").exists()
    with pytest.raises(UserError, match="NIV2_DIR"):
        niv2.load_pool(data)
    assert niv2.prepare(clone, data).fresh
    untouched = made[1]
    assert listing(data) == listing(untouched)
    for name in listing(data):
        if "array_record" in name:
            assert (data / name).read_bytes() == (untouched / name).read_bytes()


def test_killed_between_the_two_renames(clone, tmp_path):
    data = tmp_path / "data"
    niv2.prepare(clone, data)
    (data / "niv2").rename(data / ".niv2-replaced")
    assert not niv2.prepare(clone, data).fresh
    assert sorted(p.name for p in data.iterdir()) == [".niv2.lock", "niv2"]


def test_reads_where_tensorflow_is_not_installed(made):
    child = run_python(
        """
        import sys
        class Without:
            def __init__(self, finder):
                self.finder = finder
            def find_spec(self, name, path=None, target=None):
                blocked = name.split(".")[0] == "tensorflow"
                return None if blocked else self.finder.find_spec(name, path, target)
            def __getattr__(self, name):
                return getattr(self.finder, name)
        sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
        try:
            import tensorflow
        except ImportError:
            print("absent")
        from ait_jax.tasks import niv2
        pool = niv2.load_pool(sys.argv[1])
        print(len(pool), pool["task001_colour_naming"].instances[2].outputs)
        niv2.prepare(sys.argv[2], sys.argv[3])
        print(len(niv2.load_pool(sys.argv[3])), "tensorflow" in sys.modules)
        """,
        made[1],
        made[0],
        made[1].parent / "without",
    )
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0, output
    assert "absent\n3 ('answer 2', 'oui', '')\n" in output and output.endswith("3 False\n")


def test_importing_tasks_is_light():
    child = run_python(
        "import ait_jax.tasks, sys; print([m for m in ('tensorflow', 'seqio') if m in sys.modules])"
    )
    assert child.communicate()[0] == "[]\n"


def test_tfds_reads_one_task(made):
    import tensorflow_datasets as tfds

    _, data, _ = made
    source = tfds.data_source("niv2", data_dir=data, split="task1529_scitail1_1_classification")
    assert len(source) == 7 and source[6]["id"].decode() == f"{DOTTED}-006"
    dataset = tfds.load("niv2", data_dir=data, split="task1529_scitail1_1_classification[2:4]")
    rows = list(dataset.as_numpy_iterator())
    assert [row["id"].decode() for row in rows] == [f"{DOTTED}-002", f"{DOTTED}-003"]
    assert rows[0]["outputs"].tolist() == [b"answer 2", b"oui", b""]
    tasks = tfds.load("niv2/tasks", data_dir=data, split="tasks")
    table = {row["name"].decode(): row["split"].decode() for row in tasks.as_numpy_iterator()}
    assert table[DOTTED] == "task1529_scitail1_1_classification" and table[PLAIN] == PLAIN


def test_tfds_prepares_from_a_manual_directory(clone, tmp_path):
    import tensorflow_datasets as tfds

    builder = tfds.builder("niv2", data_dir=tmp_path / "data")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=clone))
    assert len(builder.as_data_source(split=PLAIN)) == 7


def test_plain_lines_where_there_is_no_terminal(clone, tmp_path, capfd):
    niv2.prepare(clone, tmp_path / "data")
    output = capfd.readouterr()
    assert output.out == "" and output.err == "Preparing 3 NIV2 tasks ...\n"


@needs_shared
def test_real_tasks_come_back_whole(tmp_path):
    names = [
        "task1530_scitail1.1_sentence_generation",
        "task006_mctaco_question_generation_transient_stationary",
        "task743_eurlex_summarization",
    ]
    not_a_number = next(
        p.stem for p in sorted((NIV2 / "tasks").glob("*.json")) if "NaN" in p.read_text("utf-8")
    )
    names += [not_a_number, "task672_amazon_and_yelp_summarization_dataset_summarization"]
    (tmp_path / "clone" / "tasks").mkdir(parents=True)
    for name in names:
        shutil.copy(NIV2 / "tasks" / f"{name}.json", tmp_path / "clone" / "tasks")
    shutil.copytree(NIV2 / "splits", tmp_path / "clone" / "splits")
    started = time.monotonic()
    pool = niv2.load_pool(tmp_path / "data", tmp_path / "clone")
    assert time.monotonic() - started < 60
    assert set(pool) == set(names)
    assert (len(pool.splits.remain), len(pool.splits.test)) == (122, 15)
    for name in names:
        original = json.loads((NIV2 / "tasks" / f"{name}.json").read_text("utf-8"))
        if name == not_a_number:
            original["URL"] = [""]  # what `task_from_json` makes of an empty spreadsheet cell
        assert task_to_json(pool[name]) == original
