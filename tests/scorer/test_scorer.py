"""The scorer: what it asks, of whom, and that chunks and crashes leave no trace."""

import dataclasses
import signal
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_experiment import tiny_experiment

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.models.checkpoints.checkpoints import open_checkpoint
from ait_jax.models.parameters import init_params
from ait_jax.models.t5 import T5Config, Transformer
from ait_jax.pool import TaskPool
from ait_jax.prompts.perturb import ExampleResampling, MCDropout, WordDrop, perturbed_instruction
from ait_jax.randomness import Key
from ait_jax.runtime import reporter
from ait_jax.scorer import asker, likelihoods
from ait_jax.scorer.asker import Asker
from ait_jax.scorer.batching import LengthBuckets
from ait_jax.scorer.chunk import split
from ait_jax.scorer.engine import Answers, Engine
from ait_jax.scorer.prompts_of_task import TaskPrompts, same_prompts, scoring_instances
from ait_jax.scorer.scorer import Scorer
from ait_jax.selection.uncertainty import task_scores


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    experiment = tiny_experiment(tmp_path_factory.mktemp("unused"))
    engine = Engine(experiment.model, experiment.partitioner, experiment.buckets, 1024)
    params = engine.place(init_params(experiment.model, 1)[0])
    return experiment, engine, params


@pytest.fixture(scope="module")
def trained(setting):
    """The same with the mini model's pre-trained weights, whose answers come to an end."""
    config = T5Config(
        vocab_size=4096,
        emb_dim=128,
        num_heads=4,
        num_encoder_layers=4,
        num_decoder_layers=3,
        head_dim=32,
        mlp_dim=384,
        mlp_activations=("gelu", "linear"),
        logits_via_embedding=True,
    )
    buckets = LengthBuckets(inputs=(128,), targets=(8, 16))
    engine = Engine(Transformer(config), setting[0].partitioner, buckets, 1024)
    return setting[0], engine, engine.place(open_checkpoint(assets.mini_weights()).load())


def count(setting, path, scorer=None, tasks=None, **options):
    """Scores four tasks and returns the counts."""
    experiment, engine, params = setting
    asking = Asker(
        engine,
        params,
        options.pop("pool", experiment.pool),
        experiment.vocabulary,
        experiment.encoding,
        seed=0,
    )
    return (scorer or experiment.scorer).score(
        asking, tasks or list(experiment.pool)[:4], path, round_index=1, **options
    )


def score(setting, path, *arguments, **options):
    count(setting, path, *arguments, **options)
    return likelihoods.read_rows(path)


def generated(path):
    return pq.read_table(path)[likelihoods.GENERATED].to_pylist()


def at_prompt(rows, *prompts):
    """Returns {(task, instance, prompt): log-likelihood} of some prompts."""
    keys = zip(rows["task"], rows["instance_id"], rows["prompt"], strict=True)
    return {
        key: v for key, v in zip(keys, rows["log_likelihood"], strict=True) if key[2] in prompts
    }


@pytest.fixture(scope="module")
def rows(setting, tmp_path_factory):
    return score(setting, tmp_path_factory.mktemp("scored") / "likelihoods.parquet")


def test_every_instance_is_scored_under_every_prompt(setting, rows):
    experiment, _, _ = setting
    keys = list(zip(rows["task"], rows["instance_id"], rows["prompt"], strict=True))
    expected = [
        (name, instance.id, j)
        for name in list(experiment.pool)[:4]
        for instance in scoring_instances(experiment.pool[name], 2, Key(0, 1))
        for j in range(3)
    ]
    assert keys == expected
    assert all(value <= 0 and np.isfinite(value) for value in rows["log_likelihood"])


def test_a_row_is_the_likelihood_of_the_answer_under_that_prompt(setting, rows):
    experiment, engine, params = setting
    vocabulary, encoding = experiment.vocabulary, experiment.encoding
    row = 5  # second instance, last perturbation
    task = experiment.pool[rows["task"][row]]
    instance = next(i for i in task.instances if i.id == rows["instance_id"][row])
    instruction = perturbed_instruction(task, experiment.scorer.perturbation, 2, Key(0, 1))
    text = encoding.encode(
        instruction, instance.input, vocabulary.count_tokens, vocabulary.truncate
    ).text
    prompt = vocabulary.encode_source(text, 128)
    target = [*vocabulary.encode(rows["answer"][row])[:7], 1]
    assert rows["num_prompt_tokens"][row] == len(prompt)
    assert rows["num_answer_tokens"][row] == len(target)
    value = engine.log_likelihoods(params, [prompt], [target])[0]
    assert rows["log_likelihood"][row] == pytest.approx(float(value), abs=1e-5)


def test_chunks_do_not_change_the_numbers(setting, rows, tmp_path):
    whole = Scorer(num_perturbations=2, num_instances=2)
    one = score(setting, tmp_path / "a.parquet", whole)
    for name in ("task", "instance_id", "prompt", "answer"):
        assert one[name] == rows[name]
    np.testing.assert_allclose(one["log_likelihood"], rows["log_likelihood"], atol=1e-5)


def test_a_damaged_or_foreign_chunk_is_scored_again(setting, rows, tmp_path, said):
    folder = tmp_path / "likelihoods.chunks"
    folder.mkdir()
    (folder / "chunk_00000.parquet").write_bytes(b"PAR1 cut short")
    assert score(setting, tmp_path / "likelihoods.parquet") == rows
    assert any("cannot be read as parquet" in line for line in said)
    assert not folder.exists()


def test_gold_answers_are_the_first_references(setting, tmp_path):
    experiment, _, _ = setting
    gold = Scorer(num_perturbations=1, num_instances=1, answers="gold")
    rows = score(setting, tmp_path / "gold.parquet", gold)
    for name, instance_id, answer in zip(
        rows["task"], rows["instance_id"], rows["answer"], strict=True
    ):
        instance = next(i for i in experiment.pool[name].instances if i.id == instance_id)
        assert answer == instance.outputs[0]


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="num_perturbations = 0"):
        Scorer(num_perturbations=0)
    with pytest.raises(UserError, match="answers = 'labels'"):
        Scorer(answers="labels")
    with pytest.raises(UserError, match="prompts_per_chunk = 0"):
        Scorer(prompts_per_chunk=0)


def test_a_chunk_is_the_shortest_run_of_tasks_with_enough_prompts():
    size_of = dict(zip("abcdefg", (3, 3, 3, 20, 1, 1, 1), strict=True))
    assert split("abcdefg", size_of.get, 6) == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    assert split("abcdefg", size_of.get, 1) == [[name] for name in "abcdefg"]
    assert split("", size_of.get, 6) == []


def test_p_i0_is_taken_from_the_decode(trained, tmp_path, monkeypatch):
    _experiment, engine, _params = trained
    engine.work.clear()
    counts = count(trained, tmp_path / "a.parquet")
    rows = likelihoods.read_rows(tmp_path / "a.parquet")
    assert 4 <= counts.from_decode <= 8 and counts.asked == len(rows["task"]) == 24
    passes = counts.asked - counts.from_decode - counts.identical
    assert engine.work.prompts == 8 + passes, "8 instances are decoded"

    decode = engine.decode

    def unknown(params, prompts):
        nothing = np.full(len(prompts), np.nan, np.float32)
        return decode(params, prompts)._replace(log_likelihoods=nothing)

    monkeypatch.setattr(engine, "decode", unknown)
    forced = count(trained, tmp_path / "b.parquet")
    assert forced.from_decode == 0
    again = likelihoods.read_rows(tmp_path / "b.parquet")
    assert again["answer"] == rows["answer"]
    np.testing.assert_allclose(again["log_likelihood"], rows["log_likelihood"], atol=1e-5, rtol=0)


def test_the_decodes_value_stands_only_for_the_very_same_ids(setting, monkeypatch):
    experiment, engine, params = setting
    vocabulary = experiment.vocabulary
    word = vocabulary.encode("yes, indeed")
    lost = [*word, vocabulary.sentinel(0)]  # a sentinel leaves no text
    cut = vocabulary.encode("one two three four five six seven eight nine ten")[:8]
    values = np.array([[-1, -2, -3, -4], [-1, -5, -6, -4]], np.float32)
    decoded = Answers([word, lost, cut, []], *values)
    monkeypatch.setattr(engine, "decode", lambda params, prompts: decoded)
    inputs = [(2, 1), (3, 1), (4, 1), (5, 1)]
    asking = Asker(engine, params, experiment.pool, vocabulary, experiment.encoding, seed=0)
    answered = asker.decode(asking, [0, 1, 2, 3, 0], inputs)
    np.testing.assert_array_equal(
        answered.log_likelihoods, np.array([-1, np.nan, -3, -4, -1], np.float32)
    )
    assert answered.targets[0] == (*word, 1) and answered.targets[3] == (1,)
    assert answered.targets[2] == (*cut[:7], 1)
    assert answered.texts[4] == "yes, indeed"
    assert answered.generated.tolist() == [-1, -5, -6, -4, -1]


def test_an_answer_cut_before_the_longest_target_is_scored_anew(setting, monkeypatch):
    experiment, engine, params = setting
    vocabulary, longest = experiment.vocabulary, engine.buckets.max_target_length
    words = vocabulary.encode("one two three four five six seven eight nine ten")
    ids = [words[: longest - 1], words[: longest - 2]]
    decoded = Answers(ids, np.array([-1, -2], np.float32))
    monkeypatch.setattr(engine, "decode", lambda params, prompts: decoded)
    shorter = dataclasses.replace(engine.buckets, answer=longest - 1)
    asking = Asker(engine, params, experiment.pool, vocabulary, experiment.encoding, seed=0)
    for buckets, known in ((engine.buckets, [-1, -2]), (shorter, [np.nan, -2])):
        monkeypatch.setattr(engine, "buckets", buckets)
        answered = asker.decode(asking, [0, 1], [(2, 1), (3, 1)])
        assert answered.targets == [(*i, 1) for i in ids]
        np.testing.assert_array_equal(answered.log_likelihoods, np.array(known, np.float32))


def test_perplexity_is_that_of_the_decoded_tokens(setting, tmp_path, monkeypatch):
    """A sentinel leaves no text: what is scored afterwards is another answer."""
    experiment, engine, _ = setting
    decode = engine.decode

    def odd(params, prompts):
        answers = decode(params, prompts)
        generated = -np.arange(1, len(prompts) + 1, dtype=np.float32) / 8
        lost = [[*ids[:2], experiment.vocabulary.sentinel(0)] for ids in answers.tokens]
        return Answers(lost, answers.log_likelihoods, generated)

    monkeypatch.setattr(engine, "decode", odd)
    path = tmp_path / "likelihoods.parquet"
    tasks = list(experiment.pool)[:2]
    count(setting, path, Scorer(num_perturbations=1, num_instances=2), tasks)
    assert generated(path) == [
        -1 / 8,
        None,
        -2 / 8,
        None,
        -3 / 8,
        None,
        -0.5,
        None,
    ]
    scores = task_scores(likelihoods.read_likelihoods(path))
    by_task = dict(zip(scores.tasks, scores.perplexity, strict=True))
    expected = [(np.exp(a / 8) + np.exp(b / 8)) / 2 for a, b in ((1, 2), (3, 4))]
    assert [by_task[name] for name in tasks] == pytest.approx(expected, rel=1e-12)
    gold = Scorer(num_perturbations=1, num_instances=2, answers="gold")
    count(setting, tmp_path / "gold.parquet", gold, tasks)
    assert generated(tmp_path / "gold.parquet") == [None] * 8


def twins(pool: TaskPool) -> TaskPool:
    """Two tasks that differ in name alone, and one whose instances are all alike."""
    first, _, third = (pool[name] for name in list(pool)[:3])
    same = [dataclasses.replace(i, input="the same") for i in third.instances]
    return TaskPool(
        [first, dataclasses.replace(first, name="twin"), dataclasses.replace(third, instances=same)]
    )


def test_identical_prompts_are_scored_once(trained, tmp_path):
    experiment, engine, _ = trained
    pool = twins(experiment.pool)
    everything = Scorer(WordDrop(rate=0.0), num_perturbations=3, num_instances=100)
    engine.work.clear()
    counts = count(trained, tmp_path / "a.parquet", everything, list(pool), pool=pool)
    rows = likelihoods.read_rows(tmp_path / "a.parquet")
    # Dropping nothing changes white space at most: 8 prompts of the twins and 1 of the third task.
    assert counts.asked == len(rows["task"]) == 3 * 8 * 4
    assert engine.work.prompts <= 9 + 2 * 9
    assert counts.identical == counts.asked - counts.from_decode - (engine.work.prompts - 9)
    values = at_prompt(rows, 0, 1, 2, 3)
    first = next(iter(pool))
    for (name, instance, j), value in values.items():
        if name == "twin":
            assert value == values[first, instance, j]
        if name == list(pool)[2]:
            assert value == values[name, rows["instance_id"][-1], j]


def test_prompts_scored_in_parts_are_those_scored_at_once(trained, tmp_path):
    scorer = Scorer(num_perturbations=4, num_instances=2, prompts_per_chunk=12)
    whole = score(trained, tmp_path / "whole.parquet", scorer)
    tasks = list(trained[0].pool)[:4]
    first = score(trained, tmp_path / "first.parquet", scorer, prompts=same_prompts(range(0, 2)))
    later = {}
    for number, prompts in enumerate([range(2, 3), range(3, 5)]):
        later[number] = score(
            trained,
            tmp_path / f"{number}.parquet",
            scorer,
            tasks[1:3],
            prompts=same_prompts(prompts),
            answers_from=tmp_path / "first.parquet",
        )
        assert list(dict.fromkeys(later[number]["task"])) == tasks[1:3]
        assert set(later[number]["prompt"]) == set(prompts)
    expected = at_prompt(whole, 0, 1, 2, 3, 4)
    found = at_prompt(first, 0, 1) | at_prompt(later[0], 2) | at_prompt(later[1], 3, 4)
    assert len(found) == 16 + 4 + 8
    np.testing.assert_allclose(
        list(found.values()), [expected[key] for key in found], atol=1e-5, rtol=0
    )
    assert set(later[1]["answer"]) <= set(whole["answer"])
    parts = [tmp_path / f"{name}.parquet" for name in ("first", 0, 1)]
    likelihoods.concatenate(parts, tmp_path / "all.parquet")
    table = likelihoods.read_likelihoods(tmp_path / "all.parquet")
    shape_of = {
        name: matrix.shape for name, matrix in zip(table.tasks, table.log_likelihoods, strict=True)
    }
    assert {shape_of[name] for name in tasks[1:3]} == {(2, 5)}
    assert {shape_of[name] for name in (tasks[0], tasks[3])} == {(2, 2)}


def test_a_later_part_equal_to_the_original_prompt_has_its_value(trained, tmp_path):
    scorer = Scorer(WordDrop(rate=0.0), num_perturbations=2, num_instances=2)
    first = score(trained, tmp_path / "a.parquet", scorer, prompts=same_prompts(range(0, 1)))
    trained[1].work.clear()
    later = score(
        trained,
        tmp_path / "b.parquet",
        scorer,
        prompts=same_prompts(range(1, 3)),
        answers_from=tmp_path / "a.parquet",
    )
    originals = at_prompt(first, 0)
    same = [v == originals[t, i, 0] for (t, i, _), v in at_prompt(later, 1, 2).items()]
    assert sum(same) == len(same) - 2 * trained[1].work.prompts and any(same)


def test_parts_that_do_not_fit_are_refused(setting, tmp_path):
    score(setting, tmp_path / "a.parquet", prompts=same_prompts(range(0, 1)))
    with pytest.raises(UserError, match="a.parquet has no answer for task"):
        count(
            setting,
            tmp_path / "b.parquet",
            tasks=list(setting[0].pool)[3:5],
            prompts=same_prompts(range(1, 2)),
            answers_from=tmp_path / "a.parquet",
        )


def test_a_chunk_of_other_prompts_is_scored_again(setting, rows, tmp_path):
    names = list(setting[0].pool)[:3]
    score(
        setting,
        tmp_path / "likelihoods.chunks" / "chunk_00000.parquet",
        tasks=names,
        prompts=same_prompts(range(0, 2)),
    )
    assert score(setting, tmp_path / "likelihoods.parquet") == rows


def test_a_whole_chunk_is_not_scored_again(setting, rows, tmp_path, said):
    class Stop(Exception):
        pass

    def stop(line):
        raise Stop

    path = tmp_path / "likelihoods.parquet"
    with pytest.raises(Stop), reporter.using(reporter.Reporter(line=stop)):
        count(setting, path)
    (part,) = (tmp_path / "likelihoods.chunks").iterdir()
    assert part.name == "chunk_00000.parquet", "what was scored is saved in spite of the error"
    counts = count(setting, path)
    assert counts.asked == 6
    assert said == [
        "3/4 tasks were scored before",
        "scored 4/4 tasks, 6 prompts "
        f"({counts.from_decode} taken from the decode, {counts.identical} identical)",
    ]
    assert likelihoods.read_rows(path) == rows


def broken(pool: TaskPool, name: str, error: Exception) -> TaskPool:
    """The pool with one task whose instances cannot be read."""

    class Unreadable(list):
        def __getitem__(self, index):
            raise error

    task = dataclasses.replace(pool[name], instances=Unreadable(pool[name].instances))
    return TaskPool([task if other == name else pool[other] for other in pool])


def test_an_error_in_the_preparing_thread_comes_as_it_is(setting, tmp_path):
    experiment = setting[0]
    last = list(experiment.pool)[3]
    error = UserError("instances.array_record is damaged")
    threads = threading.active_count()
    with pytest.raises(UserError) as caught:
        count(setting, tmp_path / "a.parquet", pool=broken(experiment.pool, last, error))
    assert caught.value is error and threading.active_count() == threads
    # The chunk before it is saved.
    assert [p.name for p in (tmp_path / "a.chunks").iterdir()] == ["chunk_00000.parquet"]


def test_ctrl_c_ends_the_threads(setting, tmp_path):
    score(setting, tmp_path / "first.parquet")  # the engine keeps a thread that compiles
    threads = set(threading.enumerate())
    # Python leaves the signal alone where the shell ignores it, as for jobs in the background.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupting = reporter.Reporter(line=lambda line: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), reporter.using(interrupting):
        count(setting, tmp_path / "a.parquet")
    signal.signal(signal.SIGINT, former)
    assert set(threading.enumerate()) <= threads, "those that it started have ended"


def test_tasks_without_instances_have_no_rows(setting, tmp_path):
    pool = setting[0].pool
    names = list(pool)[:2]
    empty = TaskPool([dataclasses.replace(pool[names[0]], instances=()), pool[names[1]]])
    rows = score(setting, tmp_path / "a.parquet", tasks=names, pool=empty)
    assert set(rows["task"]) == {names[1]}
    assert score(setting, tmp_path / "b.parquet", tasks=names[:1], pool=empty)["task"] == []


def test_scored_instances_are_not_shown_as_examples(setting):
    experiment = setting[0]
    pool, name = experiment.pool, next(iter(experiment.pool))
    prompts = TaskPrompts(
        pool,
        experiment.vocabulary,
        experiment.encoding,
        ExampleResampling(num_examples=2),
        4,
        Key(0, 0),
    )
    for instance, _, _, built in prompts.build(name, same_prompts(range(1, 9))):
        for tokens, _ in built:
            text = experiment.vocabulary.decode(tokens)
            assert text.count(f"Input: {instance.input}") <= 1


def test_one_reference_at_random(setting, tmp_path):
    """Stateless: of the instance, not of the tasks scored before it; the same for all prompts."""
    experiment = setting[0]
    tasks = list(experiment.pool)[:2]
    first = experiment.pool[tasks[0]]
    outputs = tuple(f"answer {i}" for i in range(5))
    instances = [dataclasses.replace(i, outputs=outputs) for i in first.instances]
    pool = TaskPool([dataclasses.replace(first, instances=instances), experiment.pool[tasks[1]]])
    scorer = Scorer(num_perturbations=2, num_instances=6, answers="random_gold")
    rows = score(setting, tmp_path / "a.parquet", scorer, tasks, pool=pool)
    again = score(setting, tmp_path / "b.parquet", scorer, tasks[::-1], pool=pool)
    places = (
        zip(*(r[c] for c in ("task", "instance_id", "answer")), strict=True) for r in (rows, again)
    )
    found, same = map(set, places)
    assert found == same and len(found) == 12  # one answer an instance
    assert len({answer for task, _, answer in found if task == tasks[0]}) >= 3


def test_resampled_examples_have_a_prompt_0_of_their_own(setting, tmp_path):
    """The answer is decoded under the task's own examples, p_i0 is under others."""
    experiment, engine, params = setting
    tasks = list(experiment.pool)[:2]
    plain = score(
        setting, tmp_path / "a.parquet", Scorer(num_perturbations=1, num_instances=2), tasks
    )
    resampling = Scorer(ExampleResampling(), num_perturbations=1, num_instances=2)
    rows = score(setting, tmp_path / "b.parquet", resampling, tasks)
    assert rows["answer"] == plain["answer"]
    assert generated(tmp_path / "a.parquet") == generated(tmp_path / "b.parquet")
    own, other = at_prompt(plain, 0), at_prompt(rows, 0)
    assert own.keys() == other.keys() and all(own[key] != other[key] for key in own)
    key = Key(0, 1)
    parts = (experiment.pool, experiment.vocabulary, experiment.encoding)
    prompts = TaskPrompts(*parts, ExampleResampling(), 2, key)
    asking = Asker(engine, params, *parts, seed=0)
    answers = dict(
        zip(zip(rows["task"], rows["instance_id"], strict=True), rows["answer"], strict=True)
    )
    for name in tasks:
        for instance, original, _, built in prompts.build(name, same_prompts([0, 1])):
            assert original.tokens not in [each.tokens for each in built]
            target = asking.target_of(answers[name, instance.id])
            value = engine.log_likelihoods(params, [built[0].tokens], [target])[0]
            assert other[name, instance.id, 0] == pytest.approx(value, abs=1e-5)


def test_mc_dropout_depends_on_its_keys_alone(setting, tmp_path):
    tasks = list(setting[0].pool)[:3]
    dropping = Scorer(MCDropout(0.3), num_perturbations=3, num_instances=2)
    rows = score(setting, tmp_path / "a.parquet", dropping, tasks)
    plain = score(setting, tmp_path / "b.parquet", Scorer(WordDrop(0.0), 3, 2), tasks)
    assert rows["answer"] == plain["answer"], "answers are decoded without dropout"
    assert rows["num_prompt_tokens"] == [n for n in at_prompt_lengths(plain) for _ in range(4)]
    values = at_prompt(rows, 0, 1, 2, 3)
    assert len(set(values.values())) == len(values), "every pass drops something else"
    # Other tasks, another order, other batches, chunks and prompts: the same draws.
    engine = Engine(
        setting[1].model, setting[1].partitioner, setting[1].buckets, 256, length_growth=2.0
    )
    few = dataclasses.replace(dropping, num_perturbations=2, prompts_per_chunk=1)
    other = score((setting[0], engine, setting[2]), tmp_path / "c.parquet", few, tasks[:0:-1])
    again = at_prompt(other, 0, 1, 2)
    assert len(again) == 12
    for key, value in again.items():
        assert value == pytest.approx(values[key], abs=1e-5)
    scores = task_scores(likelihoods.read_likelihoods(tmp_path / "a.parquet"))
    assert (scores.prompt_uncertainty > 0).all()


def at_prompt_lengths(rows):
    return [n for n, j in zip(rows["num_prompt_tokens"], rows["prompt"], strict=True) if j == 0]
