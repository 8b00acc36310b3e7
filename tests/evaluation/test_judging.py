"""Pairwise judging: both orders, ties, intervals, what is not judged; over HTTP and by hand."""

import json
import math

import numpy as np
import pytest
import stand_in_judge
from misbehaving_endpoint import closed, says, status
from shared_data import SHARED, needs_shared
from tiny_endpoint import connect, server  # noqa: F401

from ait_jax.endpoint.chat import Reply
from ait_jax.endpoint.endpoint import Prices
from ait_jax.errors import UserError
from ait_jax.evaluation import answers, evaluation, judging
from ait_jax.evaluation.answers import Pair, Question
from ait_jax.evaluation.judging import Judged

DATA = SHARED / "data" / "self-instruct"
PREDICTIONS = DATA / "predictions"


def pair(i, a, b):
    return Pair(Question(f"instruction {i}", ""), a, b, ("r",))


class Judge:
    """In place of an endpoint: `verdict(first, second)` is its answer's text or a Reply."""

    temperature = 0.0

    def __init__(self, verdict):
        self.verdict = verdict
        self.asked = []

    def ask(self, conversations, max_tokens, description):
        self.asked += conversations
        made = [self.verdict(*stand_in_judge.read({"messages": c})) for c in conversations]
        return [Reply(text) if isinstance(text, str) else text for text in made]


def longer(first, second):
    if len(first) == len(second):
        return "TIE"
    return "FIRST" if len(first) > len(second) else "SECOND"


@pytest.mark.parametrize(
    ("verdict", "outcome", "note"),
    [
        (longer, "win", ""),
        (lambda first, second: longer(second, first), "lose", ""),
        (lambda first, second: "tie", "tie", ""),
        (lambda first, second: "FIRST", "tie", "orders disagree"),
        (lambda first, second: "SECOND", "tie", "orders disagree"),
        (lambda first, second: "TIE" if first == "long" else "FIRST", "tie", "orders disagree"),
        (lambda first, second: "Both?" if first == "long" else "FIRST", "unparsable", "Both?"),
        (lambda first, second: Reply(None, "HTTP 500: no"), "failed", "HTTP 500: no"),
        (
            lambda first, second: Reply(None, "budget") if first == "long" else "FIRST",
            "not asked",
            "",
        ),
    ],
)
def test_outcome_of_a_pair(verdict, outcome, note):
    (item,) = judging.judge([pair(0, "long", "s")], Judge(verdict), seed=0)
    assert (item.outcome, item.note) == (outcome, note)


def test_each_pair_is_asked_in_both_orders_and_equal_answers_not_at_all():
    judge = Judge(longer)
    pairs = [pair(i, "a" * (1 + i % 3), "bb") for i in range(20)] + [pair(20, " same", "same\n")]
    judged = judging.judge(pairs, judge, seed=0)
    assert [item.pair for item in judged] == pairs and judged[-1].note == "identical"
    assert [item.outcome for item in judged[:3]] == ["lose", "tie", "win"]
    read = [stand_in_judge.read({"messages": c}) for c in judge.asked]
    assert len(read) == 40
    assert all(one == (two[1], two[0]) for one, two in zip(read[::2], read[1::2], strict=True))
    a_first = sum(first.startswith("a") for first, _ in read[::2])
    assert 3 < a_first < 17  # drawn, not always the same


def test_verdicts_do_not_depend_on_the_seed_and_requests_are_the_same():
    pairs = [pair(i, "a" * (1 + i % 5), "bb") for i in range(12)]
    first, second = Judge(longer), Judge(longer)
    assert judging.judge(pairs, first, seed=0) == judging.judge(pairs, second, seed=1)
    assert first.asked != second.asked
    assert sorted(map(str, first.asked)) == sorted(map(str, second.asked))


def test_wilson_interval():
    """Solves the definition, |p - share| = z sqrt(p (1 - p) / n), at both ends."""
    for count, total in ((0, 10), (3, 10), (126, 252), (252, 252)):
        for end in judging.wilson(count, total):
            error = abs(end - count / total)
            assert error == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), abs=1e-6)
    assert judging.wilson(0, 10)[0] == 0 and judging.wilson(10, 10)[1] == pytest.approx(1)


def test_bootstrap_is_that_of_resampled_instructions_and_is_seeded():
    outcomes = np.repeat([1, 0, -1], [60, 30, 40])
    draws = np.random.default_rng(5).choice(outcomes, size=(4000, len(outcomes))).mean(axis=1)
    expected = np.percentile(draws, [2.5, 97.5])
    got = judging.bootstrap_difference(60, 30, 40, seed=0)
    np.testing.assert_allclose(got, expected, atol=0.012)
    assert got == judging.bootstrap_difference(60, 30, 40, seed=0)
    assert len({judging.bootstrap_difference(60, 30, 40, seed) for seed in range(9)}) > 1


def test_sign_test():
    assert judging.sign_test(0, 5) == pytest.approx(2 / 32)
    assert judging.sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert judging.sign_test(4, 4) == 1.0 and judging.sign_test(0, 0) == 1.0


def test_summary_counts():
    p = pair(0, "a", "b")
    judged = [
        Judged(p, "win", ("a", "a")), Judged(p, "win", ("a", "a")), Judged(p, "lose", ("b", "b")),
        Judged(p, "tie", ("a", "b"), "orders disagree"),
        Judged(p, "tie", ("tie", "tie"), "identical"),
        Judged(p, "unparsable", ("a", None), "?"), Judged(p, "failed"), Judged(p, "not asked"),
    ]  # fmt: skip
    figures = judging.summarize(judged, seed=0)
    assert (figures["judged"], figures["win"]["count"], figures["tie"]["count"]) == (5, 2, 2)
    assert figures["win"]["share"] == 0.4 and figures["lose"]["count"] == 1
    assert figures["win_minus_lose"]["count"] == 1 and figures["win_minus_lose"]["share"] == 0.2
    assert (figures["unparsable"], figures["failed"], figures["not_asked"]) == (1, 1, 1)
    # a, a, -, a, unreadable's a: FIRST where a came first: 4 of 5; where b did: b of lose, tie.
    assert figures["first_answer_chosen"] == round((4 + 2) / 9, 6)
    assert figures["identical"] == figures["orders_disagree"] == 1
    nothing = judging.summarize([Judged(p, "failed")], seed=0)
    assert nothing["win"] == {"count": 0, "share": None, "wilson_95": None}


@pytest.fixture
def compare(tmp_path, said):
    """Returns a function that writes two files of 30 answers and compares them."""

    def line(i, response):
        value = {"instruction": f"i{i}", "input": "", "response": response, "target": f"zebra {i}"}
        return json.dumps(value) + "\n"

    for name, response in (("a", lambda i: "w" * (1 + i)), ("b", lambda i: "v" * 15)):
        text = "".join(line(i, response(i)) for i in range(30))
        (tmp_path / f"{name}.jsonl").write_text(text)

    def run(endpoint, **options):
        given = answers.Files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        result = judging.compare(given, endpoint, tmp_path / "out.json", **options)
        assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(result))
        return result, "\n".join(said)

    return run


def test_a_judgement_over_http(server, connect, compare):
    server.answer = stand_in_judge.answer
    result, text = compare(connect(prices=Prices(1.0, 1.0)))
    # a has 1 to 30 letters, b 15: a loses to 1.2 x len < 15, wins above 18, else FIRST twice.
    figures = result["judgement"]
    assert [figures[x]["count"] for x in ("win", "tie", "lose")] == [12, 6, 12]
    assert figures["orders_disagree"] == 6 and figures["identical"] == 0
    assert (
        result["complete"] and len(server.requests) == 60 and server.requests[0]["temperature"] == 0
    )
    assert result["cost"]["cost"] == pytest.approx(60 * 15e-6)
    assert "a  win:   12 of 30 = 40.0% (95% Wilson" in text and "$0.0009" in text
    assert result["judge"]["model"] == "m" and "a.jsonl" in result["files"]["a"]["path"]

    again, _ = compare(connect(), seed=3)
    assert len(server.requests) == 60 and again["judgement"]["win"] == figures["win"]


def test_blind(server, connect, compare):
    """Nothing in a request tells whose answer is whose."""
    server.answer = stand_in_judge.answer
    compare(connect())
    sent = "".join(message["content"] for body in server.requests for message in body["messages"])
    assert ".jsonl" not in sent and "zebra" not in sent  # neither files nor references


def test_a_judgement_that_stops_continues(server, connect, compare):
    server.answer = stand_in_judge.answer
    server.script = [None] * 21
    server.then = closed()
    endpoint = connect(concurrency=1, max_attempts=1, max_failures=2)
    result, text = compare(endpoint)
    assert endpoint.stopped and not result["complete"]
    figures = result["judgement"]
    assert figures["judged"] == 10 and figures["failed"] == 1 and figures["not_asked"] == 19
    assert "19 not asked (the same command" in text
    server.then = None
    result, _ = compare(connect())
    assert (
        result["complete"]
        and result["judgement"]["judged"] == 30
        and result["cost"]["cached"] == 21
    )


def test_what_a_budget_leaves_unasked_leaves_equal_answers_out_in_proportion():
    pairs = [pair(i, "same" if i % 2 else "a", "same" if i % 2 else "bb") for i in range(200)]
    left = iter(["FIRST"] * 60)
    judge = Judge(lambda first, second: next(left, None) or Reply(None, "budget"))
    figures = judging.summarize(judging.judge(pairs, judge, seed=0), 0)
    assert figures["judged"] - figures["identical"] == 30 and 20 <= figures["identical"] <= 40
    assert figures["judged"] + figures["not_asked"] == 200


def test_verdicts_that_cannot_be_read(server, connect, compare, tmp_path):
    server.script = [says("The first one, because ...")]
    server.answer = stand_in_judge.answer
    result, text = compare(connect(concurrency=1))
    assert result["judgement"]["unparsable"] == 1 and "1 with unreadable verdicts" in text
    server.then = says("Let me think ...")
    with pytest.raises(UserError, match="None of 'chatty'.s verdicts is FIRST.*Let me think"):
        compare(connect(model="chatty"))
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["judgement"]["unparsable"] == 30 and kept["judgement"]["win"]["share"] is None


def test_a_filter_on_some_pairs(server, connect, compare):
    server.answer = stand_in_judge.answer
    server.script = [status(400, message="filtered", code="content_filter")] * 2
    result, _ = compare(connect(concurrency=1))
    assert result["judgement"]["failed"] == 1 and result["judgement"]["judged"] == 29


def test_offline_is_rouge_alone(compare):
    result, text = compare(None)
    assert result["rouge"]["a"] == {"rougeL": 0.0, "rouge1": 0.0, "exact_match": 0.0}
    assert "judgement" not in result and "ROUGE-L of b: 0.00" in text


def test_files_without_references_have_no_rouge():
    assert judging.rouge([Pair(Question("i", ""), "a", "b", ())], "a") is None


@needs_shared
def test_released_predictions():
    """252 instructions, ROUGE-L as rouge_score alone gives it, and outcomes by length."""
    from rouge_score import rouge_scorer

    a, b = (
        answers.read_answers(PREDICTIONS / f"{name}_predictions.jsonl")
        for name in ("davinci-self-instruct", "text-davinci-001")
    )
    instructions = answers.read_instructions(DATA / "user_oriented_instructions.jsonl")
    pairs, problems = answers.match(a, b, instructions, ("a", "b"), intersect=False)
    assert len(pairs) == 252 and problems == {}
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    lines = (PREDICTIONS / "text-davinci-001_predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    scores = [scorer.score(row["target"], row["response"])["rougeL"].fmeasure for row in rows]
    assert judging.rouge(pairs, "b")[evaluation.ROUGE_L] == pytest.approx(
        100 * float(np.mean(scores)), abs=1e-3
    )
    judged = judging.judge(pairs, Judge(stand_in_judge.preference), seed=0)
    figures = judging.summarize(judged, seed=0)
    expected = []
    for item in pairs:
        x, y = len(item.a.strip()), len(item.b.strip())
        expected.append("win" if x > 1.2 * y else "lose" if y > 1.2 * x else "tie")
    assert [item.outcome for item in judged] == expected
    assert [figures[x]["count"] for x in judging.OUTCOMES] == [63, 68, 121]
