"""SeqIO tasks and mixtures: the same prompts and tokens as the loop's, in a stable order."""

import itertools
import math
import os
import subprocess
import sys
import textwrap

import pytest
from ait_jax.tasks import registry

from ait_jax.errors import UserError
from ait_jax.pool import Example, Instance, Instruction, Splits, Task, TaskPool
from ait_jax.prompts.prompts import AlpacaEncoding, TkInstructEncoding
from ait_jax.prompts.vocabulary import EOS_ID, Vocabulary

seqio = pytest.importorskip("seqio")

DOTTED = "task1529_scitail1.1_classification"
LENGTHS = {"inputs": 64, "targets": 8}


@pytest.fixture(scope="module")
def vocabulary_path(tmp_path_factory):
    import sentencepiece

    directory = tmp_path_factory.mktemp("vocabulary")
    words = [
        "definition",
        "positive",
        "example",
        "input",
        "output",
        "answer",
        "now",
        "complete",
        "following",
    ]
    text = "\n".join(" ".join(words[i % 9 :] + words[: i % 9] + [str(i)]) for i in range(200))
    (directory / "text").write_text(text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "text"),
        model_prefix=str(directory / "model"),
        vocab_size=300,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return str(directory / "model.model")


def make_task(name: str, num_instances: int) -> Task:
    return Task(
        name=name,
        instruction=Instruction(
            f"Answer the question of {name}",
            (Example("one", "two"), Example("three", "four", "because")),
        ),
        instances=tuple(
            Instance(
                f"{name}-{i}", f"question {i}", tuple(f"answer {i} {j}" for j in range(1 + i % 4))
            )
            for i in range(num_instances)
        ),
    )


@pytest.fixture(scope="module")
def pool():
    tasks = [make_task("task001_a", 130), make_task(DOTTED, 12), make_task("task003_c", 30)]
    splits = Splits(remain=("task001_a", "task003_c", "task999_elsewhere"), test=(DOTTED,))
    return TaskPool(tasks, name="niv2", splits=splits)


@pytest.fixture(scope="module")
def registered(pool, vocabulary_path):
    return registry.register(pool, vocabulary=vocabulary_path)


def elements(
    name: str, split: str = "train", count: int | None = None, lengths=LENGTHS, **options
) -> list[dict]:
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        sequence_length=lengths, split=split, **options
    )
    return list((dataset if count is None else dataset.take(count)).as_numpy_iterator())


def ids(rows: list[dict]) -> list[str]:
    return [row["id"].decode() for row in rows]


def test_names(registered):
    assert registered.task_names[DOTTED] == "niv2_task1529_scitail1_1_classification"
    assert registered.mixtures == ("niv2_default_train", "niv2_default_test")
    train = {task.name for task in seqio.get_mixture_or_task("niv2_default_train").tasks}
    assert train == {"niv2_task001_a", "niv2_task003_c"}


def test_prompts_and_tokens_are_the_loops_own(registered, pool, vocabulary_path):
    vocabulary = Vocabulary(vocabulary_path)
    for length in (64, 200):
        encoding = TkInstructEncoding(max_source_length=length)
        rows = elements(
            registered.task_names[DOTTED],
            "test",
            lengths={"inputs": length, "targets": 8},
            shuffle=False,
        )
        assert len(rows) == 12
        for row, instance in zip(rows, pool[DOTTED].instances, strict=True):
            prompt = encoding.encode(
                pool[DOTTED].instruction,
                instance.input,
                vocabulary.count_tokens,
                vocabulary.truncate,
            )
            assert row["inputs_pretokenized"].decode() == prompt.text
            assert row["inputs"].tolist() == vocabulary.encode_source(prompt.text, length)
            assert row["targets_pretokenized"].decode() == instance.outputs[0]
            assert [r.decode() for r in row["references"]] == list(instance.outputs)
            assert len(row["targets"]) <= 8 and row["targets"][-1] == EOS_ID


def test_tokens_equal_seqios_own_preprocessors(registered, vocabulary_path):
    import tensorflow as tf

    task = seqio.get_mixture_or_task(registered.task_names["task003_c"])
    rows = elements(task.name, "test", shuffle=False)
    texts = tf.data.Dataset.from_tensor_slices(
        {key: [row[f"{key}_pretokenized"] for row in rows] for key in ("inputs", "targets")}
    )
    tokens = seqio.preprocessors.tokenize(texts, task.output_features, copy_pretokenized=False)
    tokens = seqio.preprocessors.append_eos_after_trim(tokens, task.output_features, LENGTHS)
    for ours, theirs in zip(rows, tokens.as_numpy_iterator(), strict=True):
        assert ours["inputs"].tolist() == theirs["inputs"].tolist()
        assert ours["targets"].tolist() == theirs["targets"].tolist()


def test_without_lengths_nothing_is_cut(registered, vocabulary_path):
    row = elements(registered.task_names[DOTTED], "test", 1, lengths=None, shuffle=False)[0]
    vocabulary = Vocabulary(vocabulary_path)
    assert "Positive Example 2" in row["inputs_pretokenized"].decode()
    assert row["inputs"].tolist() == [
        *vocabulary.encode(row["inputs_pretokenized"].decode()),
        EOS_ID,
    ]


def test_splits_and_their_sizes(registered):
    name = registered.task_names["task001_a"]
    task = seqio.get_mixture_or_task(name)
    assert {split: task.num_input_examples(split) for split in task.splits} == {
        "train": 130,
        "validation": 100,
        "test": 100,
    }
    assert ids(elements(name, "test", shuffle=False)) == [f"task001_a-{i}" for i in range(100)]
    assert sorted(ids(elements(name, shuffle=True, seed=1))) == sorted(
        f"task001_a-{i}" for i in range(130)
    )


def test_order_depends_on_the_seed_alone(registered):
    name = registered.task_names["task001_a"]
    first = ids(elements(name, seed=0))
    assert first == ids(elements(name, seed=0)) and first != ids(elements(name, seed=1))
    assert ids(elements(name, seed=None)) == ids(elements(name, seed=None))
    two_epochs = ids(elements(name, seed=0, num_epochs=2))
    assert (
        two_epochs[:130] == first
        and sorted(two_epochs[130:]) == sorted(first)
        and two_epochs[130:] != first
    )


def test_mixture_is_stable_and_every_instance_equally_likely(registered):
    rows = elements("niv2_default_train", count=320, seed=0, num_epochs=None)
    again = elements("niv2_default_train", count=320, seed=0, num_epochs=None)
    assert [r["inputs"].tolist() for r in rows] == [r["inputs"].tolist() for r in again]
    rates = seqio.get_mixture_or_task("niv2_default_train").rate_per_task_name
    assert dict(rates) == {"niv2_task001_a": 130, "niv2_task003_c": 30}
    assert set(rows[0]) == {"inputs", "targets"}


def test_hosts_share_a_split_without_overlap(registered):
    name = registered.task_names["task001_a"]
    shards = [
        ids(elements(name, seed=0, shard_info=seqio.ShardInfo(index=i, num_shards=3)))
        for i in range(3)
    ]
    assert [len(shard) for shard in shards] == [44, 43, 43]
    assert sorted(itertools.chain(*shards)) == sorted(f"task001_a-{i}" for i in range(130))


def test_training_targets_vary_over_references_but_not_over_runs(registered, pool):
    name = registered.task_names["task001_a"]
    targets = {
        row["id"].decode(): row["targets_pretokenized"].decode() for row in elements(name, seed=0)
    }
    assert targets == {
        row["id"].decode(): row["targets_pretokenized"].decode() for row in elements(name, seed=5)
    }
    chosen = [i.outputs.index(targets[i.id]) for i in pool["task001_a"].instances]
    assert {0, 1, 2, 3} == set(chosen)


def test_instance_splits(pool, vocabulary_path):
    splits = registry.InstanceSplits(
        first_train_instance=25, max_train_instances=10, num_test_instances=5
    )
    made = registry.register(pool, "cut", vocabulary=vocabulary_path, splits=splits)
    assert made.mixtures == ("cut_default_train", "cut_default_test")
    train = elements(made.task_names["task001_a"], seed=0)
    assert len(train) == 10 and all(int(i.split("-")[1]) >= 25 for i in ids(train))
    assert "train" not in seqio.get_mixture_or_task(made.task_names[DOTTED]).splits
    assert len(elements(made.task_names["task003_c"], seed=0)) == 5
    with pytest.raises(UserError, match="InstanceSplits.max_train_instances is 0"):
        registry.InstanceSplits(max_train_instances=0)


def test_metrics_use_all_references(registered):
    task = seqio.get_mixture_or_task(registered.task_names["task003_c"])
    rows = elements(task.name, "test", 2, shuffle=False)
    targets = [task.postprocess_fn("unused", example=row, is_target=True) for row in rows]
    assert targets == [["answer 0 0"], ["answer 1 0", "answer 1 1"]]
    answers = [
        task.postprocess_fn(a, example=row, is_target=False)
        for a, row in zip(["no", "Answer 1 1!"], rows, strict=True)
    ]
    scores = {}
    for metric in task.metric_fns:
        scores.update(metric(targets, answers))
    assert scores == {"rougeL": 50.0, "exact_match": 50.0}


def test_seqio_evaluator_runs_on_a_mixture(registered):
    evaluator = seqio.Evaluator(
        "niv2_default_test",
        seqio.EncDecFeatureConverter(pack=False),
        eval_split="test",
        sequence_length=LENGTHS,
    )
    vocabulary = evaluator.eval_tasks[0].output_features["targets"].vocabulary

    def predict(dataset):
        # A model that knows half of the answers. As a model's, its outputs are of one length.
        answers = [f"answer {i} 0" if i % 2 else "?" for i, _ in dataset.as_numpy_iterator()]
        tokens = [[*vocabulary.encode(answer), EOS_ID] for answer in answers]
        return [(i, ids + [0] * (40 - len(ids))) for i, ids in enumerate(tokens)]

    metrics, _ = evaluator.evaluate(compute_metrics=True, step=0, predict_fn=predict, score_fn=None)
    scores = metrics.result()["niv2_task1529_scitail1_1_classification"]
    assert {name: float(getattr(value, "value", value)) for name, value in scores.items()} == {
        "rougeL": 50.0,
        "exact_match": 50.0,
    }


def test_a_rounds_selection_as_a_mixture(registered):
    assert registry.add_mixture("round_001", ["task003_c", DOTTED], registered) == (
        "niv2_task003_c",
        "niv2_task1529_scitail1_1_classification",
    )
    registry.add_mixture("round_001", ["task003_c"], registered)
    assert len(seqio.get_mixture_or_task("round_001").tasks) == 1
    with pytest.raises(UserError, match="Did you mean 'task003_c'"):
        registry.add_mixture("round_002", ["task003_d"], registered)


def test_registering_again_replaces(pool, vocabulary_path):
    registry.register(pool, "again", vocabulary=vocabulary_path)
    same = seqio.SentencePieceVocabulary(vocabulary_path, 100)
    made = registry.register(TaskPool([pool["task003_c"]]), "again", vocabulary=same)
    assert list(made.task_names) == ["task003_c"]
    assert "again_task001_a" not in seqio.TaskRegistry.names()
    assert "again_default_test" not in seqio.MixtureRegistry.names()


def test_of_a_large_pool_every_selection_is_one_seqio_task(pool, vocabulary_path):
    encoding = AlpacaEncoding(200)
    options = {"vocabulary": vocabulary_path, "encoding": encoding, "max_seqio_tasks": 2}
    made = registry.register(pool, "large", **options)
    assert made.task_names == {} and made.mixtures == ("large_default_train", "large_default_test")
    assert {n for n in seqio.TaskRegistry.names() if n.startswith("large_")} == set(made.mixtures)
    assert not any(n.startswith("large_") for n in seqio.MixtureRegistry.names())
    train = seqio.get_mixture_or_task("large_default_train")
    assert {s: train.num_input_examples(s) for s in train.splits} == {
        "train": 160,
        "validation": 130,
        "test": 130,
    }
    rows = elements("large_default_train", lengths={"inputs": 200, "targets": 8}, seed=0)
    expected = {
        i.id: (name, i) for name in ("task001_a", "task003_c") for i in pool[name].instances
    }
    assert sorted(ids(rows)) == sorted(expected) and ids(rows) != sorted(ids(rows))
    vocabulary = Vocabulary(vocabulary_path)
    for row in rows:
        name, instance = expected[row["id"].decode()]
        prompt = encoding.encode(
            pool[name].instruction, instance.input, vocabulary.count_tokens, vocabulary.truncate
        )
        assert row["task"].decode() == name and row["inputs_pretokenized"].decode() == prompt.text
        assert row["targets_pretokenized"].decode() in instance.outputs
    again = elements("large_default_train", lengths={"inputs": 200, "targets": 8}, seed=0)
    assert ids(again) == ids(rows)
    assert registry.add_mixture("round_001", ["task003_c", DOTTED], made) == ("round_001",)
    assert len(elements("round_001")) == 42
    with pytest.raises(UserError, match="Did you mean 'task003_c'"):
        registry.add_mixture("round_002", ["task003_d"], made)
    registry.register(pool, "large", vocabulary=vocabulary_path)
    assert "large_default_train" in seqio.MixtureRegistry.names()
    assert "large_default_train" not in seqio.TaskRegistry.names()


def test_instances_without_references_are_not_measured(vocabulary_path):
    open_task = Task(
        "open", Instruction("Write."), (Instance("1", "", ()), Instance("2", "", ("a",)))
    )
    made = registry.register(TaskPool([open_task]), "open", vocabulary=vocabulary_path)
    task = seqio.get_mixture_or_task(made.task_names["open"])
    rows = elements(task.name, "test", shuffle=False)
    targets = [task.postprocess_fn("", example=row, is_target=True) for row in rows]
    assert targets == [[], ["a"]] and rows[0]["targets_pretokenized"] == b""
    assert task.metric_fns[1](targets, ["x", "a"]) == {"exact_match": 100.0}
    assert math.isnan(task.metric_fns[1](targets[:1], ["x"])["exact_match"])


def test_vocabulary_errors(pool, tmp_path):
    with pytest.raises(UserError, match="VOCABULARY_PATH"):
        registry.register(pool, vocabulary=None)
    with pytest.raises(UserError, match="VOCABULARY_PATH"):
        registry.register(pool, vocabulary=tmp_path / "none.model")


def test_register_niv2_from_gin_and_from_the_environment(tmp_path, vocabulary_path):
    from test_niv2 import write_clone

    import gin

    clone = write_clone(tmp_path / "clone")
    with gin.unlock_config():
        gin.clear_config()
        gin.parse_config(
            f"""
            from __gin__ import dynamic_registration
            from ait_jax.tasks import registry
            MIXTURE = @registry.register_niv2()
            registry.register_niv2.mixture = "niv2_default_test"
            registry.register_niv2.data_dir = "{tmp_path / "data"}"
            registry.register_niv2.source = "{clone}"
            registry.register_niv2.vocabulary = "{vocabulary_path}"
            """
        )
        reference = gin.query_parameter("MIXTURE/gin.macro.value")
        assert reference.scoped_configurable_fn() == "niv2_default_test"
        gin.clear_config()
    assert "niv2_task1529_scitail1_1_classification" in seqio.TaskRegistry.names()
    arguments = dict(data_dir=tmp_path / "data", source=clone, vocabulary=vocabulary_path)
    assert registry.register_niv2("niv2_default_test", **arguments) == "niv2_default_test"
    first = seqio.get_mixture_or_task("niv2_default_test")
    registry.register_niv2(**arguments)
    assert seqio.get_mixture_or_task("niv2_default_test") is first
    with pytest.raises(UserError, match="Did you mean 'niv2_default_train'"):
        registry.register_niv2("niv2_default_trian", **arguments)
    with pytest.raises(UserError, match="AIT_JAX_DATA_DIR"):
        registry.register_niv2(vocabulary=vocabulary_path)

    # As T5X does it: SeqIO first, then `import ait_jax.tasks`.
    code = """
        import seqio
        import ait_jax.tasks
        dataset = seqio.get_mixture_or_task("niv2_default_train").get_dataset(
            sequence_length={"inputs": 64, "targets": 16}, split="train", shuffle=True, seed=0)
        print(sorted(next(dataset.as_numpy_iterator())))
    """
    variables = {
        "AIT_JAX_DATA_DIR": str(tmp_path / "data"),
        "AIT_JAX_VOCABULARY_PATH": vocabulary_path,
    }
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert output.returncode == 0, output.stderr
    assert output.stdout.endswith("['inputs', 'targets']\n")
