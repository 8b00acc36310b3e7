"""cli.py: help without slow imports, exit codes, one-line errors, prepare."""

import json
import os
import subprocess
import sys
from pathlib import Path

import flax
import numpy as np
import pytest
from ait_jax.tasks import DEFAULT_DATA_DIR, niv2

from ait_jax import __version__, assets, cli
from ait_jax.commands import subcommand
from ait_jax.models import parameters
from ait_jax.models.checkpoints import checkpoints, orbax_checkpoint
from ait_jax.plan import plan
from ait_jax.rounds import active, pretraining, scoring

SLOW = ("jax", "tensorflow", "gin", "numpy", "flax", "matplotlib", "pyarrow", "openai")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code, standard output, standard error."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as exit:  # argparse, after --help and --version
        code = exit.code
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture
def experiments(monkeypatch, tmp_path, clean_gin):
    """Replaces the work of `run`, `score` and `pretrain`; gives what they were called with."""
    called = []
    for module in (scoring, active):
        monkeypatch.setattr(module, "run", lambda made, config, **_: called.append((made, config)))
    monkeypatch.setattr(pretraining.Pretraining, "run", lambda self: called.append((self, "")))
    monkeypatch.setattr(
        subcommand, "start_jax", lambda **_: None
    )  # it configures this process's JAX
    monkeypatch.chdir(tmp_path)
    return called


@pytest.fixture
def clone(tmp_path):
    """A clone of NIV2 with two good task files and a bad one."""
    tasks, splits = tmp_path / "clone" / "tasks", tmp_path / "clone" / "splits" / "default"
    tasks.mkdir(parents=True)
    splits.mkdir(parents=True)
    task = {
        "Definition": ["Name the colour."],
        "Positive Examples": [{"input": "sky", "output": "blue", "explanation": ""}] * 2,
        "Negative Examples": [],
        "Instances": [{"id": "1", "input": "grass", "output": ["green"]}],
        "Categories": ["Naming"],
    }
    for name in ("task001_a", "task002_b"):
        (tasks / f"{name}.json").write_text(json.dumps(task))
    (splits / "train_tasks.txt").write_text("task001_a\n")
    (splits / "test_tasks.txt").write_text("task002_b\n")
    (tasks / "task003_bad.json").write_text("{\n")
    return tmp_path / "clone"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["judge", "--help"], ["--version"], []]
)
def test_help_imports_nothing_slow(arguments):
    program = (
        "import sys\nfrom ait_jax import cli\n"
        f"try: cli.main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {SLOW!r} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    assert "ait-jax" in output


def test_help_shows_the_gin_flags(capsys):
    for arguments in (["--help"], ["run", "--help"], ["score", "--help"], ["pretrain", "--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        for flag in ("--gin_file=FILE", "--gin.NAME=VALUE", "--gin_search_paths", "--debug"):
            assert flag in out
    assert "--gin_file" not in run(capsys, "prepare", "--help")[1]
    assert run(capsys, "--version")[:2] == (0, f"ait-jax {__version__}\n")


def test_score_builds_a_scoring(capsys, experiments, clone, tmp_path):
    (clone / "tasks" / "task003_bad.json").unlink()
    assert run(capsys, "score", "--gin.mini.load_pool.instances_per_task=2")[0] == 0
    niv2_flags = (f"--gin.NIV2_DIR={clone}", f"--gin.DATA_DIR={tmp_path / 'data'}")
    files = ("--gin_file=experiments/score.gin", "--gin_file=pools/niv2.gin")
    code, _, err = run(
        capsys,
        "score",
        *files,
        *niv2_flags,
        "--gin.INIT_CHECKPOINT=checkpoint_60",
        "--gin_file=strategies/prompt_uncertainty.gin",
    )
    assert code == 0, err
    (made, config), (niv2_made, _) = experiments
    assert made.model_dir == "runs/score" and "MODEL_DIR = 'runs/score'" in config
    assert made.strategy is None and made.tasks is None and len(made.pool) == 139
    assert niv2_made.pool.name == "niv2" and niv2_made.init_checkpoint == "checkpoint_60"
    assert niv2_made.strategy.name == "high_prompt_uncertainty"


def test_run_and_pretrain_build_their_experiments(capsys, experiments):
    assert run(capsys, "run", "--gin.mini.load_pool.instances_per_task=2")[0] == 0
    assert run(capsys, "pretrain", "--gin.SEED=5")[0] == 0
    (experiment, config), (pretrained, _) = experiments
    assert experiment.model_dir == "runs/mini" and "MODEL_DIR = 'runs/mini'" in config
    assert pretrained.seed == 5


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (
            "rnu",
            [
                "Unknown command 'rnu'",
                "Did you mean 'run'?",
                "Commands: run, score, pretrain, plan, prepare",
            ],
        ),
        ("--debug rnu", ["Did you mean 'run'?"]),
        ("run --debg", ["Unknown argument '--debg'", "'--debug'?", "`ait-jax run --help`"]),
        ("run gin.ROUNDS=5", ["Unknown argument 'gin.ROUNDS=5'", "'--gin.ROUNDS=5'?"]),
        ("run --gin_fil=x", ["Unknown flag --gin_fil.", "'--gin_file'?"]),
        ("run --gin.ROUNDS", ["--gin.ROUNDS needs a value"]),
        ("run --gin.ROUDNS=5", ["--gin.ROUDNS", "Did you mean 'ROUNDS'?"]),
        ("run --gin_file=experiments/nvi2.gin", ["'experiments/niv2.gin'?"]),
        ("run --gin_file=experiments/niv2_paper.gin", ["--gin.VOCABULARY_PATH=..."]),
        ("--gin.ROUNDS=5", ["gin flags need a command"]),
        ("score --gin.INIT_CHECKPOINT=None", ["set --gin.INIT_CHECKPOINT"]),
        ("score --gin.ROUNDS=5", ["--gin.ROUNDS: no gin file defines ROUNDS"]),
        (
            "score --gin_file=experiments/mini.gin",
            ["configure no Scoring", "--gin_file=experiments/score.gin"],
        ),
        ("prepare", ["the following arguments are required: POOL, --source"]),
        ("prepare niv2 --source x --overwrit", ["'--overwrite'?"]),
        ("prepare niv2 --source x --gin.A=1", ["`ait-jax prepare` takes no gin flags"]),
        ("prepare nvi2 --source x", ["Unknown pool 'nvi2'. Did you mean 'niv2'?"]),
        ("prepare niv2 --source x --on_bad_task=ignore", ["invalid choice: 'ignore'"]),
        ("prepare niv2 --source nowhere", ["'nowhere' is not a folder"]),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(capsys, experiments, arguments, texts):
    code, out, err = run(capsys, *arguments.split())
    assert code == 2 and out == ""
    for text in texts:
        assert text in err
    if "--debug" not in arguments:
        assert err.startswith("ait-jax: ") and err.count("\n") == 1


def bad_checkpoints(folder):
    """Makes folders that are no checkpoint of the mini model; {what is said of it: its path}."""
    mini = assets.mini_weights()
    for name in ("empty", "half", "old", "bert", "pickled", "cut", "wide"):
        (folder / name).mkdir(parents=True)
    (folder / "half" / "checkpoint_900").mkdir()
    index = flax.serialization.msgpack_serialize({"version": 1, "optimizer": {"target": {}}})
    (folder / "old" / "checkpoint").write_bytes(index)
    for name, config in (("bert", {"model_type": "bert"}), ("pickled", {"model_type": "t5"})):
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"")
    (folder / "cut" / "model.safetensors").write_bytes(Path(mini).read_bytes()[:5000])
    wide = parameters.flatten(checkpoints.open_checkpoint(mini).load())
    wide["token_embedder.embedding"] = np.zeros((4224, 128), np.float32)
    orbax_checkpoint.write(folder / "wide", parameters.unflatten(wide), 3)
    return {
        "no such file or folder": folder / "nowhere",
        "No checkpoint in": folder / "empty",
        "only incomplete checkpoints (checkpoint_900)": folder / "half",
        "T5X checkpoint of version 1": folder / "old",
        "describes a 'bert' model; ait-jax reads model_type 't5'": folder / "bert",
        "a pickle, which is never opened": folder / "pickled",
        "not a complete safetensors file": folder / "cut",
        "token_embedder.embedding is (4224, 128) there and (4096, 128) here. Likely wrong: "
        "T5Config.vocab_size": folder / "wide",
    }


def test_a_bad_init_checkpoint_is_one_line_and_nothing_is_written(
    capsys, tmp_path, monkeypatch, clean_gin
):
    monkeypatch.setattr(subcommand, "start_jax", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    for text, path in bad_checkpoints(tmp_path).items():
        for command in ("run", "score"):
            code, out, err = run(
                capsys, command, f"--gin.INIT_CHECKPOINT={path}", "--gin.MODEL_DIR=made",
                "--gin.mini.load_pool.instances_per_task=2",
            )  # fmt: skip
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert err.startswith(f"ait-jax: INIT_CHECKPOINT = '{path}': ") and text in err
            assert not (tmp_path / "made").exists()
            clean_gin.clear_config()


def test_debug_adds_the_traceback(capsys, experiments):
    for arguments in (["run", "--debug"], ["--debug", "run"]):
        code, _, err = run(capsys, *arguments, "--gin.ROUNDS=0")
        assert code == 2
        assert "Traceback" in err and "__post_init__" in err
        assert err.splitlines()[-1] == "ait-jax: ROUNDS = 0 must be at least 1."


def test_interruption(capsys, experiments, monkeypatch):
    def interrupt(experiment, config, page):
        raise KeyboardInterrupt

    monkeypatch.setattr(active, "run", interrupt)
    code, _, err = run(capsys, "run", "--gin.mini.load_pool.instances_per_task=2")
    assert code == 130 and "the same command continues" in err


def test_a_defect_exits_with_1_and_its_traceback():
    program = (
        "import sys\nfrom ait_jax import cli\n"
        "def boom(options, flags): raise ZeroDivisionError('a defect')\n"
        "cli.prepare_command.run = boom\n"
        "sys.exit(cli.main(['prepare', 'niv2', '--source', 'x']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError: a defect" in done.stderr


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_leaves_early_is_no_error(flush):
    program = (
        "import sys\nfrom ait_jax import cli\n"
        "def talk(options, flags):\n"
        "    sys.stdin.read()\n"  # until the reader has gone
        f"    print('line', flush={flush})\n"
        "    return 0\n"
        "cli.prepare_command.run = talk\n"
        "sys.exit(cli.main(['prepare', 'niv2', '--source', 'x']))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


def test_prepare_says_what_it_did(capsys, clone, tmp_path):
    command = ("prepare", "niv2", "--source", str(clone), "--data_dir", str(tmp_path / "data"))
    code, _, err = run(capsys, *command)
    assert code == 2 and "task003_bad.json" in err and not (tmp_path / "data" / "niv2").exists()

    code, out, _ = run(capsys, *command, "--on_bad_task=skip")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"prepared 2 tasks in {tmp_path / 'data' / 'niv2'}"
    assert lines[1] == "splits/default: 1 test_tasks, 1 train_tasks"
    assert lines[2].startswith("left out task003_bad.json: ") and len(lines) == 3

    again = run(capsys, *command, "--on_bad_task=skip")[1]
    assert again.startswith("already prepared: 2 tasks in ")


def test_prepare_overwrites_when_told_to(capsys, clone, tmp_path):
    (clone / "tasks" / "task003_bad.json").unlink()
    command = ("prepare", "niv2", "--source", str(clone), "--data_dir", str(tmp_path / "data"))
    assert run(capsys, *command)[0] == 0
    (clone / "tasks" / "task002_b.json").unlink()
    code, _, err = run(capsys, *command)
    assert code == 2 and "--overwrite" in err
    code, out, _ = run(capsys, *command, "--overwrite")
    assert code == 0 and out.startswith("prepared 1 tasks")


def test_prepare_and_run_share_a_default_data_dir(capsys, clone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (clone / "tasks" / "task003_bad.json").unlink()
    assert run(capsys, "prepare", "niv2", "--source", str(clone))[0] == 0
    assert len(niv2.load_pool(DEFAULT_DATA_DIR)) == 2


def test_plan_help_has_examples_and_stays_fast(capsys):
    code, out, _ = run(capsys, "plan", "--help")
    assert code == 0 and "--topology=v5e:16x16" in out and "--gin_file=FILE" in out


def test_plan_gets_its_flags(capsys, experiments, monkeypatch):
    monkeypatch.setattr(plan, "run", lambda flags, options: experiments.append((flags, options)))
    given = ("--topology=v5e:4x4", "--stages=decode, train step", "--no_search", "--tasks=9")
    code, _, err = run(capsys, "plan", *given, "--gin_file=experiments/mini.gin")
    assert code == 0, err
    ((flags, options),) = experiments
    assert flags.files == ("experiments/mini.gin",)
    assert (options.topology, options.search, options.tasks) == ("v5e:4x4", False, 9)
    assert options.stages == ["decode", "train step"]


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--topology=v5:4x4", "'v5' must be one of v4, v5e, v5p, v6e"),
        ("--stages=decoding", "--stages=decoding must be"),
        ("--gin.ROUNDZ=3", "Did you mean 'ROUNDS'"),
    ],
)
def test_plan_errors_are_one_line(capsys, experiments, flag, message):
    code, _, err = run(capsys, "plan", flag)
    assert code == 2 and message in err and err.count("\n") == 1


def with_main(body: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs `ait-jax` whose work is `body`."""
    code = f"import errno, os, sys\nfrom ait_jax import cli\ndef work(a):\n    {body}\n"
    code += "cli._main = work\nsys.exit(cli.main([]))"
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, check=False
    )


def test_a_terminal_that_lacks_characters_gets_others():
    body = "print('задача é'); print('задача', file=sys.stderr); return 0"
    done = with_main(body, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (b"?????? \xe9\n", b"??????\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'a.png')", "a.png: No space left on"),
        ("OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))", "Disk quota exceeded"),
        ("ValueError('RESOURCE_EXHAUSTED: ...: No space left on device [28]')", "No space left"),
        ("OSError(errno.EMFILE, os.strerror(errno.EMFILE), 'x')", "ulimit -n"),
    ],
)
def test_a_full_disk_is_one_line_wherever_it_is_met(error, said):
    done = with_main(f"raise {error}")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert said in done.stderr.decode() and done.stderr.startswith(b"ait-jax: ")


def test_a_defect_keeps_its_traceback():
    done = with_main("raise FileNotFoundError(errno.ENOENT, 'No such file', 'x')")
    assert done.returncode == 1 and b"Traceback" in done.stderr


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 2)"])
def test_ctrl_c_in_a_command_that_saves_nothing(body):
    done = with_main(body)
    assert done.returncode == 130
    assert done.stderr == b"\nait-jax: interrupted; the same command continues.\n"
