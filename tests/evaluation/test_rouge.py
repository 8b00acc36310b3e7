# ruff: noqa: RUF001
"""ROUGE's ways to split texts: by hand, and against rouge_score and tokenizers used directly."""

import json
import random
import string

import hypothesis
import pytest
from hypothesis import strategies
from rouge_score import rouge_scorer, tokenize
from shared_data import SHARED, needs_shared
from tiny_llama import needs_tokenizers, write_tokenizer

from ait_jax.errors import UserError
from ait_jax.evaluation import answers, evaluation, judging, rouge
from ait_jax.evaluation.rewards import Reward

# Text -> its tokens.
UNICODE = {
    "पानी, दो गिलास।": ["पानी", "दो", "गिलास"],
    "水です。": ["水", "で", "す"],
    "Нет, СПАСИБО!": ["нет", "спасибо"],
    "SU İÇİN": ["su", "için"],
    "ＡＢＣ １２": ["abc", "12"],
    "한국어 문장": ["한국어", "문장"],
    "Tiếng Việt": ["tiếng", "việt"],
    "می\u200cخواهم": ["میخواهم"],
    "เย็น": ["เ", "ย็", "น"],
    "yes \U0001f44d": ["yes", "\U0001f44d"],
    "naïve running dogs": ["naïve", "run", "dog"],
    "3.5 don't a_b": ["3", "5", "don", "t", "a", "b"],
}
OTHER = {
    "hi": ["पानी"],
    "zh": ["水", "红酒"],
    "vi": ["Tiếng Việt là ngôn ngữ"],
    "emoji": ["\U0001f44d"],
}
LATIN = {
    "en": ["the naïve answer in the café of the corner costs 5 €"],
    "none": [],
    "marks": ["?", ""],
}


def test_other_scripts_by_hand():
    measure = rouge.rouge("unicode")
    for text, tokens in UNICODE.items():
        assert measure.tokenize(text) == tokens, text
        assert measure.scores(text, [text]) == {"rouge1": 1.0, "rougeL": 1.0}
    # 2 of 3 tokens in order, 3 of 3 in any.
    assert measure.scores("a 酒 水", ["水 酒 a"])["rougeL"] == pytest.approx(1 / 3)
    assert measure.scores("a 酒 水", ["水 酒 a"])["rouge1"] == 1.0


def test_of_ascii_they_are_the_librarys():
    from nltk.stem import porter

    generator = random.Random(0)
    stemmer = porter.PorterStemmer()
    for _ in range(300):
        text = "".join(generator.choices(string.printable + string.ascii_letters * 3, k=60))
        text += " running caresses ponies generalization_x"
        expected = tokenize.tokenize(text, stemmer)
        assert rouge.rouge("unicode").tokenize(text) == expected
        assert rouge.rouge("english").tokenize(text) == expected


@hypothesis.settings(max_examples=300, derandomize=True, deadline=None)
@hypothesis.given(strategies.text(max_size=30))
def test_any_right_answer_with_letters_has_rouge_1(text):
    measure = rouge.rouge("unicode")
    tokens = measure.tokenize(text)
    assert tokens or not any(character.isalnum() for character in text)
    assert measure.scores(text, [text])["rougeL"] == float(bool(tokens))
    assert all(token and not token.isspace() for token in tokens)


def test_rouge_1_is_the_librarys():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    generator = random.Random(1)
    words = "the cats running quickly Run ran 3.5 don't (ponies) —".split()
    differ = 0
    for _ in range(200):
        texts = [" ".join(generator.choices(words, k=generator.randint(0, 9))) for _ in range(3)]
        found = rouge.rouge("english").scores(texts[0], texts[1:])
        for name, value in found.items():
            pairs = [scorer.score(target=t, prediction=texts[0])[name] for t in texts[1:]]
            assert value == max(pair.fmeasure for pair in pairs)
        differ += found["rouge1"] != found["rougeL"]
    assert differ > 50
    assert rouge.rouge("english").scores("b a", ["a b"]) == {"rouge1": 1.0, "rougeL": 0.5}


def test_the_references_scripts_decide():
    assert rouge.other_scripts(OTHER | LATIN) == list(OTHER)
    assert rouge.chosen("auto", LATIN).name == rouge.chosen("english", OTHER).name == "english"
    assert rouge.chosen("auto", LATIN | OTHER).name == rouge.chosen("unicode", {}).name == "unicode"
    assert rouge.describe(rouge.rouge("unicode"), LATIN) == ""
    line = rouge.describe(rouge.chosen("auto", OTHER), LATIN | OTHER)
    assert "4 of 7 tasks have references in other scripts, such as hi" in line
    assert "Unicode" in line and "ROUGE_TOKENIZER" in line and "\n" not in line
    assert "right answers can have ROUGE-L 0" in rouge.describe(rouge.rouge("english"), OTHER)


def test_evaluation_names_its_tokenizer():
    items = [evaluation.Prediction("a", str(i), text, (text,)) for i, text in enumerate("水酒x")]
    of_all = evaluation.evaluate(items, lambda task: False, lambda task: "c")
    assert (of_all["rougeL"], of_all["rouge1"], of_all["rouge_tokenizer"]) == (100, 100, "unicode")
    english = rouge.rouge("english")
    of_all = evaluation.evaluate(items, lambda task: False, lambda task: "c", english)
    assert (of_all["rougeL"], of_all["rouge_tokenizer"]) == (33.3333, "english")
    # One for all splits, although "dev" alone would be English.
    items.append(evaluation.Prediction("b", "0", "yes", ("yes",)))
    splits = evaluation.evaluate_splits(
        items, {"test": "a", "dev": "b"}, lambda task: False, lambda task: "c"
    )
    assert {split["rouge_tokenizer"] for split in splits.values()} == {"unicode"}


def test_rewards_read_other_scripts():
    assert Reward("rougeL", None)("水", ["水"]) == 1.0 and Reward()("нет", ["да"]) == 0.0


@needs_tokenizers
def test_a_folder_splits_as_tk_instructs_cross_lingual_track(tmp_path):
    from tokenizers import Tokenizer

    write_tokenizer(tmp_path)
    measure = rouge.rouge(str(tmp_path))
    assert measure.name.startswith(f"{tmp_path.name} (") and measure.name != "english"
    assert rouge.rouge(str(tmp_path / "tokenizer.json")).name == measure.name
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    class Gpt:  # compute_metrics.py: no stemming, no lower case, without the marks of spaces
        def tokenize(self, text):
            return [token.lstrip("Ġ") for token in theirs.encode(text).tokens]

    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=Gpt())
    for answer, reference in [("पानी", "पानी"), ("the Cat ran", "a cat  ran"), ("水 酒", "酒 水")]:
        expected = scorer.score(target=reference, prediction=answer)
        found = measure.scores(answer, [reference])
        assert found == {name: score.fmeasure for name, score in expected.items()}
    assert rouge.chosen(str(tmp_path), LATIN).name == measure.name
    assert measure.name in rouge.describe(measure, OTHER)


@needs_tokenizers
def test_wrong_choices_are_named(tmp_path):
    with pytest.raises(UserError, match="ROUGE_TOKENIZER = 'gpt2' is not 'auto'.*no gpt2/tok"):
        rouge.rouge("gpt2")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: tokenizers cannot read it"):
        rouge.rouge(str(tmp_path))


def judged(folder, rows, capsys, **options):
    for name in "ab":
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    given = answers.Files(folder / "a.jsonl", folder / "b.jsonl")
    return judging.compare(given, None, folder / "out.json", **options), capsys.readouterr().out


def test_judge_reads_other_scripts_and_says_so(tmp_path, capsys):
    rows = [
        {"instruction": text, "input": "", "response": text, "target": text} for text in UNICODE
    ]
    result, said = judged(tmp_path, rows, capsys)
    assert result["rouge"]["a"]["rougeL"] == 100 and result["rouge_tokenizer"] == "unicode"
    assert "instructions have references in other scripts" in said
    result, said = judged(tmp_path, rows, capsys, rouge_tokenizer="english")
    assert result["rouge"]["a"]["rougeL"] < 60 and "right answers can have ROUGE-L 0" in said


@needs_shared
def test_the_reported_answers(tmp_path, capsys):
    cases = SHARED / "cases" / "bug_reports" / "non_latin"
    given = answers.Files(cases / "a.jsonl", cases / "b.jsonl")
    result = judging.compare(given, None, tmp_path / "out.json")
    # Exact match is Tk-Instruct's: ASCII punctuation, and no rule for a dotted capital i.
    assert result["rouge"]["a"] == {"rougeL": 100, "rouge1": 100, "exact_match": 60}
    assert (
        "3 of 5 instructions have references in other scripts, such as 1 ('Translate to H"
        in capsys.readouterr().out
    )
