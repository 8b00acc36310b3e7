"""Compares two models' answers: ROUGE against the references, and blind pairwise judging.

Every pair is judged twice, with the answers in both orders; a model wins a pair only if it wins
both times, so a preference for a position becomes a tie (Active Instruction Tuning, section on
Alpaca, reports #win - #lose of such judging on 252 instructions; paper_facts A3).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ait_jax import randomness
from ait_jax.endpoint.chat import BUDGET, DOWN, Reply
from ait_jax.errors import UserError, shown
from ait_jax.evaluation import answers, evaluation, judge_prompt
from ait_jax.evaluation.answers import Pair
from ait_jax.evaluation.rouge import AUTO, Rouge, chosen, describe
from ait_jax.runtime import files, reporter

SCHEMA = 1
RESAMPLES = 10_000
A, B, TIE = "a", "b", "tie"
# Outcomes of a pair; the last three mean that it was not judged.
OUTCOMES = ("win", "tie", "lose")
UNPARSABLE, FAILED, NOT_ASKED = "unparsable", "failed", "not asked"


@dataclass(frozen=True)
class Judged:
    """One judged pair.

    Attributes:
      pair: question and answers.
      outcome: "win", "tie", "lose" (of a), or UNPARSABLE, FAILED, NOT_ASKED.
      verdicts: with a's answer first, with b's first: "a", "b", "tie", or None.
      note: "identical" if the answers are equal and were not sent, "orders disagree", the first
        unreadable verdict, or the error.
    """

    pair: Pair
    outcome: str
    verdicts: tuple[str | None, str | None] = (None, None)
    note: str = ""


def judge(pairs: Sequence[Pair], endpoint: Any, seed: int, max_tokens: int = 16) -> list[Judged]:
    """Returns the pairs as `endpoint` judges them, in their order.

    `seed` shuffles the pairs and draws which answer comes first in the first of a pair's two
    requests, so that what a budget leaves unasked is random. Equal answers are a tie and are not
    sent.

    Args:
      pairs: to judge.
      endpoint: an `endpoint.Endpoint`, or anything with its `ask`.
      seed: of the order of asking; no verdict depends on it.
      max_tokens: of a verdict.
    """
    order = randomness.shuffled(range(len(pairs)), "judge", seed)
    asked: list[tuple[int, bool]] = []  # which pair, and whether a's answer is the first
    for i in order:
        if _identical(pairs[i]):
            continue
        a_first = randomness.uniform("judge", seed, i) < 0.5
        asked += [(i, a_first), (i, not a_first)]
    conversations = []
    for i, a_first in asked:
        pair = pairs[i]
        texts = (pair.a, pair.b) if a_first else (pair.b, pair.a)
        conversations.append(judge_prompt.conversation(pair.question, *texts))
    replies = endpoint.ask(conversations, max_tokens, description="judging")
    by_pair: dict[int, dict[bool, Reply]] = {}
    for (i, a_first), reply in zip(asked, replies, strict=True):
        by_pair.setdefault(i, {})[a_first] = reply
    judged: dict[int, Judged] = {}
    stopped = False
    for i in order:
        if i in by_pair:
            judged[i] = _judged(pairs[i], by_pair[i][True], by_pair[i][False])
            stopped = stopped or judged[i].outcome == NOT_ASKED
        elif stopped:  # as ties they would outnumber the few pairs that were asked
            judged[i] = Judged(pairs[i], NOT_ASKED)
        else:
            judged[i] = Judged(pairs[i], "tie", (TIE, TIE), "identical")
    return [judged[i] for i in range(len(pairs))]


def _identical(pair: Pair) -> bool:
    return pair.a.strip() == pair.b.strip()


def _judged(pair: Pair, a_first: Reply, b_first: Reply) -> Judged:
    verdict, other = verdicts = (_winner(a_first, A, B), _winner(b_first, B, A))
    errors = [reply.error for reply in (a_first, b_first) if reply.error]
    if any(error in (BUDGET, DOWN) for error in errors):
        return Judged(pair, NOT_ASKED, verdicts)
    if errors:
        return Judged(pair, FAILED, verdicts, errors[0])
    if verdict is None or other is None:
        unreadable = a_first if verdict is None else b_first
        return Judged(pair, UNPARSABLE, verdicts, (unreadable.text or "").strip()[:200])
    if verdict != other:
        return Judged(pair, "tie", verdicts, "orders disagree")
    return Judged(pair, {A: "win", B: "lose", TIE: "tie"}[verdict], verdicts)


def _winner(reply: Reply, first: str, second: str) -> str | None:
    verdict = judge_prompt.parse(reply.text or "")
    names = {judge_prompt.FIRST: first, judge_prompt.SECOND: second, judge_prompt.TIE: TIE}
    return names[verdict] if verdict else None


def wilson(count: int, total: int) -> tuple[float, float]:
    """Returns the 95% Wilson interval of the share `count` / `total`, total at least 1."""
    from scipy import stats

    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_difference(wins: int, ties: int, loses: int, seed: int) -> tuple[float, float]:
    """Returns the 95% percentile bootstrap interval of (wins - loses) / all.

    Resampling instructions and counting outcomes is drawing the counts from a multinomial.
    """
    import numpy as np

    total = wins + ties + loses
    shares = [wins / total, ties / total, loses / total]
    draws = np.random.default_rng(seed).multinomial(total, shares, size=RESAMPLES)
    low, high = np.percentile((draws[:, 0] - draws[:, 2]) / total, [2.5, 97.5])
    return float(low), float(high)


def sign_test(wins: int, loses: int) -> float:
    """Returns the two-sided p-value of a split at least this uneven if both sides were equal."""
    from scipy import stats

    return float(stats.binomtest(wins, wins + loses).pvalue) if wins + loses else 1.0


def summarize(judged: Sequence[Judged], seed: int) -> dict[str, Any]:
    """Returns the figures of judged pairs, ready for JSON; shares of no pairs are None."""
    counts = Counter(item.outcome for item in judged)
    notes = Counter(item.note for item in judged)
    wins, ties, loses = (counts[outcome] for outcome in OUTCOMES)
    total = wins + ties + loses
    asked = [item for item in judged if item.note != "identical"]
    decided = [
        (verdict, first)
        for item in asked
        for verdict, first in zip(item.verdicts, (A, B), strict=True)
        if verdict in (A, B)
    ]
    first_chosen = sum(verdict == first for verdict, first in decided)

    def share(count: int) -> dict[str, Any]:
        return {"count": count, "share": round(count / total, 6) if total else None}

    def outcome(count: int) -> dict[str, Any]:
        interval = [round(x, 6) for x in wilson(count, total)] if total else None
        return share(count) | {"wilson_95": interval}

    bootstrap = bootstrap_difference(wins, ties, loses, seed) if total else None

    return {
        "judged": total,
        "win": outcome(wins),
        "tie": outcome(ties),
        "lose": outcome(loses),
        "win_minus_lose": {
            **share(wins - loses),
            "bootstrap_95": bootstrap and [round(x, 6) for x in bootstrap],
            "resamples": RESAMPLES,
            "sign_test_p": round(sign_test(wins, loses), 6),
        },
        "orders_disagree": notes["orders disagree"],
        "identical": notes["identical"],
        "first_answer_chosen": round(first_chosen / len(decided), 6) if decided else None,
        UNPARSABLE: counts[UNPARSABLE],
        FAILED: counts[FAILED],
        "not_asked": counts[NOT_ASKED],
    }


def rouge(pairs: Sequence[Pair], which: str, measure: Rouge | None = None) -> dict[str, Any] | None:
    """Returns ROUGE and exact match, in percent, of "a" or "b"; None without references."""
    if not all(pair.references for pair in pairs):
        return None
    predictions = [
        evaluation.Prediction("all", f"{i:08d}", getattr(pair, which), pair.references)
        for i, pair in enumerate(pairs)
    ]
    figures = evaluation.evaluate(predictions, lambda task: False, lambda task: "all", measure)
    return {name: figures[name] for name in evaluation.METRICS}


def compare(
    given: answers.Files,
    endpoint: Any,
    out: Any,
    *,
    intersect: bool = False,
    seed: int = 0,
    max_tokens: int = 16,
    rouge_tokenizer: str = AUTO,
) -> dict[str, Any]:
    """Compares two files of answers, writes `out` and returns what is in it.

    Args:
      given: the files.
      endpoint: an `endpoint.Endpoint`, or None to compute ROUGE alone.
      out: a JSON file.
      intersect: compare what matches instead of refusing what does not.
      seed: of the order of asking and of the bootstrap.
      max_tokens: of a verdict.
      rouge_tokenizer: see `rouge`; "auto" decides by the references.

    Raises:
      UserError: a file is unusable, the files do not match, the endpoint refuses, or none of
        its verdicts can be read (the result is still written).
    """
    paths = (given.a, given.b)
    pairs, problems = _matched(given, intersect)
    references = {f"{n} ({p.question.title})": p.references for n, p in enumerate(pairs, 1)}
    measure = chosen(rouge_tokenizer, references)
    if remark := describe(measure, references, "instructions"):
        reporter.say(remark)
    result = {
        "schema": SCHEMA,
        "files": {
            which: _file(path, which, pairs) for which, path in zip((A, B), paths, strict=True)
        },
        "instructions": len(pairs),
        "left_out": problems,
        "rouge": {which: rouge(pairs, which, measure) for which in (A, B)},
        "rouge_tokenizer": measure.name,
        "seed": seed,
    }
    for line in _rouge_lines(result["rouge"]):
        reporter.say(line)
    judged: list[Judged] = []
    lines: list[str] = []
    if endpoint is not None:
        judged = judge(pairs, endpoint, seed, max_tokens)
        figures = summarize(judged, seed)
        lines = [*_judgement_lines(figures), endpoint.summary()]
        result |= _judgement(judged, figures, endpoint, max_tokens)
    files.write_json(out, result)
    for line in (*lines, f"written: {out}"):
        reporter.say(line)
    _refuse_unreadable(judged, endpoint)
    return result


def _matched(given: answers.Files, intersect: bool) -> tuple[list[Pair], dict[str, list[str]]]:
    """Returns what `answers.match` does, and says it."""
    names = _names((given.a, given.b))
    a, b = (answers.read_answers(path, given.columns) for path in (given.a, given.b))
    instructions = None
    if given.instructions:
        instructions = answers.read_instructions(given.instructions, given.columns)
    pairs, problems = answers.match(a, b, instructions, names, intersect)
    for line in answers.describe(problems):
        reporter.say(f"left out: {line}")
    reporter.say(f"{len(pairs)} instructions; a: {names[0]}, b: {names[1]}")
    return pairs, problems


def any_answered(result: Mapping[str, Any]) -> bool:
    """Says whether the judge answered about any pair of `compare`'s result, or none was sent."""
    sent = [pair["outcome"] for pair in result["pairs"] if pair["note"] != "identical"]
    return not sent or not set(sent) <= {FAILED, NOT_ASKED}


def _file(path: Any, which: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": hashlib.sha256(files.read_bytes(path)).hexdigest(),
        "empty_answers": sum(not getattr(pair, which).strip() for pair in pairs),
    }


def _names(paths: Sequence[Any]) -> list[str]:
    """Returns the files' names, or their whole paths if the names are equal."""
    names = [PurePath(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _judgement(
    judged: Sequence[Judged], figures: Mapping[str, Any], endpoint: Any, max_tokens: int
) -> dict[str, Any]:
    return {
        "complete": figures["not_asked"] == figures[FAILED] == 0,
        "judge": {
            "model": endpoint.model,
            "base_url": endpoint.base_url,
            "prompt_version": judge_prompt.VERSION,
            "max_tokens": max_tokens,
            "temperature": endpoint.temperature,
        },
        "judgement": figures,
        "cost": vars(endpoint.totals),
        "pairs": [_record(item) for item in judged],
    }


def _record(item: Judged) -> dict[str, Any]:
    return {
        "instruction": item.pair.question.instruction,
        "input": item.pair.question.input,
        "outcome": item.outcome,
        "a_first": item.verdicts[0],
        "b_first": item.verdicts[1],
        "note": item.note,
    }


def _rouge_lines(figures: dict[str, Any]) -> list[str]:
    if None in figures.values():
        return ["ROUGE-L: not every instruction has references (give --instructions)"]
    return [
        f"ROUGE-L of {which}: {value[evaluation.ROUGE_L]:.2f}, "
        f"ROUGE-1 {value[evaluation.ROUGE_1]:.2f}, exact match {value[evaluation.EXACT_MATCH]:.2f}"
        for which, value in figures.items()
    ]


def _judgement_lines(figures: dict[str, Any]) -> list[str]:
    lines = []
    if figures["judged"]:
        for outcome in OUTCOMES:
            value = figures[outcome]
            low, high = value["wilson_95"]
            lines.append(
                f"a {outcome:>4}: {value['count']:4d} of {figures['judged']} = "
                f"{value['share']:.1%} (95% Wilson {low:.1%} to {high:.1%})"
            )
        net = figures["win_minus_lose"]
        low, high = net["bootstrap_95"]
        lines.append(
            f"win - lose: {net['count']:+d} = {net['share']:+.1%} (95% bootstrap over "
            f"instructions {low:+.1%} to {high:+.1%}; sign test p = {net['sign_test_p']:.3g})"
        )
    chosen = figures["first_answer_chosen"]
    lines.append(
        f"ties by disagreement of the two orders: {figures['orders_disagree']}, identical "
        f"answers: {figures['identical']}; the first answer was preferred in "
        + ("no verdict" if chosen is None else f"{chosen:.1%} of verdicts")
    )
    incomplete = figures[FAILED] or figures["not_asked"]
    lines.append(
        f"pairs not judged: {figures[UNPARSABLE]} with unreadable verdicts, "
        f"{figures[FAILED]} failed, {figures['not_asked']} not asked"
        + (" (the same command asks the latter two again)" if incomplete else "")
    )
    return lines


def _refuse_unreadable(judged: Sequence[Judged], endpoint: Any) -> None:
    sent = [item for item in judged if not _identical(item.pair)]
    unreadable = [item for item in sent if item.outcome == UNPARSABLE]
    if unreadable and len(unreadable) == len(sent):
        raise UserError(
            f"None of {shown(endpoint.model)}'s verdicts is FIRST, SECOND or TIE and nothing else; "
            f"the first is {shown(unreadable[0].note)}. Use another --model, or a larger "
            "--max_tokens if it was cut."
        )
