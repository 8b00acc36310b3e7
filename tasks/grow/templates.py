"""Tasks from metadata alone, without a model: patterns over a dataset's columns.

Each pattern looks for columns of certain roles and states the task in plain English. A hash of the
dataset's name chooses the wording, so that wordings vary within a pool but not from run to run.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ait_jax.tasks.grow.dataset import Dataset, Field
from ait_jax.tasks.grow.proposal import Proposal
from ait_jax.tasks.grow.roles import KINDS, WRITABLE, Roles, is_generic, noun, roles_of, words

from ait_jax import randomness

GENERATOR = "templates"
MAX_TASKS = 6
_SENTIMENT = {"positive", "negative", "neutral", "pos", "neg"}
_TRUTH = {"true", "false", "yes", "no"}
_MAX_TABLE_FIELDS = 12
_MAX_INPUTS = 4
# (category, wordings, input columns, output column)
_Task = tuple[str, Sequence[str], Sequence[Field], Field]
_PATTERNS = tomllib.loads(Path(__file__).with_name("wordings.toml").read_text(encoding="utf-8"))


def propose(dataset: Dataset) -> list[Proposal]:
    """Returns at most MAX_TASKS tasks, those of the more specific patterns first."""
    roles = roles_of(dataset)
    proposals: dict[tuple, Proposal] = {}
    for pattern in (
        _translation,
        _inference,
        _question_answering,
        _summarization,
        _explanation,
        _classification,
        _keywords,
        _yes_or_no,
        _preference,
        _rewriting,
        _table,
        _generic,
    ):
        if pattern is _generic and proposals:
            continue
        for category, wordings, fields, output in pattern(roles):
            inputs = tuple(field.name for field in fields)
            if (inputs, output.name) in proposals or output.name in inputs:
                continue
            about = _about(dataset, [*inputs, output.name])
            if about is None:
                continue
            # Configurations of one dataset get the same words, by which duplicates are known.
            named = dataset.family or dataset.name
            wording = randomness.choice(wordings, named, category, output.name)
            proposals[inputs, output.name] = Proposal(
                dataset.name,
                about + wording,
                inputs,
                (output.name,),
                category=category,
                generator=GENERATOR,
            )
    return list(proposals.values())[:MAX_TASKS]


def _about(dataset: Dataset, names: Sequence[str]) -> str | None:
    """Returns the description's first sentence if the columns' names say nothing, else "".

    Returns None where that is needed and there is none: the task could not be understood.
    """
    if not all(is_generic(dataset.field(name)) for name in names):
        return ""
    first = " ".join(dataset.description.split()).partition(". ")[0].strip().rstrip(".")
    tells = re.search(r"\b(is|are|has|have|contains?|consists?|requires?|tests?|asks?)\b", first)
    return f"{first}. " if tells and len(first) <= 200 and first[0].isalnum() else None


def _the(fields: Sequence[Field]) -> str:
    """Returns "the title, the body and the label"; columns with the same noun become its plural."""
    nouns = [noun(field) for field in fields]
    names = list(dict.fromkeys(f"the {n}s" if nouns.count(n) > 1 else f"the {n}" for n in nouns))
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _a(text: str) -> str:
    if text.endswith("s") and not text.endswith("ss"):
        return text if not text.endswith("sis") else f"a {text}"
    return f"{'an' if text[:1] in 'aeiou' and not text.startswith(('uni', 'use')) else 'a'} {text}"


def _task(pattern: str, inputs: Sequence[Field], output: Field, /, **called: Field | str) -> _Task:
    """Returns a task in the words of a pattern of wordings.toml, in which columns are `called` so.

    A column is called by its noun, and `the_inputs` by theirs.
    """
    said = {name: noun(what) if isinstance(what, Field) else what for name, what in called.items()}
    said = {"the_inputs": _the(inputs), **said, **{f"a_{k}": _a(what) for k, what in said.items()}}
    texts = _PATTERNS[pattern]
    wordings = [wording.format(**said) for wording in texts["wordings"]]
    return texts["category"], wordings, inputs, output


def _translation(roles: Roles) -> Iterator[_Task]:
    names = list(roles.languages)
    fields = {field.name: field for field in roles.texts}
    centre = next((n for n in names if roles.languages[n] == "English"), names[0] if names else "")
    for name in (n for n in names if n != centre):
        for source, target in ((centre, name), (name, centre)):
            one, other = roles.languages[source], roles.languages[target]
            yield _task("translation", [fields[source]], fields[target], one=one, other=other)


def _inference(roles: Roles) -> Iterator[_Task]:
    premise, hypothesis = roles.get("premise") or roles.get("passage"), roles.get("hypothesis")
    if not premise or not hypothesis:
        return
    for label in roles.labels[:1]:
        called = {"one": premise, "other": hypothesis, "label": label}
        yield _task("inference", [premise, hypothesis], label, **called)
        yield _task("hypothesis", [premise, label], hypothesis, **called)


def _question_answering(roles: Roles) -> Iterator[_Task]:
    question = roles.get("question")
    answer = roles.get("answer") or next(
        (f for f in (*roles.labels, *roles.booleans) if "answer" in words(f.name)), None
    )
    passage, choices = roles.get("passage"), roles.get("choices")
    if not question:
        return
    about = [passage] if passage else []
    answer = answer or _truth(roles)
    called: dict[str, Field | str] = {"question": question, "passage": passage or ""}
    if answer and answer.kind != "texts":
        if choices:
            given = f" using the {noun(passage)}" if passage else ""
            inputs = [*about, question, choices]
            yield _task("choice", inputs, answer, choices=choices, given=given, **called)
        elif passage:
            yield _task("answer_from_passage", [passage, question], answer, **called)
        else:
            pattern = "solution" if noun(question) == "problem" else "answer"
            yield _task(pattern, [question], answer, **called)
    if answer and answer.kind == "text" and question.kind == "text":
        given = f" about the {noun(passage)}" if passage else ""
        yield _task("question_of_answer", [*about, answer], question, given=given, **called)
    elif passage and question.kind == "text":
        yield _task("question_of_passage", [passage], question, **called)


def _truth(roles: Roles) -> Field | None:
    """Returns the column of classes that are answers themselves: yes or no, true or false."""
    return next((f for f in roles.labels if {n.lower() for n in f.labels} <= _TRUTH), None)


def _summarization(roles: Roles) -> Iterator[_Task]:
    summary, title = roles.get("summary"), roles.get("title")
    plain = next((f for f in roles.texts if noun(f) == "text"), None)
    body = (
        roles.get("passage")
        or plain
        or next((f for f in roles.texts if words(f.name) in ("description", "review body")), None)
    )
    if body and summary and summary.kind == "text":
        is_plain = noun(summary) in ("summary", "synopsis", "abstractive summary")
        pattern = "summary" if is_plain else "highlights"
        yield _task(pattern, [body], summary, body=body, summary=summary)
    if body and title and title.kind == "text":
        yield _task("title", [body], title, body=body)


def _explanation(roles: Roles) -> Iterator[_Task]:
    explanation = roles.get("explanation")
    if not explanation or explanation.kind != "text":
        return
    given = ("premise", "hypothesis", "question", "passage", "choices")
    inputs = [field for role in given if (field := roles.get(role))]
    answer = roles.get("answer")
    result = [answer] if answer else roles.labels[:1]
    inputs += [field for field in result if field is not explanation]
    if not inputs or inputs[-1] is roles.get("choices"):
        return
    what = words(explanation.name).rstrip("0123456789 ")
    called = {"the_inputs": _the(inputs), "what": what, "last": inputs[-1]}
    yield _task("explanation", inputs[:_MAX_INPUTS], explanation, **called)


def _classification(roles: Roles) -> Iterator[_Task]:
    texts = [field for field in _content(roles) if field is not roles.get("explanation")]
    told = roles.get("hypothesis") or (roles.get("question") and _truth(roles))
    if not texts or told:  # then other patterns have the classes
        return
    for label in roles.labels[:3]:
        kind = _label_noun(label)
        if roles.pair and roles.pair[0] in texts:
            others = [field for field in texts if field not in roles.pair]
            inputs = [*others[:1], *roles.pair]
            yield _task("class_of_pair", inputs, label, one=roles.pair[0], kind=kind)
            continue
        yield _task("class", texts[:2], label, kind=kind)
        if len(texts) == 1 and texts[0].kind == "text" and label is roles.labels[0]:
            yield _task("text_of_class", [label], texts[0], text=texts[0], kind=kind)


def _label_noun(label: Field) -> str:
    names = {name.lower() for name in label.labels}
    if names <= _SENTIMENT:
        return "sentiment"
    said = re.sub(r"\s\d+$", "", words(label.name))
    if said in ("label", "labels", "class", "target", "gold label", "category", "classes"):
        return "category"
    if said.startswith(("label ", "coarse ", "fine ")) or said.endswith((" label", " category")):
        said = said.removeprefix("label ").removesuffix(" label").removesuffix(" category")
        return f"{said} category"
    return said if said in KINDS or said.split()[-1] in KINDS else f'value of "{said}"'


def _content(roles: Roles) -> list[Field]:
    """Returns the columns with the text itself, not its answers, titles or summaries."""
    aside = {roles.get(role) for role in ("answer", "title", "summary", "explanation", "keywords")}
    content = [field for field in roles.texts if field not in aside]
    return content or [field for field in roles.texts if field is not roles.get("explanation")]


def _keywords(roles: Roles) -> Iterator[_Task]:
    keywords = roles.get("keywords")
    target = next((f for f in roles.texts if words(f.name) in ("target", "text", "sentence")), None)
    if keywords and keywords.kind == "texts" and target and target.kind == "text":
        yield _task("keywords", [keywords], target, keywords=keywords)


def _yes_or_no(roles: Roles) -> Iterator[_Task]:
    texts = _content(roles)
    if not texts or roles.pair or roles.get("question") in texts:
        return
    for flag in roles.booleans[:4]:
        yield _task("flag", texts[:2], flag, flag=words(flag.name))


def _preference(roles: Roles) -> Iterator[_Task]:
    if len(roles.pair) != 2 or not any(word in roles.pair[0].name for word in ("good", "bad")):
        return
    bad, good = sorted(roles.pair, key=lambda field: "good" in field.name)
    yield _task("preference", [bad], good, one=noun(good).replace(" good", ""))


def _rewriting(roles: Roles) -> Iterator[_Task]:
    """Pairs of texts named by their relation: normal and simple, original and rewritten."""
    texts = [field for field in roles.texts if field.kind == "text"]
    for source, target, pattern in _PATTERNS["rewriting"]:
        one = next((f for f in texts if source in words(f.name)), None)
        other = next((f for f in texts if target in words(f.name) and f is not one), None)
        if one and other:
            yield _task(pattern, [one], other, one=one)


def _table(roles: Roles) -> Iterator[_Task]:
    """A class from a row of numbers and classes, if no column is text."""
    columns = [*roles.numbers, *roles.labels, *roles.booleans]
    if not roles.labels or roles.texts or not 3 <= len(columns) <= _MAX_TABLE_FIELDS:
        return
    label = roles.labels[-1]
    inputs = [field for field in columns if field is not label]
    yield _task("table", inputs, label, kind=_label_noun(label))


def _generic(roles: Roles) -> Iterator[_Task]:
    """The last resort: a text from the others, if its name says that somebody writes it."""
    for output in reversed(roles.texts):
        said = words(output.name)
        ending = said.split()[-1]
        writable = said in WRITABLE or ending in WRITABLE - {"code", "completion", "target"}
        if output.kind != "text" or not writable:
            continue
        inputs = [field for field in roles.texts if field is not output][:2]
        if inputs:
            yield _task("generic", inputs, output, output=output)
            return
