"""`ait-jax tasks`: lists, searches, one task as the model sees it; with a run; untrusted text."""

import csv
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from ait_jax import assets, cli
from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import visible
from ait_jax.pool import Splits, TaskPool, task_from_json
from ait_jax.pool.splits import write_splits
from ait_jax.prompts.perturb import WordDrop
from ait_jax.prompts.prompts import TkInstructEncoding
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.randomness import Key
from ait_jax.report import pool_view, prompt_view, task_page
from ait_jax.report.pool_view import PoolView
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.scorer import likelihoods
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts, scoring_instances
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.uncertainty import task_scores

EVIL = "\x1b]0;title\x07\x1b[2J\u202e [bold]x[/bold]"
NAME = "mini047_remove_the_repeated_word"


def tasks(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main(["tasks", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture(scope="module")
def opened():
    """The mini pool, opened once for all tests of this file."""
    import gin

    source = pool_view.open_pool(GinFlags(bindings=("mini.load_pool.instances_per_task = 6",)))
    assert len(source.pool) == 139 and source.split_of
    values = {name: source.value(name) for name in ("vocabulary", "encoding", "scorer", "seed")}
    gin.clear_config()
    return {"pool": source.pool, **values}, source.split_of


@pytest.fixture
def mini(opened, monkeypatch):
    """Commands find that pool, and what is put into its `found`."""
    values, splits = opened
    source = PoolView(values.get)
    source.__dict__["split_of"] = splits
    monkeypatch.setattr(pool_view, "open_pool", lambda *_: source)
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    return source


def test_lists_search_filter_sort_and_limit(mini, capsys):
    code, out, _ = tasks(capsys)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["task", "category", "kind", "split", "instances"]
    assert (
        len(lines) == 42
        and lines[-1].startswith("139 of the 139 tasks")
        and "--limit=0" in lines[-1]
    )
    rows = json.loads(tasks(capsys, "--search", "WORD twice", "--json")[1])
    assert {"mini003_copy_word_twice", NAME} <= {row["task"] for row in rows} and len(rows) < 30
    rows = list(csv.DictReader(io.StringIO(tasks(capsys, "--cls", "--split=test", "--csv")[1])))
    assert rows and {(row["kind"], row["split"]) for row in rows} == {("CLS", "test")}
    rows = json.loads(
        tasks(capsys, "--gen", "--category=copying", "--sort=-task", "--limit=2", "--json")[1]
    )
    assert [row["task"] for row in rows] == ["mini004_always_thank_you", "mini003_copy_word_twice"]
    assert "0 of the 139" in tasks(capsys, "--search=nowhere to be found")[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--category=Coyping", "Did you mean 'Text Copying'?"),
        ("--sort=categry", "Did you mean 'category'?"),
        ("--sort=uncertainty", "give --run=MODEL_DIR"),
        ("--limit=-1", "must be 0 (all) or more"),
        ("mini047_remove_the_repeated_wrd", f"Did you mean '{NAME}'?"),
        (f"{NAME} --instance=x", "no such instance; 4 are scored (0 to 3) of 6"),
        (f"{NAME} --perturbation=9", "the forms are 1 to 5"),
        (f"{NAME} --csv", "--csv is for lists"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(mini, capsys, arguments, text):
    code, out, err = tasks(capsys, *arguments.split())
    assert code == 2 and out == "" and text in err and err.count("\n") == 1


def test_a_task_is_shown_as_scoring_asks_it(mini, capsys):
    seen = prompt_view.see(mini, NAME, "1", perturbation=2)
    prompts = TaskPrompts(
        mini.pool, mini.part("vocabulary"), mini.part("encoding"), mini.part("scorer").perturbation,
        mini.part("scorer").num_instances, Key(mini.seed, 0),
    )  # fmt: skip
    instance, original, _, (perturbed,) = list(prompts.build(NAME, same_prompts([2])))[1]
    assert seen.instance == instance
    for form, asked in zip(seen.forms, (original, perturbed), strict=True):
        assert form.pieces == tuple(mini.part("vocabulary").pieces(asked.tokens))
    code, out, _ = tasks(capsys, NAME, "--instance=1", "--perturbation=2", "--tokens")
    assert code == 0 and seen.forms[0].prompt.text in out and instance.outputs[0] in out
    assert f"{len(original.tokens)} tokens; 2 examples shown, nothing cut" in out
    assert " ".join(seen.forms[0].pieces) in out and "[-" in out and "\x1b" not in out
    assert max(map(len, out.splitlines())) < 5000
    value = json.loads(tasks(capsys, NAME, "--instance=1", "--json")[1])[0]
    assert value["forms"][0]["text"] == seen.forms[0].prompt.text and value["instances"] == 6


def test_words_that_a_perturbation_drops_are_marked():
    parts = prompt_view.compared("Say the word\nonce, please.", "Say word <extra_id_0> please.")
    assert parts == [
        ("same", "Say"),
        ("dropped", " the"),
        ("same", " word"),
        ("dropped", "\nonce,"),
        ("added", " <extra_id_0>"),
        ("same", " please."),
    ]


def evil_pool(max_source_length=160, **changes) -> PoolView:
    task = task_from_json(
        {
            "Definition": [f"Do it. {EVIL} " + "word " * 60],
            "Positive Examples": [{"input": EVIL + "long " * 90, "output": "a"}] * 2,
            "Instances": [{"id": EVIL, "input": EVIL + "text " * 150, "output": [EVIL]}],
            "Categories": [EVIL],
            "Source": [EVIL],
        },
        "evil", "test",
    )  # fmt: skip
    values = {
        "pool": TaskPool([task], name="evil", splits=Splits(remain=("evil",))),
        "vocabulary": Vocabulary(assets.mini_vocabulary()),
        "encoding": TkInstructEncoding(max_source_length=max_source_length),
        "scorer": Scorer(WordDrop(), num_perturbations=2, num_instances=2),
        "seed": 0,
    }
    return PoolView((values | changes).get)


@pytest.mark.parametrize(("width", "beside"), [(80, False), (160, True)])
def test_on_a_terminal_dropped_words_are_struck_and_nothing_raw_arrives(width, beside):
    source = evil_pool()
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=width,
                      highlight=False, markup=False, emoji=False)  # fmt: skip
    task_page.show(console, source, prompt_view.see(source, "evil"))
    text = stream.getvalue()
    for raw in ("\x1b]", "\x1b[2J", "\x07", "\u202e"):
        assert raw not in text
    assert "\\x1b]0;title" in text and "[bold]x[/bold]" in text, "no markup"
    assert "\x1b[9;31m" in text or ";9" in text, "struck"
    assert any("exactly" in line and "perturbed" in line for line in text.splitlines()) == beside
    assert re.search(
        r"2 examples left out and \d+ tokens cut from the end",
        " ".join(re.sub(r"\x1b\[[\d;]*m", "", text).split()),
    )


def test_lists_and_mistakes_never_send_escapes(monkeypatch, capsys):
    source = evil_pool()
    monkeypatch.setattr(pool_view, "open_pool", lambda *_: source)
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    for arguments in (
        (),
        ("--csv",),
        ("--json",),
        ("--category=nothing",),
        ("evil",),
        ("evil", "--json"),
    ):
        _, out, err = tasks(capsys, *arguments)
        assert "title" in out + err, arguments
        assert not {"\x1b", "\x07", "\u202e"} & set(out + err), arguments
    assert visible("a\tb\n\x9b\u200d", keep_lines=True) == "a    b\n\\x9b\u200d"


def test_without_a_vocabulary_tasks_are_listed_and_shown(capsys, monkeypatch):
    source = evil_pool(vocabulary=Vocabulary("nowhere.model"), scorer=None)
    monkeypatch.setattr(pool_view, "open_pool", lambda *_: source)
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    assert tasks(capsys)[0] == 0
    code, out, _ = tasks(capsys, "evil")
    assert code == 0 and "there is no vocabulary" in out and "set VOCABULARY_PATH" in out


@pytest.fixture
def run_dir(tmp_path):
    """A run of the mini pool with scores of two tasks."""
    from ait_jax.config import configuration
    from ait_jax.rounds.experiment import Experiment

    flags = GinFlags(bindings=("mini.load_pool.instances_per_task = 6", "ROUNDS = 2"))
    configuration.parse(flags, pool_view.DEFAULT_FILE)
    made = configuration.build(Experiment)
    directory = RunDirectory(tmp_path / "run")
    folder = directory.folder(0)
    directory.open(configuration.operative_config(), {"name": "mini", "fingerprint": "x"}, 0)
    names = list(made.pool)[:3]
    write_splits(folder, Splits(remain=names[:2], train=names[2:]))
    rows = {column: [] for column in likelihoods.COLUMNS}
    for name in names[:2]:
        for instance in scoring_instances(made.pool[name], 2, Key(0, 0)):
            for j, p in enumerate((0.5, 0.25, 0.75)):
                values = (name, instance.id, j, f"answer {EVIL}", 3, 50, 0, np.log(p))
                for column, value in zip(likelihoods.COLUMNS, values, strict=True):
                    rows[column].append(value)
    likelihoods.write_rows(folder / "likelihoods.parquet", rows)
    scores = task_scores(likelihoods.read_likelihoods(folder / "likelihoods.parquet"))
    likelihoods.write_task_scores(folder / "task_scores.parquet", scores)
    (folder / "selected.txt").write_text(f"{names[0]}\n")
    (folder / "ambiguous.txt").write_text(f"{names[0]}\n")
    return directory.path, names


def test_a_runs_own_configuration_scores_and_answers(run_dir, capsys, clean_gin, monkeypatch):
    path, names = run_dir
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    code, out, err = tasks(capsys, f"--run={path}", "--sort=uncertainty", "--limit=3", "--json")
    assert code == 0, err
    first, second, third = json.loads(out)
    assert first | {"category": "", "kind": ""} == {
        "task": names[0], "category": "", "kind": "", "split": "remain", "instances": 6,
        "uncertainty": pytest.approx(0.25), "probability": pytest.approx(0.5),
        "region": "ambiguous", "selected": 0,
    }  # fmt: skip
    assert (second["region"], second["selected"], third["uncertainty"]) == ("other", None, None)
    code, out, err = tasks(capsys, f"--run={path}", names[0])
    assert code == 0, err
    assert "prompt uncertainty 0.2500" in out and "answer \\x1b]0;title" in out
    assert out.splitlines()[-1].split() == ["2", "0.7500", "+0.2500"]
    assert "mini_vocabulary" not in err and tasks(capsys, "--run=nowhere")[0] == 2


HOSTILE = """
import stranger

Experiment.pool = @stranger.load_pool()
"""
STRANGER = """
import pathlib

import gin

pathlib.Path(__file__).with_name("imported").touch()


@gin.configurable
def load_pool():
    pathlib.Path(__file__).with_name("called").touch()
"""


@pytest.mark.parametrize(
    "hostile", [HOSTILE, HOSTILE.replace("import stranger", "from os import system as stranger")]
)
def test_what_a_runs_configuration_names_is_not_run(run_dir, capsys, clean_gin, hostile):
    path, names = run_dir
    (path / "stranger.py").write_text(STRANGER)
    config = path / "config.gin"
    config.write_text(config.read_text() + hostile)
    before = sorted(path.rglob("*"))
    for arguments in ((), (names[0],), ("--gin.SEED=1",)):
        code, out, err = tasks(capsys, f"--run={path}", *arguments)
        assert code == 2 and not out
        assert "config.gin refers to @stranger.load_pool" in err and "--trust_config runs it" in err
    code, _, err = tasks(capsys, f"--run={path}", "--gin_file=pools/mini.gin")
    assert code == 2 and "add --trust_config if that run is yours" in err
    assert sorted(path.rglob("*")) == before
    if "system" not in hostile:
        tasks(capsys, f"--run={path}", "--trust_config")
        assert (path / "imported").exists()


def test_flags_change_a_runs_configuration(run_dir, capsys, clean_gin):
    path, _ = run_dir
    flag = "--gin.POOL/mini.load_pool.instances_per_task=2"
    for trust in ((), ("--trust_config",)):
        code, out, err = tasks(capsys, f"--run={path}", flag, "--limit=1", "--json", *trust)
        assert code == 0, err
        assert json.loads(out)[0]["instances"] == 2
