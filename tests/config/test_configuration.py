"""configuration.py, gin_checks.py, gin_errors.py: flags, search paths, errors, differences."""

import logging
import re
import shlex
import sys

import numpy as np
import pytest
from shared_data import SHARED

import gin
from ait_jax.config import configuration, gin_internals
from ait_jax.config.configuration import differences
from ait_jax.config.gin_flags import GinFlags, split_flags
from ait_jax.errors import UserError
from ait_jax.rounds import experiment
from ait_jax.selection import selection

MINI = "experiments/mini.gin"
HEADER = "from __gin__ import dynamic_registration\n"

pytestmark = pytest.mark.usefixtures("clean_gin")


def parse(*arguments: str, default: str = MINI) -> None:
    flags, others = split_flags(arguments)
    assert not others
    configuration.parse(flags, default)


def build(*arguments: str) -> experiment.Experiment:
    parse("--gin.mini.load_pool.instances_per_task=2", *arguments)
    return configuration.build(experiment.Experiment)


def message(*arguments: str, call=build) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def written(folder, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_flags_are_separated_from_other_arguments():
    flags, others = split_flags(
        "run --gin_file=a.gin --debug --gin_file b.gin --gin.X=1 --gin_search_paths=p,q "
        "--gin_search_paths r".split()
    )
    assert flags.files == ("a.gin", "b.gin")
    assert flags.bindings == ("X = 1",)
    assert flags.search_paths == ("p", "q", "r")
    assert others == ["run", "--debug"]


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("5", "5"),
        ("-1e-3", "-1e-3"),
        ("None", "None"),
        ("(128, 256)", "(128, 256)"),
        ("{'a': [1]}", "{'a': [1]}"),
        ('"quoted"', '"quoted"'),
        ("runs/a", "'runs/a'"),
        ("gs://b/c=d", "'gs://b/c=d'"),
        ("it's", '"it\'s"'),
        ("", "''"),
        ("...", "'...'"),
        ("1+2j", "'1+2j'"),
        ("0010", "'0010'"),
        ("@", "'@'"),
        ("50%", "'50%'"),
        ("@x()", "@x()"),
        ("@a/b.c", "@a/b.c"),
        ("%Y", "%Y"),
        ("[@x(), %Y]", "[@x(), %Y]"),
        ("['me@home', 'x']", "['me@home', 'x']"),
    ],
)
def test_a_value_that_is_no_literal_is_a_string(value, source):
    assert split_flags([f"--gin.a.B.c={value}"])[0].bindings == (f"a.B.c = {source}",)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--gin_file"], "--gin_file needs a value"),
        (["--gin_file="], "--gin_file needs a value"),
        (["--gin_file", "--gin.X=1"], "--gin_file needs a value"),
        (["--gin.ROUNDS"], "--gin.ROUNDS needs a value: --gin.ROUNDS=VALUE"),
        (["--gin.=5"], "is not a gin name"),
        (["--gin.import os\nX=5"], "is not a gin name"),
        (["--gin_fil=x"], "Did you mean '--gin_file'"),
    ],
)
def test_bad_flags(arguments, text):
    assert text in message(*arguments, call=lambda *a: split_flags(a))


def test_overrides_win_over_later_files_and_those_over_earlier_ones(tmp_path, clean_gin):
    first = written(tmp_path, "first.gin", f"include '{MINI}'\nROUNDS = 7\nSEED = 7\nEPOCHS = 7\n")
    second = written(tmp_path, "second.gin", "SEED = 8\nEPOCHS = 8\n")
    parse(f"--gin_file={first}", "--gin_file", second, "--gin.EPOCHS=9", "--gin.MODEL_DIR=runs/a=b")
    values = {name: clean_gin.query_parameter(f"%{name}") for name in ("ROUNDS", "SEED", "EPOCHS")}
    assert values == {"ROUNDS": 7, "SEED": 8, "EPOCHS": 9}
    assert clean_gin.query_parameter("%MODEL_DIR") == "runs/a=b"


def test_parsing_again_starts_from_nothing(clean_gin):
    parse("--gin.ROUNDS=9")
    folders = gin_internals.search_path()
    parse()
    assert clean_gin.query_parameter("%ROUNDS") != 9
    assert folders == gin_internals.search_path()


def test_overrides_name_what_no_file_mentions_and_gin_short_forms():
    experiment = build("--gin.STRATEGY=@selection.Random()", "--gin.Scorer.num_instances=3")
    assert experiment.strategy == selection.Random()
    assert experiment.scorer.num_instances == 3
    assert build("--gin.ait_jax.scorer.scorer.Scorer.num_instances=2").scorer.num_instances == 2


def test_a_user_adds_a_strategy_in_ten_lines(tmp_path):
    """A module and a gin file beside it, as the README shows."""
    (tmp_path / "my_strategies.py").write_text(
        "from dataclasses import dataclass\n"
        "from ait_jax.selection import selection\n"
        "@dataclass(frozen=True)\n"
        "class LowStd(selection.Strategy):\n"
        "    scale: float = 1.0\n"
        "    def preference(self, scores, context):\n"
        "        return -self.scale * scores.std\n"
    )
    mine = written(
        tmp_path,
        "mine.gin",
        HEADER + "import my_strategies\nSTRATEGY = @my_strategies.LowStd()\n",
    )
    experiment = build(f"--gin_file={MINI}", f"--gin_file={mine}", "--gin.LowStd.scale=2")
    assert experiment.strategy.name == "low_std"
    scores = type("Scores", (), {"std": np.array([0.5, 1.0])})
    assert experiment.strategy.preference(scores, None).tolist() == [-1.0, -2.0]
    assert "my_strategies.LowStd.scale = 2" in configuration.operative_config()


def test_search_paths_hold_gin_files_and_modules_and_win_over_shipped_files(tmp_path, monkeypatch):
    elsewhere, working = tmp_path / "elsewhere", tmp_path / "working"
    for folder in (elsewhere, elsewhere / "strategies", working):
        folder.mkdir()
    (elsewhere / "found_there.py").write_text("def three():\n    return 3\n")
    written(elsewhere, "more.gin", HEADER + "import found_there\nROUNDS = @found_there.three()\n")
    written(elsewhere, "strategies/prompt_uncertainty.gin", "include 'strategies/random.gin'\n")
    monkeypatch.chdir(working)
    arguments = (f"--gin_file={MINI}", "--gin_file=more.gin")
    assert "more.gin was not found" in message(*arguments, call=parse)
    experiment = build(*arguments, f"--gin_search_paths={elsewhere}")
    assert experiment.rounds == 3
    assert experiment.strategy == selection.Random()


def test_includes_lie_beside_the_file_or_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    written(tmp_path, "sub/common.gin", "ROUNDS = 5\n")
    mine = written(tmp_path, "sub/mine.gin", f"include '{MINI}'\ninclude 'common.gin'\n")
    assert build(f"--gin_file={mine}").rounds == 5
    monkeypatch.chdir(tmp_path)
    assert build("--gin_file=sub/mine.gin").rounds == 5


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("ROUDNS=5", ["no gin file defines ROUDNS", "Did you mean 'ROUNDS'?"]),
        ("rounds=5", ["Did you mean 'ROUNDS'?"]),
        ("XYZZY=5", ["no gin file defines XYZZY. Known: ACTIVATION_DTYPE, "]),
        ("scorer.Scorr.num_instances=5", ["ait_jax.scorer.scorer has no 'Scorr'", "'Scorer'?"]),
        ("Scorr.num_instances=5", ["unknown name 'Scorr'", "Did you mean 'Scorer'?"]),
        ("scorr.Scorer.num_instances=5", ["Did you mean 'scorer.Scorer'?"]),
        ("scorer.Scorer.num_instance=5", ["no parameter 'num_instance'", "'num_instances'?"]),
        ("STRATEGY=@selection.LowPerplexty()", ["has no 'LowPerplexty'", "'LowPerplexity'?"]),
        ("STRATEGY=%STRTEGY", ["STRTEGY has no value", "Did you mean 'STRATEGY'?"]),
        ("STRATEGY=[@selection.Random(), oops]", ["--gin.STRATEGY=[@selection.Random(), oops]:"]),
        ("STRATEGY=@selection.Random", ["needs Strategy; write @selection.Random()"]),
        ("STRATEGY=random", ["does not fit Experiment.strategy", "@module.Name()"]),
        ("ROUNDS=three", ["ROUNDS = 'three' does not fit Experiment.rounds, which needs int"]),
        ("ROUNDS=2.5", ["ROUNDS = 2.5 does not fit"]),
        ("EVALUATE_BASE=false", ["which needs bool; write False."]),
        ("CLS_RATIO=none", ["which needs float or None; write None."]),
        ("MODEL_DIR=2024", ["--gin.MODEL_DIR='\"2024\"'"]),
        ("INPUT_LENGTHS=(96,'x')", ["does not fit LengthBuckets.inputs"]),
        ("ROUNDS=0", ["ROUNDS = 0 must be at least 1."]),
        ("WordDrop.rate=%gin.REQUIRED", ["WordDrop.rate has no value; give --gin."]),
    ],
)
def test_mistaken_overrides_name_what_to_change(override, texts):
    text = message(f"--gin.{override}")
    for expected in texts:
        assert expected in text
    assert "\n" not in text and "In call to configurable" not in text


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (HEADER + "from ait_jax.selection import selection\nSTRATEGY = @selection.Randm()\n",
         ["line 3: ait_jax.selection.selection has no 'Randm'", "'Random'?"]),
        (HEADER + "from ait_jax.selection import selection\nSTRATEGY = @selction.Random()\n",
         ["line 3: unknown name 'selction'", "'selection'?", "imported: selection."]),
        ("from ait_jax.selection import selection\nSTRATEGY = @nowhere.Random()\n",
         ["unknown name 'nowhere.Random'", "begins with `from __gin__ import"]),
        (HEADER + "from ait_jax.prompts import perturb\nperturb.WordDrop.rat = 0.1\n",
         ["line 3: perturb.WordDrop has no parameter 'rat'", "Did you mean 'rate'?"]),
        (HEADER + "from ait_jax.prompts import perturb\nperturb.WordDrp:\n  rate = 0.1\n",
         ["line 3: ait_jax.prompts.perturb has no 'WordDrp'", "Did you mean 'WordDrop'?"]),
        ("ROUDNS = 4\n", ["ROUDNS is set but nothing uses it.", "'ROUNDS'?"]),
        ("MODEL = %NOPE\n",
         ["MODEL = %NOPE, but NOPE has no value. Give a gin file that sets NOPE."]),
        ("include 'experiments/mni.gin'\n", ["line 1: cannot find", "'experiments/mini.gin'?"]),
        ("import no_such_module\n",
         ["line 1: no Python module 'no_such_module'", "--gin_search_paths"]),
        ("SEED = 1\nx = = 4\n", ["bad.gin, line 2: "]),
    ],
)  # fmt: skip
def test_mistakes_in_files_name_the_line(tmp_path, source, texts):
    file = written(tmp_path, "bad.gin", source)
    text = message(f"--gin_file={MINI}", f"--gin_file={file}")
    for expected in texts:
        assert expected in text
    assert "\n" not in text


def test_a_missing_file_names_the_nearest_shipped_one():
    text = message("--gin_file=experiments/nvi2.gin", call=parse)
    assert "experiments/nvi2.gin was not found in" in text
    assert "Did you mean 'experiments/niv2.gin'?" in text


def test_required_values_are_named_together():
    text = message("--gin_file=experiments/niv2_paper.gin", call=parse)
    assert "INIT_CHECKPOINT and VOCABULARY_PATH have no value; give " in text
    assert "--gin.INIT_CHECKPOINT=... --gin.VOCABULARY_PATH=..." in text
    text = message("--gin_file=experiments/niv2_paper.gin", "--gin.INIT_CHECKPOINT=x", call=parse)
    assert text == "VOCABULARY_PATH has no value; give --gin.VOCABULARY_PATH=..."


def test_parts_without_an_experiment(tmp_path):
    text = message("--gin_file=strategies/random.gin", call=parse)
    assert "--gin_file replaces experiments/mini.gin" in text
    file = written(tmp_path, "nothing.gin", "")
    parse(f"--gin_file={file}")
    text = message(call=lambda: configuration.build(experiment.Experiment))
    assert "configure no Experiment" in text and "--gin_file=experiments/mini.gin" in text
    file = written(
        tmp_path,
        "bare.gin",
        HEADER + "from ait_jax.rounds import experiment\nexperiment.Experiment.rounds = 1\n",
    )
    parse(f"--gin_file={file}")
    text = message(call=lambda: configuration.build(experiment.Experiment))
    assert "Experiment has no value for initial_splits, model, model_dir, pool" in text


def test_a_defect_in_a_part_is_not_taken_for_a_users_mistake(tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("def three():\n    return 'a' + 1\n")
    file = written(
        tmp_path, "broken.gin", HEADER + "import broken_part\nROUNDS = @broken_part.three()\n"
    )
    with pytest.raises(TypeError, match="can only concatenate str"):
        build(f"--gin_file={MINI}", f"--gin_file={file}")


def test_nothing_is_logged(caplog, tmp_path):
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.INFO):
        parse(f"--gin_search_paths={tmp_path}")
        parse(f"--gin_search_paths={tmp_path}")
    assert not caplog.records
    assert logging.getLogger().handlers == handlers
    assert sys.path.count(str(tmp_path)) == 1


def test_the_operative_configuration_holds_what_is_called_later(tmp_path):
    """The optimizer is made when training begins, long after config.gin is written."""
    adamw = "--gin.EmbeddedTrainer.optimizer=@optimizer.adamw"
    build(adamw, "--gin.NUM_INSTANCES=11", "--gin.optimizer.adamw.weight_decay=0.1")
    first = configuration.operative_config()
    assert "optimizer.adamw.weight_decay = 0.1" in first
    assert "optimizer.adamw.b1 = 0.9" in first
    file = written(
        tmp_path,
        "decay.gin",
        HEADER + "from ait_jax.trainer import optimizer\nDECAY = 0.25\n"
        "optimizer.adamw.weight_decay = %DECAY\n",
    )
    build(f"--gin_file={MINI}", f"--gin_file={file}", adamw, "--gin.NUM_INSTANCES=12")
    assert differences(first, configuration.operative_config()) == [
        "DECAY: was not set, now 0.25",
        "NUM_INSTANCES: was 11, now 12",
        "optimizer.adamw.weight_decay: was 0.1, now %DECAY",
    ]


def test_the_operative_configuration_reads_back_to_itself(tmp_path):
    build("--gin.ROUNDS=9")
    first = configuration.operative_config()
    file = written(tmp_path, "config.gin", first)
    configuration.parse(GinFlags((file,)), MINI)
    assert configuration.build(experiment.Experiment).rounds == 9
    assert configuration.operative_config() == first


def test_differences_compare_values_not_layout():
    saved = (
        "from ait_jax.rounds import experiment\n\n# Macros:\n# ====\nROUNDS = 3\n"
        "ONLY_OLD = 'a = b'\nx.Y.rules = \\\n    (('batch', 'data'),\n     ('vocab', None))\n"
        "SEED = 1\nMODEL_DIR = 'a'\n"
    )
    assert differences(saved, saved) == []
    assert differences(saved, "import other\n# another comment\n" + saved) == []
    current = (
        saved.replace("None", "'model'")
        .replace("ROUNDS = 3", "ROUNDS = 4")
        .replace("ONLY_OLD = 'a = b'", "ONLY_NEW = 2")
        .replace("MODEL_DIR = 'a'", "MODEL_DIR = 'b'")
    )
    assert differences(saved, current, ignored=["MODEL_DIR"]) == [
        "ONLY_NEW: was not set, now 2",
        "ONLY_OLD: was 'a = b', now not set",
        "ROUNDS: was 3, now 4",
        "x.Y.rules: was (('batch', 'data'), ('vocab', None)), "
        "now (('batch', 'data'), ('vocab', 'model'))",
    ]


@pytest.mark.parametrize("typed", ["2026_11_28", "0x10", "1e5", "12.50", "[1, 2]", "{'a': 1}"])
def test_a_text_that_python_takes_for_a_number_is_advised_as_it_was_typed(typed):
    text = message(f"--gin.MODEL_DIR={typed}")
    (advice,) = re.findall(r"on the command line, (.*)\.$", text)
    (flag,) = shlex.split(advice)
    parse(flag)
    assert gin.query_parameter("%MODEL_DIR") == typed


def test_files_with_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "bom.gin").write_bytes(b"\xef\xbb\xbfSEED = 3\r\n")
    outer = written(tmp_path, "outer.gin", f"include '{MINI}'\ninclude 'bom.gin'\n")
    parse(f"--gin_file={outer}")
    assert gin.query_parameter("%SEED") == 3


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_files_in_another_encoding_are_refused_by_name(tmp_path, encoding, included):
    (tmp_path / "other.gin").write_bytes("# Größe\nSEED = 3\n".encode(encoding))
    outer = written(tmp_path, "outer.gin", f"include '{MINI}'\ninclude 'other.gin'\n")
    given = f"--gin_file={outer if included else tmp_path / 'other.gin'}"
    text = message(given, call=parse)
    assert "other.gin, line 1: not UTF-8" in text and "save the gin file as UTF-8" in text


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bom.gin", ""),
        ("inc.gin", ""),
        ("crlf.gin", ""),
        ("nonl.gin", ""),
        ("tab.gin", ""),
        ("uni.gin", ""),
        ("latin1.gin", "latin1.gin, line 1: not UTF-8"),
        ("utf16.gin", "utf16.gin, line 1: not UTF-8"),
        ("smart.gin", "smart.gin, line 1"),
        ("win.gin", "win.gin, line 1"),
    ],
)
def test_files_as_editors_leave_them(name, problem):
    folder = SHARED / "cases" / "bug_reports" / "gin_files"
    if not folder.exists():
        pytest.skip("needs ../shared/cases")
    given = f"--gin_file={MINI}", f"--gin_file={folder / name}"
    if problem:
        assert problem in message(*given, call=parse)
    else:
        parse(*given)
        assert gin.query_parameter("%SEED") in (0, 3)
