"""Boards: what reaches them, that nothing is told twice, and that none can stop a run."""

import importlib.util
import re
import resource
import sys
import types
from dataclasses import dataclass
from typing import ClassVar

import pytest
from event_files import assert_no_doubles, read_events, read_offline_rows

from ait_jax.config import configuration
from ait_jax.errors import UserError
from ait_jax.evaluation.evaluation import Prediction
from ait_jax.rounds.record import Timing
from ait_jax.rounds.run_directory import RunDirectory
from ait_jax.rounds.run_summaries import hyperparameters, samples, stage_scalars
from ait_jax.summaries import Summaries, TensorBoard, WeightsAndBiases, weights_and_biases
from ait_jax.summaries.tensorboard import markdown_code, markdown_table

HOSTILE = (
    "a | b\n<script>alert(1)</script> **bold** [x](javascript:1) `code` # <img src=x onerror=1> "
    "\x00_"
)
STAGES = ("base/evaluate", "round_000/evaluate", "round_000/select")


def tell(summaries, stages, until=None):
    """Tells stages; dies in the middle of `until`."""
    for number, stage in enumerate(stages):

        def write(open, number=number, stage=stage):
            open("rounds").scalar("tasks/train", 10.0 * number, number)
            if stage == until:
                raise KeyboardInterrupt
            open("inference_eval/test").scalar("rougeL/overall", 1.5 * number, number)

        summaries.stage(stage, write)


def test_what_is_plain_stays_plain_in_markdown():
    table = markdown_table(["task"], [[HOSTILE], []])
    header, line, cell, empty = table.splitlines()
    assert (header, line, empty) == ("| task |", "| --- |", "|  |")
    inside = re.sub(r"&#\d+;|<br>", "", cell.removeprefix("| ").removesuffix(" |"))
    assert not re.search(r"[!-/:-@\[-`{-~]", inside), inside
    plugin_util = pytest.importorskip(
        "tensorboard.plugin_util", reason="tensorboard, which would show it, is not installed"
    )
    html = plugin_util.markdown_to_safe_html(table)
    assert (
        "<script" not in html and "<img" not in html and "<strong" not in html and "<a" not in html
    )
    assert "&#60;script&#62;alert" in html and "<td>" in html
    html = plugin_util.markdown_to_safe_html(markdown_code("a <b>\n\n# x = 1"))
    assert "<code>a &lt;b&gt;" in html and "<h1" not in html


def test_tensorboard_points_of_a_killed_stage_are_told_once(tmp_path):
    with pytest.raises(KeyboardInterrupt), Summaries((TensorBoard(),), tmp_path) as summaries:
        tell(summaries, STAGES, until="round_000/evaluate")
    # The stage is finished, its points were not: all is told anew.
    with Summaries((TensorBoard(),), tmp_path, stages=STAGES[:2]) as summaries:
        tell(summaries, STAGES[:2])
    files = sorted(tmp_path.rglob("events.*"))
    # Nothing was left in between: it is added to.
    with Summaries((TensorBoard(),), tmp_path, stages=STAGES[:2]) as summaries:
        tell(summaries, STAGES)
    assert set(files) < set(tmp_path.rglob("events.*"))
    before = sorted(tmp_path.rglob("*"))
    with Summaries((TensorBoard(),), tmp_path, stages=STAGES) as summaries:
        tell(summaries, STAGES)
    assert sorted(tmp_path.rglob("*")) == before, "a finished run writes nothing"
    rounds = read_events(tmp_path / "rounds")
    test = read_events(tmp_path / "inference_eval" / "test")
    assert rounds["tasks/train"] == [(0, 0.0), (1, 10.0), (2, 20.0)]
    assert test["rougeL/overall"] == [(0, 0.0), (1, 1.5), (2, 3.0)]
    assert_no_doubles(rounds)


@dataclass(frozen=True)
class Failing:
    """A board whose every point fails."""

    reads_events: ClassVar[bool] = False

    def begin(self, model_dir):
        def fail(*_):
            raise ConnectionError("no network\nand more")

        writer = types.SimpleNamespace(scalar=fail, flush=fail, close=fail)
        return types.SimpleNamespace(
            start=lambda: None, written=lambda stages: (), folder=lambda *_: writer, close=fail
        )


def test_a_board_that_fails_is_left_out_and_said_once(tmp_path, said):
    with Summaries((Failing(), TensorBoard()), tmp_path) as summaries:
        train = summaries.folder(tmp_path / "round_000" / "train", -1)
        for step in (1, 2, 3):
            train.scalar("train/loss", 1.0 / step, step)
        train.close()
    assert len(said) == 1 and said[0].endswith("continues without: ConnectionError: no network")
    assert [s for s, _ in read_events(tmp_path / "round_000" / "train")["train/loss"]] == [1, 2, 3]
    session = TensorBoard().begin(tmp_path)
    with pytest.raises(ValueError, match="not a PNG"):
        session.folder("rounds").image("x", b"JFIF" * 9, 0)
    session.close(failed=True)


class FakeRun:
    """What W&B's server has of a run."""

    def __init__(self):
        self.step, self.offline, self.url, self.rows, self.axes = 0, False, "https://run", [], {}
        self.config, self.exit_codes = {}, []

    def log(self, row, step):
        assert step >= self.step, "W&B ignores rows that are not in order"
        self.step = step + 1
        self.rows.append(row)

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


@pytest.fixture
def server(monkeypatch):
    """A module in place of wandb: its runs by id, what `init` was given, the error it raises."""
    fake = types.SimpleNamespace(runs={}, given=[], error=None)

    class UsageError(Exception):
        pass

    def init(**given):
        if fake.error:
            raise fake.error
        fake.given.append(given)
        return fake.runs.setdefault(given["id"], FakeRun())

    module = types.ModuleType("wandb")
    module.init, module.Settings = init, lambda **given: given
    module.errors = types.SimpleNamespace(UsageError=UsageError)
    module.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(weights_and_biases, "is_installed", lambda: True)
    fake.UsageError = UsageError
    return fake


def one_process(tmp_path, stages, told, steps):
    with Summaries((WeightsAndBiases(),), tmp_path, stages) as summaries:
        summaries.start()
        tell(summaries, told)
        train = summaries.folder(tmp_path / "round_000" / "train", steps[0] - 1)
        for step in steps:
            train.scalar("train/loss", float(step), step)
        train.close()


def test_one_wandb_run_goes_on_without_doubles_and_gets_what_it_lost(tmp_path, server):
    one_process(tmp_path, (), STAGES[:1], range(1, 6))
    one_process(tmp_path, STAGES[:2], STAGES[:2], range(3, 8))  # step 2 was the checkpoint
    (run,) = server.runs.values()
    losses = "round_000/train/loss"
    assert [row["round_000/step"] for row in run.rows if losses in row] == list(range(1, 8))
    assert [row["round"] for row in run.rows if "round" in row] == [0, 1]
    assert run.axes[losses] == "round_000/step" and run.axes["rounds/tasks/train"] == "round"
    assert [given["resume"] for given in server.given] == ["allow", "allow"]
    assert run.exit_codes == [0, 0]
    # The last three rows never reached the server: a stage, and steps 6 and 7.
    del run.rows[-3:]
    run.step -= 3
    one_process(tmp_path, STAGES[:2], STAGES[:2], range(6, 8))
    assert [row["round_000/step"] for row in run.rows if losses in row] == list(range(1, 8))
    assert [row["round"] for row in run.rows if "round" in row] == [0, 1]
    assert len(server.runs) == 1


def test_no_key_is_a_mistake_and_no_network_is_none(tmp_path, server, said):
    server.error = server.UsageError("No API key configured.")
    with pytest.raises(UserError, match="No API key configured. Or set --gin.WANDB_MODE=offline"):
        one_process(tmp_path, (), (), [1])
    server.error = ConnectionError("unreachable")
    with Summaries((WeightsAndBiases(),), tmp_path) as summaries:
        summaries.start()
        tell(summaries, STAGES)
    assert len(said) == 1 and "unreachable" in said[0]


def test_settings_are_checked(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package wandb: pip install 'ait-jax\[wandb\]'"):
        WeightsAndBiases()
    monkeypatch.setattr(weights_and_biases, "is_installed", lambda: True)
    with pytest.raises(UserError, match="'offlin' must be one of.*Did you mean 'offline'"):
        WeightsAndBiases(mode="offlin")


def test_the_key_is_written_nowhere(tmp_path, monkeypatch, said):
    pytest.importorskip("wandb", reason="wandb is not installed")
    key = "0123456789abcdef" * 2 + "01234567"
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(sys, "argv", ["ait-jax", "run"])
    with Summaries((WeightsAndBiases(mode="offline"),), tmp_path) as summaries:
        summaries.stage("config", lambda open: open("rounds").text("config", "SEED = 0", 0))
        summaries.stage(
            "x/select", lambda open: open("rounds").table("t", ["a", "b"], [[HOSTILE]], 0)
        )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if key.encode() in path.read_bytes()]
    assert key not in "".join(said)
    rows, ids = read_offline_rows(tmp_path)
    assert len(ids) == 1 and len(rows) <= 2


def test_a_run_goes_on_with_other_summaries(tmp_path):
    config = "SEED = 0\nexperiment.Experiment.summaries = %SUMMARIES\nSUMMARIES = (@a.B(),)\n"
    directory = RunDirectory(tmp_path)
    pool = {"name": "x", "fingerprint": "y"}
    directory.open(config, pool, 0)
    directory.stage("round_000/splits", dict)
    other = (
        "SEED = 0\nSUMMARIES = (@a.B(), @c.D())\n"
        "SUMMARIES/summaries.WeightsAndBiases.mode = 'offline'\n"
        "WANDB_PROJECT = 'p'\nsummaries.WeightsAndBiases.project = 'p'\n"
    )
    assert RunDirectory(tmp_path).open(other, pool, 0)
    assert RunDirectory(tmp_path).open("SEED = 0\n", pool, 0), "from before there were any"
    with pytest.raises(UserError, match="SEED: was 0, now 1"):
        RunDirectory(tmp_path).open(other.replace("SEED = 0", "SEED = 1"), pool, 0)


def test_what_tells_a_run_from_others():
    config = (
        "MODEL_DIR = 'a'\nSEED = 3\nRATE = 5e-05\nGROW = True\n"
        "STRATEGY = @selection.Random()\nNONE = None\n"
    )
    assert hyperparameters(config + "a.B.c = 1\n") == {
        "SEED": 3,
        "RATE": 5e-05,
        "GROW": True,
        "STRATEGY": "@selection.Random()",
        "NONE": "None",
    }
    assert configuration.macros_of("A = \\\n    'x'\n") == {"A": "x"}


def test_samples_are_the_same_tasks_whatever_the_answers():
    tasks = [f"task{i:02d}" for i in range(13)]
    items = [
        Prediction(task, f"{task}-{i}", f"answer {i}", ("one", "two"), "p" * 2000)
        for task in tasks
        for i in (1, 2)
    ]
    rows = samples(items, tasks)
    assert [row[0] for row in rows] == ["task00", "task02", "task04", "task06", "task08", "task10"]
    assert rows[0][1:] == ["answer 1", "one\ntwo", "…" + "p" * 900]
    assert samples(items[:2], tasks)[0][0] == "task00" and samples(items, ()) == []


def test_the_curves_of_a_stage():
    line = Timing("round_000/score", 2.0, {"prompts": 5, "prompts_asked": 30, "mfu": 0.5})
    expected = {"seconds/score": 2.0, "mfu/score": 0.5, "prompts_per_second/score": 15.0}
    assert stage_scalars("score", line) == expected
    training = Timing("round_000/train", 2.0, {"mfu": 0.5, "evaluations": {"mfu": 0.7}})
    assert stage_scalars("train", training) == {"seconds/train": 2.0, "mfu/train": 0.5}


# tensorboardX tries again when its file is forgotten.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_files_on_a_full_disk_are_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write '.*rounds': File too large"):
            folder = TensorBoard().begin(tmp_path).folder("rounds")
            for step in range(1000):
                folder.scalar("loss", 1.0, step)
            folder.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
