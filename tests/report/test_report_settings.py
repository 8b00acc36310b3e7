"""config.gin read back: the parts of a run, and nothing that somebody else's file wants called."""

import dataclasses

import pytest
from tiny_experiment import tiny_experiment

from ait_jax.config import configuration
from ait_jax.config.config_values import BUILDABLE, ConfigValues
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.prompts import chat_format
from ait_jax.report import settings
from ait_jax.rounds import experiment


@pytest.fixture
def mini_config(clean_gin):
    """The operative configuration of the mini experiment, as a run keeps it."""
    configuration.parse(GinFlags(bindings=("SEED = 3",)), "experiments/mini.gin")
    built = configuration.build(experiment.Experiment)
    return built, configuration.operative_config()


def test_the_parts_of_a_run_come_back(mini_config):
    built, text = mini_config
    found = settings.of_config(text, 3)
    expected = settings.of_parts(built, built.pool)
    assert found.problem == "" and None not in (found.pool, found.perturbation, found.encoding)
    assert found.pool.fingerprint() == built.pool.fingerprint()
    assert found.vocabulary.path == expected.vocabulary.path
    ignored = {"pool": None, "vocabulary": None, "strategy": ""}
    assert dataclasses.replace(found, **ignored) == dataclasses.replace(expected, **ignored)


HOSTILE = """
from __gin__ import dynamic_registration
import os
from ait_jax.rounds import experiment
from ait_jax.runtime import files
from ait_jax.tasks import mini
POOL = @{pool}
experiment.Experiment.pool = %POOL
experiment.Experiment.rounds = 4
experiment.Experiment.encoding = @files.write_text()
files.write_text.path = '{marker}'
files.write_text.text = 'called'
os.system.command = 'touch {marker}'
files.remove_tree.path = '{marker}'
"""


@pytest.mark.parametrize(
    "pool",
    ["os.system()", "files.remove_tree()", "files.write_text()", "mini.load_pool", "mini.os.x()"],
)
def test_nothing_else_is_called(tmp_path, pool):
    marker = tmp_path / "marker"
    found = settings.of_config(HOSTILE.format(pool=pool, marker=marker), 0)
    assert found.pool is None and found.encoding is None and found.rounds == 4
    assert "only a run calls it" in found.problem
    assert not marker.exists()


def test_a_pool_is_opened_and_never_prepared():
    text = (
        "from ait_jax.tasks import niv2\nexperiment.Experiment.pool = @niv2.load_pool()\n"
        "niv2.load_pool.data_dir = 'nowhere'\nniv2.load_pool.source = 'clone'\n"
    )
    assert BUILDABLE["ait_jax.tasks.niv2.load_pool"] == ("source",)
    assert "NIV2 is not prepared in 'nowhere'" in settings.of_config(text, 0).problem


def test_a_chat_vocabulary_comes_back():
    text = (
        "from ait_jax.prompts import chat_format\n"
        "from ait_jax.prompts import tokenizers_vocabulary\n"
        "CHAT = @chat_format.ChatML()\n"
        "experiment.Experiment.vocabulary = @tokenizers_vocabulary.TokenizersVocabulary()\n"
        "tokenizers_vocabulary.TokenizersVocabulary:\n  path = 'folder'\n  chat = %CHAT\n"
    )
    found = settings.of_config(text, 0)
    assert found.vocabulary.identity == ("folder", chat_format.ChatML())


def test_scopes_and_macros_mean_what_gin_means(clean_gin):
    text = (
        "from __gin__ import dynamic_registration\nfrom ait_jax.prompts import perturb\n"
        "RATE = 0.4\nNAME = @perturb.WordDrop()\nOTHER = @b/perturb.WordDrop()\n"
        "perturb.WordDrop.rate = 0.1\nperturb.WordDrop.parts = 'TD'\n"
        "NAME/perturb.WordDrop.rate = %RATE\nb/perturb.WordDrop.parts = 'EXAMPLES'\n"
        "scorer.Scorer.perturbation = %NAME\n"
    )
    config = ConfigValues(text)
    for macro in ("NAME", "OTHER"):
        clean_gin.clear_config()
        clean_gin.parse_config(text.replace("scorer.Scorer.perturbation", "perturb.WordMask.rate"))
        expected = clean_gin.config.ConfigurableReference(
            f"{macro}/gin.macro", True
        ).scoped_configurable_fn()
        bound = {"NAME": config.of_class("Scorer")["perturbation"]}
        value = bound.get(macro) or ConfigValues(text + "x.Y.z = %OTHER\n").of_class("Y")["z"]
        assert config.build(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a = = 3",
        "A = %B\nB = %A\nx.Experiment.pool = %A",
        "x.Experiment.pool = %GONE",
        "\x00",
        "a = " + "[" * 5000,
        "a = " + "-" * 100_000 + "1",
        "a = " + "9" * 5000,
        "a = {" + "1:{" * 99,
    ],
)
def test_a_strange_configuration_is_a_problem_and_no_crash(text):
    assert settings.of_config(text, 0).problem
    if "=" in text and "%" not in text:
        with pytest.raises(UserError, match="config.gin is damaged"):
            ConfigValues(text)


def test_counts_that_no_run_could_have_are_left_out():
    text = "scorer.Scorer.num_instances = {}\nx.Experiment.scorer = @scorer.Scorer()\n"
    counts = [settings.of_config(text.format(n), 0).num_instances for n in (7, -1, 10**12, "'x'")]
    assert counts == [7, 0, 0, 0]


def test_a_run_at_work_gives_its_own_parts(tmp_path):
    parts = tiny_experiment(tmp_path)
    found = settings.of_parts(parts, parts.pool)
    assert (
        found.pool is parts.pool
        and found.perturbation
        and found.num_perturbations == 2
        and found.strategy == "high_prompt_uncertainty"
    )


@pytest.mark.parametrize("named", ["gs://other/data", "s3://other/x", "GS://other"])
def test_a_bucket_that_only_the_file_names_is_not_asked(named, bucket):
    text = (
        "from ait_jax.tasks import niv2\nexperiment.Experiment.pool = @niv2.load_pool()\n"
        f"niv2.load_pool.data_dir = {named!r}\n"
    )
    for folder in ("runs/a", "gs://mine/run"):
        problem = settings.of_config(text, 0, folder).problem
        assert f"config.gin names {named!r}, which is asked only by a run" in problem
    assert bucket.requests == []


def test_a_runs_own_bucket_is_asked(bucket):
    text = (
        "from ait_jax.tasks import niv2\nexperiment.Experiment.pool = @niv2.load_pool()\n"
        "niv2.load_pool.data_dir = 'gs://bucket/data'\n"
    )
    assert "is not prepared in" in settings.of_config(text, 0, "gs://bucket/run").problem
    assert bucket.requests
