"""Tasks without any model."""

import pytest
from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.proposal import ProposalFilter
from ait_jax.tasks.grow.templates import MAX_TASKS, propose

NLI = ("entailment", "neutral", "contradiction")


def fields(*names, **labels):
    made = [Field(name, "text") for name in names]
    for name, values in labels.items():
        kind = values if isinstance(values, str) else "label"
        made.append(Field(name, kind, () if isinstance(values, str) else values))
    return tuple(made)


def tasks(*names, description="", name="d", **labels):
    """Returns (category, inputs, output) -> instruction."""
    dataset = Dataset(name, "s", description=description, fields=fields(*names, **labels))
    made = propose(dataset)
    seen = ProposalFilter()
    assert all(seen.rejection(proposal, dataset) == "" for proposal in made)
    return {(p.category, p.input_fields, p.output_field[0]): p.instruction for p in made}


@pytest.mark.parametrize(
    "made,expected",
    [
        (
            tasks("premise", "hypothesis", label=NLI),
            {
                ("Textual Entailment", ("premise", "hypothesis"), "label"),
                ("Sentence Composition", ("premise", "label"), "hypothesis"),
            },
        ),
        (
            tasks("context", "question", "answer", "id"),
            {
                ("Question Answering", ("context", "question"), "answer"),
                ("Question Generation", ("context", "answer"), "question"),
            },
        ),
        (
            tasks("question", "answer", choices="texts"),
            {
                ("Question Answering", ("question", "choices"), "answer"),
                ("Question Generation", ("answer",), "question"),
            },
        ),
        (
            tasks("passage", "question", answer="boolean"),
            {
                ("Question Answering", ("passage", "question"), "answer"),
                ("Question Generation", ("passage",), "question"),
            },
        ),
        (
            tasks("article", "highlights", "title"),
            {
                ("Summarization", ("article",), "highlights"),
                ("Title Generation", ("article",), "title"),
            },
        ),
        (
            tasks("text", label=("negative", "positive")),
            {
                ("Classification", ("text",), "label"),
                ("Text Generation", ("label",), "text"),
            },
        ),
        (
            tasks("sentence1", "sentence2", label=NLI),
            {("Classification", ("sentence1", "sentence2"), "label")},
        ),
        (tasks("target", concepts="texts"), {("Text Generation", ("concepts",), "target")}),
        (tasks("en", "de"), {("Translation", ("en",), "de"), ("Translation", ("de",), "en")}),
        (
            tasks("sentence_good", "sentence_bad"),
            {("Grammar Error Correction", ("sentence_bad",), "sentence_good")},
        ),
        (
            tasks("normal_sentence", "simple_sentence"),
            {("Text Rewriting", ("normal_sentence",), "simple_sentence")},
        ),
        (tasks("prompt", "completion"), {("Text Generation", ("prompt",), "completion")}),
        (tasks("colour", "zip_code"), set()),
        (tasks("text"), set()),
    ],
)  # fmt: skip
def test_patterns(made, expected):
    assert set(made) == expected


def test_the_words_are_plain_english():
    for text in tasks("text", label=("negative", "positive"), name="reviews").values():
        assert "sentiment" in text and text.endswith(".")
    (to_german, to_english) = tasks("en", "de").values()
    assert "German" in to_german and "English" in to_english
    assert "highlights" in next(iter(tasks("article", "highlights").values()))
    assert "a highlights" not in " ".join(tasks("article", "highlights").values())
    quoted = tasks("text", odd=("a", "b"))
    assert 'value of "odd"' in next(iter(quoted.values()))


def test_wordings_vary_over_datasets_but_not_from_run_to_run():
    wordings = {tasks("document", "summary", name=f"d{i}").popitem()[1] for i in range(20)}
    assert len(wordings) > 1
    assert tasks("document", "summary") == tasks("document", "summary")


def test_columns_that_say_nothing_need_a_description():
    assert tasks("input", "output") == {}
    assert tasks("input", "output", description="Sums (v2 subset).") == {}
    told = tasks("input", "output", description="This set has sums of two numbers in words. More.")
    (instruction,) = told.values()
    assert instruction.startswith("This set has sums of two numbers in words. ")


def test_a_table_of_numbers_and_classes():
    made = tasks(age="number", fare="number", kind=("x", "y"))
    assert list(made) == [("Classification", ("age", "fare"), "kind")]


def test_there_are_never_too_many():
    flags = {f"flag_{i}": "boolean" for i in range(20)}
    labels = {f"topic{i}": ("a", "b") for i in range(20)}
    made = propose(Dataset("d", "s", fields=fields("text", "title", "summary", **flags, **labels)))
    assert len(made) == MAX_TASKS
