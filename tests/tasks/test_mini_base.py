"""The pre-training streams and the vocabulary: stateless, varied, apart from the built-in pool."""

import collections
import hashlib

import pytest
from ait_jax.tasks import mini, mini_base
from ait_jax.tasks.mini.generator import Draw
from ait_jax.tasks.mini_base import vocabulary
from ait_jax.tasks.mini_base.direct import DIRECT
from ait_jax.tasks.mini_base.induction import INDUCTION, class_labels_ruled, own_dictionary

COUNT = 3000
FAMILIES = {family.__name__ for family in (*INDUCTION, *DIRECT)}


@pytest.fixture(scope="module")
def passages():
    return [mini_base.text(0, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def examples():
    return [mini_base.task_example(0, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "mini.model"
    mini_base.train_vocabulary(path)
    return path


@pytest.fixture(scope="module")
def pieces(model_path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(model_path))


def test_passages_are_short_varied_english(passages):
    lengths = [len(passage.split()) for passage in passages]
    assert min(lengths) >= 10 and max(lengths) <= 60 and 20 <= sum(lengths) / COUNT <= 45
    assert len(set(passages)) > 0.95 * COUNT
    assert all(
        passage[0].isupper() or passage[0].isdigit() or passage[0] == '"' for passage in passages
    )
    assert (
        len({word.strip('.,?!"').lower() for passage in passages for word in passage.split()})
        > 1000
    )


def test_task_examples_are_varied_and_answered(examples):
    assert all(text.strip() and answer.strip() for text, answer in examples)
    assert len({text for text, _ in examples}) > 0.93 * COUNT
    assert max(len(text.split()) for text, _ in examples) <= 70
    most_common = collections.Counter(answer for _, answer in examples).most_common(1)[0][1]
    assert most_common < 0.05 * COUNT


def test_twenty_families_and_share_of_induction():
    assert len(FAMILIES) >= 20
    assert pytest.approx(0.4, abs=0.1) == mini_base.INDUCTION_SHARE
    for family in dict.fromkeys(INDUCTION):
        assert family.__doc__


def test_streams_are_stateless_and_seeded(passages, examples):
    assert mini_base.text(0, 17) == passages[17] and mini_base.task_example(0, 17) == examples[17]
    assert mini_base.text(1, 17) != passages[17] and mini_base.task_example(1, 17) != examples[17]
    digest = hashlib.sha256(
        "\n".join(passages[:200] + [" ".join(pair) for pair in examples[:200]]).encode()
    )
    assert digest.hexdigest()[:16] == "a71f52e61d6f2ce3"


def test_induction_examples_show_what_they_ask():
    """A rule names the label that is the answer; a dictionary has shown the word that is asked."""
    for index in range(200):
        text, answer = class_labels_ruled(Draw("ruled", index))
        assert (
            answer
            in text.replace("(", " ").split(".")[0].replace(",", " ").replace(";", " ").split()
        ), text
        text, answer = own_dictionary(Draw("dictionary", index))
        assert answer in text


def test_apart_from_the_pool(passages, examples):
    """No task name, definition, prompt layout or labeled input of the pool is in the streams."""
    tasks = mini.generate_tasks()
    rows = {row.name for _, row in mini.specs().values()}
    assert not rows & FAMILIES
    stream = "\n".join(passages + [f"{text} {answer}" for text, answer in examples])
    for layout in (
        "Definition:",
        "Positive Example",
        "Negative Example",
        "Now complete",
        "Input:",
        "Output:",
    ):
        assert layout not in stream
    for task in tasks:
        assert task.instruction.definition not in stream, task.name
        for sentence in task.instruction.definition.split(". "):
            assert len(sentence.split()) < 5 or sentence not in stream, (task.name, sentence)
    asked = {text for text, _ in examples}
    inputs = {instance.input for task in tasks for instance in task.instances}
    assert not asked & inputs


def test_corpus_covers_the_lexicon_and_is_apart_from_the_pool():
    lines = list(mini_base.corpus(num_generated=50))
    assert lines == list(mini_base.corpus(num_generated=50))
    prose = set(vocabulary.general_english())
    assert sum(line in prose for line in lines) > 300
    assert not {task.instruction.definition for task in mini.generate_tasks(4)} & set(lines)


def test_vocabulary_ids_and_size(pieces):
    assert pieces.vocab_size() == 3996
    assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id(), pieces.bos_id()) == (0, 1, 2, -1)


@pytest.mark.parametrize(
    "text",
    [
        "naïve café",
        "漢字とかな",
        "Привет, мир!",
        "🙂 ∑ ≠ ∞",
        "x_{i+1} = 3.14",
        "مرحبا",
        "ZWJ 👩‍👩‍👧",
    ],
)
def test_vocabulary_round_trips_unicode_by_bytes(pieces, text):
    ids = pieces.encode(text)
    assert pieces.unk_id() not in ids
    assert pieces.decode(ids) == text


def test_vocabulary_fits_generated_text_and_pool(pieces, passages):
    def tokens_per_word(texts):
        return sum(len(pieces.encode(text)) for text in texts) / sum(
            len(text.split()) for text in texts
        )

    assert tokens_per_word(passages[:500]) < 1.5
    instances = [instance.input for task in mini.generate_tasks(20) for instance in task.instances]
    assert tokens_per_word(instances) < 1.6


def test_vocabulary_is_deterministic_and_written_whole(model_path, tmp_path):
    mini_base.train_vocabulary(tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == model_path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.model"]
