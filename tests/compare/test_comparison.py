"""comparison.py and `ait-jax compare`: what gin says, the runs that makes, what is refused."""

import json
import re
from pathlib import Path

import pytest
from fake_runs import write_run

from ait_jax import cli
from ait_jax.commands import subcommand
from ait_jax.compare import comparison, finished_runs, schedule
from ait_jax.config.gin_flags import GinFlags, split_flags
from ait_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("clean_gin")
SMALL = ("mini.load_pool.instances_per_task = 2",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        subcommand, "start_jax", lambda **_: None
    )  # it configures this process's JAX
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["compare", *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def made(**values):
    return comparison.Comparison(**({"out": "a", "strategies": "random", "seeds": 0} | values))


def test_lists_may_be_given_in_every_form():
    built = comparison.build(GinFlags(bindings=("STRATEGIES = 'random, easy'", "SEEDS = (3,1)")))
    assert (built.strategies, built.seeds) == (("random", "easy"), (3, 1))
    assert made(seeds="4, -2").seeds == (4, -2) and made(seeds=7).seeds == (7,)
    alone = comparison.build(GinFlags(bindings=("STRATEGIES = 'easy'",)))
    assert alone.strategies == ("easy", "random"), "chance is always compared with"
    named = GinFlags(bindings=("STRATEGIES = 'easy,difficult'", "BASELINE = 'easy'"))
    assert comparison.build(named).strategies == ("easy", "difficult")
    assert split_flags(["--gin.SEEDS=0,1,2"])[0].bindings == ("SEEDS = (0,1,2)",)
    assert comparison.build(GinFlags()).strategies == (
        "prompt_uncertainty",
        "random",
        "easy",
        "difficult",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": "0,x"}, "SEEDS has 'x'; give whole numbers"),
        ({"seeds": (1, 2.5)}, "SEEDS has 2.5"),
        ({"seeds": (True,)}, "SEEDS has True"),
        ({"seeds": (1, 2, 1)}, "SEEDS has 1 twice"),
        ({"seeds": ()}, "SEEDS is empty"),
        ({"strategies": "easy,a/easy.gin"}, "STRATEGIES has 'easy' twice"),
        ({"strategies": ","}, "STRATEGIES is empty"),
        ({"strategies": ".gin"}, "name '' is empty"),
        ({"baseline": "rendom"}, "BASELINE = 'rendom'.*Did you mean 'random'"),
        ({"confidence": 95.0}, "CONFIDENCE = 95.0"),
    ],
)
def test_values_that_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        made(**values)


def test_a_command_for_every_run_that_is_not_finished(folder, capsys):
    arguments = (
        "--gin_file=experiments/mini.gin",
        "--gin.STRATEGIES=random,easy",
        "--gin.SEEDS=0,1",
        "--gin.COMPARISON_DIR=a b",
        "--gin.mini.load_pool.instances_per_task=2",
        "--gin.BEST_METRIC=rougeL",
        "--print_commands",
    )
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.splitlines()[1] == (
        "ait-jax run --gin_file=experiments/mini.gin --gin_file=strategies/easy.gin "
        "--gin.mini.load_pool.instances_per_task=2 '--gin.BEST_METRIC='\"'\"'rougeL'\"'\"'' "
        "--gin.SEED=0 '--gin.MODEL_DIR=a b/easy_0'"
    )
    assert len(out.splitlines()) == 4
    assert not list(folder.iterdir()), "nothing is run"


def test_every_run_is_checked_before_the_first_one_begins(folder, capsys):
    for argument, message in {
        "--gin.STRATEGIES=random,esy": "STRATEGIES has the unknown 'esy'.* Did you mean 'easy'?",
        "--gin.SEED=1": "--gin.SEED: .* give --gin.SEEDS",
        "--gin.STRATEGY=@selection.Random()": "give --gin.STRATEGIES",
        "--gin.ROUND=1": "Did you mean 'ROUNDS'?",
        "--gin.ROUNDS=0": "ROUNDS = 0 must be at least 1",
        "--processes=0": "--processes=0 must be at least 1",
        "--print_commands --until=decided": "--until runs seed after seed; leave out",
    }.items():
        code, _, error = run(capsys, *argument.split(), "--gin.mini.load_pool.instances_per_task=2")
        assert code == 2 and re.search(message, error), (argument, error)
    assert not list(folder.iterdir())


def test_a_users_own_strategy_is_a_gin_file(folder):
    Path("mine.gin").write_text("include 'strategies/low_perplexity.gin'\n")
    Path("none.gin").write_text("STRATEGY = 'low'\n")
    flags = GinFlags(("experiments/mini.gin",), (*SMALL, "STRATEGIES = 'mine.gin,random'"))
    jobs = comparison.plan(comparison.build(flags), flags)
    assert [(job.name, job.takes_scores) for job in jobs[:2]] == [
        ("mine_0", True),
        ("random_0", False),
    ]
    assert "--gin_file=mine.gin" in jobs[0].arguments and jobs[0].rounds == 3
    flags = GinFlags(("experiments/mini.gin",), (*SMALL, "STRATEGIES = 'none.gin'"))
    with pytest.raises(UserError, match="none.gin must set STRATEGY to a strategy"):
        comparison.plan(comparison.build(flags), flags)


def test_seeds_are_of_the_splits_where_those_have_their_own(folder):
    flags = GinFlags((), (*SMALL, "SPLIT_SEED = 10", "STRATEGIES = 'random'", "SEEDS = (20, 30)"))
    jobs = comparison.plan(comparison.build(flags), flags)
    assert [job.name for job in jobs] == ["random_20", "random_30"]
    assert [a for a in jobs[1].arguments if "SEED" in a] == [
        "--gin.SPLIT_SEED=10",
        "--gin.SPLIT_SEED=30",
    ]
    for split_seed in (20, 30):
        config = f"SPLIT_SEED = {split_seed}"
        made_up = write_run(folder / str(split_seed), "random", 42, (1.0, 2.0), config=config)
        assert finished_runs.read(made_up).seed == split_seed
    apart = write_run(folder / "apart", "random", 42, (1.0, 2.0), config="SPLIT_SEED = None")
    assert finished_runs.read(apart).seed == 42


def test_with_racing_scores_are_not_shared(folder):
    flags = GinFlags((), (*SMALL, "RACING = True", "STRATEGIES = 'prompt_uncertainty'"))
    assert not any(job.takes_scores for job in comparison.plan(comparison.build(flags), flags))


def test_a_folder_that_holds_something_else(folder):
    flags = GinFlags((), (*SMALL, "STRATEGIES = 'random'", "SEEDS = 0", "COMPARISON_DIR = 'out'"))
    write_run(folder / "out" / "random_0", "random", 0, (1.0, 2.0))
    with pytest.raises(UserError, match="'out' holds another comparison; random_0 differs:\n"):
        comparison.plan(comparison.build(flags), flags)
    (folder / "out" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="'out' is a run directory"):
        comparison.plan(comparison.build(flags), flags)
    with pytest.raises(UserError, match="is in a bucket, .*--print_commands"):
        comparison.run(made(out="gs://a/b"), [])


def test_folders_of_finished_runs_are_only_read(folder, capsys):
    for seed in (0, 1):
        write_run(folder / f"a_{seed}", "high_prompt_uncertainty", seed, (3.0, 5.0 + seed))
        write_run(folder / f"b_{seed}", "random", seed, (3.0, 4.0))
    write_run(folder / "late", "easy", 0, (3.0,), rounds=2)
    runs = ("a_0", "a_1", "b_0", "b_1", "late")
    code, out, _ = run(capsys, *runs, "--gin.COMPARISON_DIR=out", "--gin.PAPER_CURVES=True")
    assert code == 0
    assert "prompt_uncertainty cannot be told from random at 10 tasks: +1.50" in out
    assert "left out: late: late is not finished: 1 of 2 rounds are evaluated" in out
    result = json.loads((folder / "out" / "compare.json").read_text())
    assert (
        result["strategies"] == ["prompt_uncertainty", "random"]
        and result["paper"]["num_runs"] == 5
    )
    assert {path.name for path in (folder / "out").iterdir()} == {
        "compare.json",
        "comparison.csv",
        "comparison.png",
        "report.html",
    }
    assert run(capsys, "late")[0] == 2
    assert (
        "--print_commands prints what is left to run" in run(capsys, "a_0", "--print_commands")[2]
    )


def test_the_whole_command_with_a_stand_in_for_runs(folder, capsys, monkeypatch):
    def finish(jobs, processes):
        assert processes == 2
        for job in jobs:
            if job.name != "easy_1":
                write_run(job.folder, job.strategy, job.seed, (3.0, 4.0 + job.seed, 5.0))
        job.code = 1

    monkeypatch.setattr(schedule, "run", finish)
    arguments = (
        "--gin.STRATEGIES=random,easy",
        "--gin.SEEDS=0,1",
        "--gin.COMPARISON_DIR=out",
        "--gin.mini.load_pool.instances_per_task=2",
        "--processes=2",
    )
    code, out, _ = run(capsys, *arguments)
    assert code == 3, "one is missing"
    assert out.startswith("4 runs in out: 0 finished, 4 to do, 2 at a time\n")
    assert "left out: easy with seed 1: it failed with exit code 1, see out/logs/easy_1.log" in out
    assert (folder / "out" / "comparison.png").exists()

    def stopped(*_):
        raise schedule.Stopped(15)

    monkeypatch.setattr(schedule, "run", stopped)
    for path in (folder / "out").glob("*_*"):
        (path / "run.json").unlink()
    code, _, error = run(capsys, *arguments)
    assert code == 75 and "the same command continues" in error


def test_seeds_are_run_until_every_strategy_is_decided(folder, capsys, monkeypatch):
    """One strategy is soon better, one is never told: it goes on alone, beside the baseline."""
    batches = []
    gains = {"random": 0.0, "easy": 3.0, "difficult": 0.0}

    def finish(jobs, processes):
        batches.append([job.name for job in jobs])
        for job in jobs:
            noise = (-1) ** job.seed if job.strategy == "difficult" else 0.0
            score = 5.0 + job.seed + gains[job.strategy] + noise
            write_run(job.folder, job.strategy, job.seed, (3.0, 4.0, score))

    monkeypatch.setattr(schedule, "run", finish)
    arguments = (
        "--gin.STRATEGIES=easy,difficult,random",
        "--gin.SEEDS=0,1,2,3,4,5,6,7,8,9",
        "--gin.COMPARISON_DIR=out",
        "--gin.mini.load_pool.instances_per_task=2",
        "--until=decided",
    )
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    decided = out.index("seed 5: easy is better than random after 6 seeds: +3.00 [")
    assert "easy is not yet told from random after 1 seed: +3.00 [no interval]" in out[:decided]
    assert batches[5] == ["easy_5", "difficult_5", "random_5"]
    assert batches[6:] == [[f"difficult_{seed}", f"random_{seed}"] for seed in range(6, 10)]
    assert "left out" not in out
    assert "--until=decided chose the number of seeds by their results" in out
    looks = json.loads((folder / "out" / "compare.json").read_text())["looks"]
    assert [each["verdict"] for each in looks["easy"]] == [None] * 5 + ["better"]
    assert {each["verdict"] for each in looks["difficult"]} == {None}
    assert len(looks["difficult"]) == 10
    assert "looking after every seed, at 16 tasks, with 95% for all looks at all strategies" in out


@pytest.mark.benchmark
def test_a_comparison_of_real_runs_continues_where_it_was_killed(folder):
    """Minutes: six runs of the mini experiment cut down, in processes of their own."""
    import os
    import signal
    import subprocess
    import sys
    import time

    small = {
        "EPOCHS": 1,
        "ROUNDS": 2,
        "MAX_EVAL_INSTANCES": 2,
        "NUM_INSTANCES": 1,
        "NUM_PERTURBATIONS": 2,
        "MAX_INSTANCES_PER_TASK": 4,
        "MAX_DEV_INSTANCES": 2,
        "INITIAL_TASKS": 4,
        "TASKS_PER_ROUND": 6,
        "SEEDS": "0,1",
        "STRATEGIES": "prompt_uncertainty,easy,random",
    }
    command = [
        sys.executable,
        "-m",
        "ait_jax.cli",
        "compare",
        "--gin_file=experiments/mini.gin",
        *(f"--gin.{name}={value}" for name, value in small.items()),
    ]

    def start(out):
        return subprocess.Popen(
            [*command, f"--gin.COMPARISON_DIR={out}"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start("out")
        while not list(folder.glob("out/*/round_000/eval.json")):
            time.sleep(0.1)
        process.send_signal(number)
        code = process.wait()
        assert code == {signal.SIGKILL: -9, signal.SIGTERM: 75}[number], process.stdout.read()
    output, _ = start("out").communicate()
    assert "+0.00 [+0.00, +0.00]" in output or "noise" in output, output
    _undisturbed, _ = start("other").communicate()
    first, second = ((folder / name / "compare.json").read_text() for name in ("out", "other"))
    assert first.replace('"out/', '"other/') == second
    assert os.path.getsize(folder / "out" / "comparison.csv") == os.path.getsize(
        folder / "other/comparison.csv"
    )
