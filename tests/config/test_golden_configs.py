"""gin/: the operative configuration of every shipped experiment, and that every file fits.

`UPDATE_GOLDEN=1 pytest tests/config/test_golden_configs.py` writes tests/goldens/ anew; look at the
difference before it is committed.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import tiny_llama
from ait_jax.tasks import DEFAULT_DATA_DIR
from shared_data import REPOSITORY, TESTS

from ait_jax import assets
from ait_jax.compare import comparison
from ait_jax.config import configuration, gin_internals
from ait_jax.config.configuration import gin_folder
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import UserError
from ait_jax.evaluation import rewards
from ait_jax.models.llama import LlamaTransformer
from ait_jax.models.parameters import abstract_params, num_params
from ait_jax.models.t5 import Transformer
from ait_jax.prompts import perturb
from ait_jax.prompts.perturb import WordDrop
from ait_jax.prompts.prompts import AlpacaEncoding
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.rounds import continual, experiment, pretraining, scoring
from ait_jax.summaries import TensorBoard, WeightsAndBiases, weights_and_biases
from ait_jax.trainer import feedback, lora, t5x
from ait_jax.trainer.optimizer import schedule_over

GOLDENS = TESTS / "goldens"
ROOT = REPOSITORY
NIV2_VALUES = ("NIV2_DIR = 'clone'", "DATA_DIR = 'data'")
T5_VALUES = ("INIT_CHECKPOINT = 'checkpoint'", "VOCABULARY_PATH = 'vocabulary.model'")
LLAMA_VALUES = ("INIT_CHECKPOINT = 'llama'", "VOCABULARY_PATH = 'llama'")
SELF_INSTRUCT_VALUES = (
    "SELF_INSTRUCT_FILES = 'rows.jsonl'",
    "TEST_FILES = 'test.jsonl'",
    "DATA_DIR = 'data'",
)
# Experiment -> (what is built, values that it leaves to the user).
EXPERIMENTS = {
    "mini": (experiment.Experiment, ()),
    "niv2": (experiment.Experiment, NIV2_VALUES),
    "niv2_paper": (experiment.Experiment, NIV2_VALUES + T5_VALUES),
    "self_instruct": (experiment.Experiment, SELF_INSTRUCT_VALUES + T5_VALUES),
    "niv2_smollm2": (experiment.Experiment, NIV2_VALUES + LLAMA_VALUES),
    "self_instruct_llama": (experiment.Experiment, SELF_INSTRUCT_VALUES + LLAMA_VALUES),
    "self_instruct_mini": (experiment.Experiment, SELF_INSTRUCT_VALUES),
    "continual": (continual.Continual, NIV2_VALUES + T5_VALUES),
    "continual_mini": (continual.Continual, ()),
    "mini_base": (pretraining.Pretraining, ()),
    "score": (scoring.Scoring, ()),
    "score_smollm2": (scoring.Scoring, NIV2_VALUES + LLAMA_VALUES),
    "compare_mini": (comparison.Comparison, ()),
    "science_smollm2": (comparison.Comparison, NIV2_VALUES + LLAMA_VALUES),
    "science_t5": (comparison.Comparison, NIV2_VALUES + T5_VALUES),
}
# Published sizes of T5 1.1 (google/t5-v1_1-small to google/t5-v1_1-xxl).
NUM_PARAMS = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}
# And of the models on Hugging Face's hub.
NUM_LLAMA_PARAMS = {
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama3_8b": 8_030_261_248,
    "qwen3_0_6b": 596_049_920,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "smollm3_3b": 3_075_098_624,
    "olmo2_1b": 1_484_916_736,
}
# The tests that hold the files of each folder.
COVERED = {
    "experiments": {"active", "parts", "model_parts", "continual_loop", "comparison", *EXPERIMENTS},
    "models": {"mini", "t5_1_1_tiny", *NUM_PARAMS, *NUM_LLAMA_PARAMS},
    "partitioning": {"data_parallel", "tensor_parallel", "fsdp_2d"},
    "perturbations": {"example_resampling", "mc_dropout", "word_drop_mix", "word_mask"},
    "pools": {"mini", "niv2", "self_instruct", "split_files", "dynosaur", "joined"},
    "t5x": {
        "model",
        "mini",
        "niv2",
        "self_instruct",
        "pretrain",
        "finetune",
        "parameters_only",
        "eval",
        "infer",
    },
    "summaries": {"wandb"},
    "trainers": {"embedded", "feedback", "lora", "t5x"},
    "strategies": {
        "ambiguous",
        "deita_like",
        "difficult",
        "diverse_evol",
        "diverse_uncertainty",
        "easy",
        "facility_location",
        "high_perplexity",
        "instruction_following_difficulty",
        "instruction_length",
        "inverse_confidence",
        "k_center",
        "loss",
        "loss_drop",
        "low_perplexity",
        "low_prompt_uncertainty",
        "nearest_instructions",
        "prompt_uncertainty",
        "random",
        "random_category",
        "released",
        "representation_similarity",
        "strategy_bandit",
    },
}
STRATEGY_VALUES = {"released": ("RELEASED_LISTS = 'Random_{round}'",)}

pytestmark = pytest.mark.usefixtures("clean_gin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a clone of two tasks, so that goldens hold relative paths only."""
    folder = tmp_path_factory.mktemp("working")
    (folder / "clone" / "tasks").mkdir(parents=True)
    (folder / "clone" / "splits" / "default").mkdir(parents=True)
    for split, name in (("train", "task001_colours"), ("test", "task002_words")):
        task = {
            "Definition": ["Name the colour."],
            "Positive Examples": [{"input": "sky", "output": "blue", "explanation": ""}] * 2,
            "Negative Examples": [],
            "Instances": [{"id": f"{name}-1", "input": "grass", "output": ["green"]}],
            "Categories": ["Naming"],
        }
        (folder / "clone" / "tasks" / f"{name}.json").write_text(json.dumps(task))
        (folder / "clone" / "splits" / "default" / f"{split}_tasks.txt").write_text(f"{name}\n")
    for name in ("rows", "test"):
        row = {"instruction": f"Say {name}.", "input": "", "output": name}
        (folder / f"{name}.jsonl").write_text(json.dumps(row))
    shutil.copy(assets.mini_vocabulary(), folder / "vocabulary.model")
    if importlib.util.find_spec("tokenizers"):
        (folder / "llama").mkdir()
        tiny_llama.write_tokenizer(folder / "llama")
    return folder


def parse(*files: str, bindings: tuple[str, ...] = ()) -> None:
    scores = files[0].startswith("experiments/score")
    unused = scoring.UNUSED_MACROS if scores else continual.UNUSED_MACROS
    configuration.parse(GinFlags(files, bindings), "experiments/mini.gin", unused)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_operative_configuration_is_the_golden_one(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    kind, values = EXPERIMENTS[name]
    if values[-2:] == LLAMA_VALUES:
        pytest.importorskip("tokenizers", reason="needs the package tokenizers")
    parse(f"experiments/{name}.gin", bindings=values)
    configuration.build(kind)
    current = configuration.operative_config()
    golden = GOLDENS / f"{name}.gin"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDENS.mkdir(exist_ok=True)
        golden.write_text(current)
    assert str(ROOT) not in current and str(folder) not in current
    hint = "UPDATE_GOLDEN=1 pytest tests/config/test_golden_configs.py"
    assert configuration.differences(golden.read_text(), current) == [], hint
    assert current == golden.read_text(), hint


@pytest.mark.parametrize("name", sorted(COVERED["strategies"]))
def test_every_strategy_fits_an_experiment(name):
    parse(
        "experiments/mini.gin",
        f"strategies/{name}.gin",
        bindings=("mini.load_pool.instances_per_task = 2", *STRATEGY_VALUES.get(name, ())),
    )
    strategy = configuration.build(experiment.Experiment).strategy
    expected = {"prompt_uncertainty": "high_prompt_uncertainty"}.get(name, name)
    assert strategy.name == expected


@pytest.mark.parametrize("name", sorted(COVERED["perturbations"]))
def test_every_perturbation_fits_an_experiment(name):
    bindings = ("mini.load_pool.instances_per_task = 2",)
    parse("experiments/mini.gin", f"perturbations/{name}.gin", bindings=bindings)
    perturbation = configuration.build(experiment.Experiment).scorer.perturbation
    expected = {
        "example_resampling": perturb.ExampleResampling(),
        "mc_dropout": perturb.MCDropout(0.1),
        "word_drop_mix": perturb.WordDropMix(3, "TDTE"),
        "word_mask": perturb.WordMask(0.2, "TDTE"),
    }
    assert perturbation == expected[name]


def assert_same_settings(trainer, embedded):
    """Functions, which have no equality, are left to whoever asks."""
    for field in dataclasses.fields(embedded):
        if field.name not in ("optimizer", "schedule"):
            assert getattr(trainer, field.name) == getattr(embedded, field.name), field.name


def test_the_t5x_trainer_takes_the_experiments_settings(monkeypatch):
    monkeypatch.setattr(t5x, "require_t5x", lambda: None)
    few = ("mini.load_pool.instances_per_task = 2",)
    parse("experiments/mini.gin", bindings=few)
    embedded = configuration.build(experiment.Experiment).trainer
    parse("experiments/mini.gin", "trainers/t5x.gin", bindings=few)
    trainer = configuration.build(experiment.Experiment).trainer
    assert isinstance(trainer, t5x.T5XTrainer) and trainer.network == "ait_jax"
    assert_same_settings(trainer, embedded)
    theirs, ours = (each.optimizer(lambda _: 0.0).settings for each in (trainer, embedded))
    assert theirs == ours and rates_of(trainer) == rates_of(embedded)


def rates_of(trainer):
    schedule = schedule_over(trainer.schedule, 100)
    return [float(schedule(step)) for step in (0, 5, 10, 20, 99)]


def test_the_feedback_stage_fits_an_experiment_and_both_trainers(monkeypatch):
    monkeypatch.setattr(t5x, "require_t5x", lambda: None)
    few = ("mini.load_pool.instances_per_task = 2",)
    parse("experiments/mini.gin", bindings=few)
    embedded = configuration.build(experiment.Experiment).trainer
    parse("experiments/mini.gin", "trainers/feedback.gin", bindings=few)
    trainer = configuration.build(experiment.Experiment).trainer
    assert isinstance(trainer, feedback.FeedbackTrainer)
    assert_same_settings(trainer.supervised, embedded)
    assert rates_of(trainer.supervised) == rates_of(embedded)
    # LEARNING_RATE x FEEDBACK_RATE after a warm-up of its own.
    assert rates_of(trainer) == pytest.approx([0, 1.25e-3, 2.5e-3, 2.5e-3, 2.5e-3], rel=1e-5)
    assert trainer.best_metric == "rougeL" and trainer.reward == rewards.Reward("rougeL", 0.5)
    t5x_first = (*few, "SUPERVISED_TRAINER = @t5x.T5XTrainer()")
    parse("experiments/mini.gin", "trainers/t5x.gin", "trainers/feedback.gin", bindings=t5x_first)
    trainer = configuration.build(experiment.Experiment).trainer
    assert (
        isinstance(trainer.supervised, t5x.T5XTrainer)
        and trainer.supervised.best_metric == "rougeL"
    )
    parse("experiments/mini.gin", "trainers/feedback.gin", bindings=(*few, "NUM_SAMPLES = 1"))
    with pytest.raises(UserError, match="NUM_SAMPLES.* = 1 must be at least 2"):
        configuration.build(experiment.Experiment)
    parse("experiments/mini.gin", "trainers/feedback.gin", bindings=(*few, "REWARD = 'rouge'"))
    with pytest.raises(UserError, match="REWARD.* = 'rouge' must be one of"):
        configuration.build(experiment.Experiment)


def test_lora_takes_the_experiments_settings_and_a_feedback_stage_may_follow():
    few = ("mini.load_pool.instances_per_task = 2",)
    parse("experiments/mini.gin", bindings=few)
    embedded = configuration.build(experiment.Experiment).trainer
    narrow = (*few, "LORA_RANK = 4", "LORA_TARGETS = ('query', 'decoder/*/value')")
    parse("experiments/mini.gin", "trainers/lora.gin", bindings=narrow)
    trainer = configuration.build(experiment.Experiment).trainer
    assert isinstance(trainer, lora.LoRATrainer)
    assert (trainer.rank, trainer.scale, trainer.dropout) == (4, 8.0, 0.0)
    assert trainer.targets == ("query", "decoder/*/value")
    for field in dataclasses.fields(embedded):
        if field.name not in ("optimizer", "schedule"):
            assert getattr(trainer, field.name) == getattr(embedded, field.name), field.name
    assert max(rates_of(trainer)) == pytest.approx(5e-4)
    parse("experiments/mini.gin", "trainers/lora.gin", bindings=(*few, "LORA_TARGETS = ('quary',)"))
    with pytest.raises(UserError, match="LORA_TARGETS.*Did you mean 'query'"):
        configuration.build(experiment.Experiment)
    after = (*few, "SUPERVISED_TRAINER = @lora.LoRATrainer()")
    parse("experiments/mini.gin", "trainers/lora.gin", "trainers/feedback.gin", bindings=after)
    trainer = configuration.build(experiment.Experiment).trainer
    assert isinstance(trainer.supervised, lora.LoRATrainer) and trainer.supervised.rank == 16


def test_weights_and_biases_fit_runs_and_continual_training(monkeypatch):
    monkeypatch.setattr(weights_and_biases, "is_installed", lambda: True)
    few = ("mini.load_pool.instances_per_task = 2", "WANDB_MODE = 'offline'")
    parse("experiments/mini.gin", "summaries/wandb.gin", bindings=few)
    expected = (TensorBoard(), WeightsAndBiases(project="ait-jax", mode="offline"))
    assert configuration.build(experiment.Experiment).summaries == expected
    parse("experiments/continual_mini.gin", "summaries/wandb.gin", bindings=few)
    assert configuration.build(continual.Continual).summaries == expected


def test_rounds_may_have_trainers_of_their_own(monkeypatch):
    monkeypatch.setattr(t5x, "require_t5x", lambda: None)
    trainers = "TRAINER = {0: @embedded.EmbeddedTrainer(), 2: @t5x.T5XTrainer()}"
    bindings = ("mini.load_pool.instances_per_task = 2", trainers)
    parse("experiments/mini.gin", "trainers/t5x.gin", bindings=bindings)
    built = configuration.build(experiment.Experiment)
    kinds = [built.trainer_of(round).gin_name for round in range(3)]
    assert kinds == ["embedded.EmbeddedTrainer"] * 2 + ["t5x.T5XTrainer"]
    parse("experiments/mini.gin", "trainers/t5x.gin", bindings=(*bindings, "ROUNDS = 2"))
    with pytest.raises(UserError, match=r"TRAINER .* rounds \[0, 2\].* ROUNDS = 2"):
        configuration.build(experiment.Experiment)


def test_every_pool_and_strategy_fits_scoring(folder, monkeypatch):
    monkeypatch.chdir(folder)
    parse("experiments/score.gin", "pools/niv2.gin", "strategies/random.gin", bindings=NIV2_VALUES)
    built = configuration.build(scoring.Scoring)
    assert built.pool.name == "niv2" and built.strategy.name == "random"
    parse("experiments/score.gin", "pools/self_instruct.gin", bindings=SELF_INSTRUCT_VALUES)
    built = configuration.build(scoring.Scoring)
    assert built.encoding == AlpacaEncoding(512) and built.scorer.perturbation == WordDrop(
        0.2, "TD"
    )


@pytest.mark.parametrize("name", NUM_PARAMS)
def test_t5_sizes_have_the_published_number_of_parameters(name):
    parse("experiments/niv2_paper.gin", f"models/{name}.gin", bindings=T5_VALUES)
    model = configuration.build(Transformer)
    assert num_params(abstract_params(model)[0]) == NUM_PARAMS[name]
    assert not model.config.logits_via_embedding
    assert model.config.mlp_activations == ("gelu", "linear")


@pytest.mark.parametrize("name", NUM_LLAMA_PARAMS)
def test_llama_sizes_have_the_published_number_of_parameters(name):
    parse("experiments/niv2_paper.gin", f"models/{name}.gin", bindings=T5_VALUES)
    model = configuration.build(LlamaTransformer)
    assert num_params(abstract_params(model)[0]) == NUM_LLAMA_PARAMS[name]
    vocabulary = configuration.build(TokenizersVocabulary)
    assert vocabulary.path == "vocabulary.model"
    assert (vocabulary.chat is not None) == name.startswith(("smollm2_", "llama3_"))


def test_the_tiny_model_is_t5xs():
    parse("experiments/niv2_paper.gin", "models/t5_1_1_tiny.gin", bindings=T5_VALUES)
    config = configuration.build(Transformer).config
    sizes = (config.vocab_size, config.emb_dim, config.num_heads, config.head_dim, config.mlp_dim)
    assert sizes == (384, 32, 4, 8, 64)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)


def test_the_paper_begins_from_its_own_split_files(folder, monkeypatch):
    monkeypatch.chdir(folder)
    parse(
        "experiments/niv2_paper.gin",
        "pools/split_files.gin",
        bindings=(*NIV2_VALUES, *T5_VALUES, "SPLITS_DIR = 'splits'", "MISSING_TASKS = 'drop'"),
    )
    splits = configuration.build(experiment.Experiment).initial_splits
    assert (splits.directory, splits.missing_tasks) == ("splits", "drop")
    assert splits.official_test_tasks is None


def test_the_paper_protocol():
    """The numbers of the paper, stated in one file."""
    text = (GOLDENS / "niv2_paper.gin").read_text()
    for line in (
        "ROUNDS = 5",
        "INITIAL_TASKS = 68",
        "TASKS_PER_ROUND = 68",
        "CLS_RATIO = 0.356",
        "MAX_INSTANCES_PER_TASK = 200",
        "EPOCHS = 8",
        "BATCH_SIZE = 128",
        "LEARNING_RATE = 5e-05",
        "MAX_SOURCE_LENGTH = 1024",
        "NUM_INSTANCES = 10",
        "NUM_PERTURBATIONS = 10",
        "MODEL/t5.T5Config.emb_dim = 1024",
        "perturb.WordDrop.rate = 0.2",
    ):
        assert f"\n{line}\n" in text
    targets = next(line for line in text.splitlines() if line.startswith("TARGET_LENGTHS"))
    assert targets.endswith("128)")


def test_the_self_instruct_protocol():
    """The paper's sizes, stated in one file."""
    text = (GOLDENS / "self_instruct.gin").read_text()
    for line in (
        "ROUNDS = 6",
        "INITIAL_TASKS = 500",
        "TASKS_PER_ROUND = (500, 1000, 2000, 4000, 8000)",
        "NUM_INSTANCES = 1",
        "ENCODING = @prompts.AlpacaEncoding()",
    ):
        assert f"\n{line}\n" in text
    assert "TkInstruct" not in text


def test_the_self_instruct_protocol_on_llama():
    """The paper's rounds, Alpaca's training, stated in one file."""
    text = (GOLDENS / "self_instruct_llama.gin").read_text()
    for line in (
        "ROUNDS = 6",
        "TASKS_PER_ROUND = (500, 1000, 2000, 4000, 8000)",
        "EPOCHS = 3",
        "BATCH_SIZE = 128",
        "LEARNING_RATE = 2e-05",
        "SCHEDULE = @optimizer.CosineOfTraining()",
        "OPTIMIZER = @optimizer.adamw",
        "ENCODING = @prompts.AlpacaEncoding()",
        "CHAT = None",
        "MODEL/llama.LlamaConfig.emb_dim = 4096",
    ):
        assert f"\n{line}\n" in text, line


def test_no_shipped_file_is_left_out():
    shipped = {
        str(path.relative_to(gin_folder()).with_suffix("")) for path in gin_folder().rglob("*.gin")
    }
    assert shipped == {f"{folder}/{name}" for folder, names in COVERED.items() for name in names}


def test_the_prepared_pool_lies_where_the_command_line_puts_it(clean_gin):
    gin_internals.set_search_path([str(gin_folder())])
    clean_gin.parse_config_file("pools/niv2.gin")
    assert clean_gin.query_parameter("%DATA_DIR") == DEFAULT_DATA_DIR


def test_the_gin_folder_does_not_shadow_gin_config():
    assert not list(gin_folder().rglob("__init__.py"))
    command = [sys.executable, "-c", "import gin; print(gin.parse_config)"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.startswith("<function parse_config")
