"""Whole growths: by templates, of released instructions, and by an endpoint that misbehaves."""

import ast
import fcntl
import json
import os

import pytest
from ait_jax.tasks.grow.conversation import STYLES
from ait_jax.tasks.grow.grown_pool import read_entries, read_report
from ait_jax.tasks.grow.growth import Growth, grow
from ait_jax.tasks.grow.screening import Screening
from misbehaving_endpoint import says, status
from shared_data import SHARED, needs_shared
from tiny_datasets import instruction, reviews, write_card, write_lines
from tiny_endpoint import KEY, connect, server  # noqa: F401

from ait_jax.endpoint.endpoint import Prices
from ait_jax.errors import UserError
from ait_jax.pool import read_task
from ait_jax.runtime import reporter

RELEASED = SHARED / "data/dynosaur/instructions-full.json"


def run(tmp_path, *sources, pool="pool", **options):
    lines = []
    with reporter.using(reporter.Reporter(line=lines.append)):
        tally = grow(Growth(tmp_path / pool, [str(s) for s in sources], **options))
    return tally, list(read_entries(tmp_path / pool)), "\n".join(lines)


def rows(tmp_path, *lines, name="data.jsonl"):
    return write_lines(tmp_path / name, lines)


def by_input(entries):
    return {entry.task.metadata["Input Fields"]: entry for entry in entries}


def test_templates_over_rows(tmp_path):
    path = rows(tmp_path, reviews(), reviews("other", license="other"), b"{")
    tally, entries, said = run(tmp_path, path)
    assert tally.counts("datasets") == {"kept": 1, "license: other": 1}
    assert tally.counts("metadata lines")["unreadable: malformed JSON"] == 1
    assert tally.counts("pool") == {"added, with instances": len(entries)}
    assert "1  license: other" in said
    report = read_report(tmp_path / "pool")["growths"][0]
    assert report["growth"]["generator"] == "templates"
    assert report["counts"]["datasets"]["license: other"] == {"count": 1, "examples": ["other"]}
    for entry in entries:
        task = read_task(tmp_path / "pool" / "tasks" / f"{entry.task.name}.json")
        assert len(task.instances) == entry.num_instances > 0
        assert task.metadata["Instance License"] == ("mit",)


def test_released_instructions_get_rows_where_there_are_any(tmp_path):
    (tmp_path / "instructions.json").write_text(
        json.dumps(
            [
                instruction(),
                instruction(),
                instruction("unknown"),
                instruction(output_field=["missing"], instruction="Name it."),
                instruction(output_field=[], instruction="Name it."),
                instruction(input_fields=["label"], instruction="Copy the label."),
            ]
        )
    )
    tally, entries, _ = run(
        tmp_path, tmp_path / "instructions.json", rows=[str(rows(tmp_path, reviews(num_rows=150)))]
    )
    assert tally.counts("proposals") == {
        "kept": 2,
        "duplicate: the very same task": 1,
        "fields: not in the dataset": 1,
        "output field: none": 1,
        "fields: both input and output": 1,
    }
    with_rows, without = entries
    assert (with_rows.num_instances, without.num_instances) == (100, 0) and with_rows.is_cls
    definition = with_rows.task.instruction.definition
    assert definition == "Is the review good? Answers must be one of good, bad."
    assert with_rows.task.metadata["Instance License"] == ("mit",)
    task = read_task(tmp_path / "pool" / "tasks" / f"{with_rows.task.name}.json")
    assert task.instances[1].input == "The green kettle number 1 works."
    assert task.instances[1].outputs == ("bad",)


def test_rows_may_come_with_a_later_growth(tmp_path):
    (tmp_path / "instructions.json").write_text(json.dumps([instruction(), instruction("other")]))
    _, entries, _ = run(tmp_path, tmp_path / "instructions.json")
    assert [entry.num_instances for entry in entries] == [0, 0]
    again = {"rows": [str(rows(tmp_path, reviews()))]}
    tally, entries, _ = run(tmp_path, tmp_path / "instructions.json", **again)
    assert tally.counts("pool") == {
        "given the instances that it lacked": 1,
        "already in the pool": 1,
    }
    assert [entry.num_instances for entry in entries] == [40, 0]


def test_the_same_growth_again_changes_nothing_and_another_extends(tmp_path):
    path = rows(tmp_path, reviews())
    run(tmp_path, path)
    files = {p: p.read_bytes() for p in (tmp_path / "pool").rglob("*") if p.is_file()}
    tally, first, _ = run(tmp_path, path)
    assert tally.counts("pool") == {"already in the pool": len(first)}
    assert {p: p.read_bytes() for p in (tmp_path / "pool").rglob("*") if p.is_file()} == files
    write_card(tmp_path / "cards")
    _, entries, _ = run(tmp_path, tmp_path / "cards")
    assert entries[: len(first)] == first and len(entries) > len(first)
    after = {p: p.read_bytes() for p in files}
    assert {p for p in files if after[p] != files[p]} == {
        tmp_path / "pool" / "instructions.jsonl",
        tmp_path / "pool" / "report.json",
    }


def test_the_label_space_rule(tmp_path):
    def line(name, kinds):
        texts = [{"text": f"t {i}", "kind": kind} for i, kind in enumerate(kinds)]
        return reviews(name, selected_data=texts)

    lines = [line("skewed", "a" * 81 + "b" * 19), line("even", "ab" * 20), line("few", "abab")]
    tally, entries, _ = run(tmp_path, rows(tmp_path, *lines))
    assert tally.counts("proposals")["labels: out of balance"] == 1
    made = {entry.task.metadata["Source"][0]: entry for entry in entries if entry.is_cls}
    assert set(made) == {"even"}
    assert made["even"].task.instruction.definition.endswith(" Answers must be one of a, b.")


def answer(body):
    """Stands in for a model: by the dataset's name, a good answer or a bad one."""
    text = body["messages"][-1]["content"].rpartition("\n\nInput:\n")[2]
    name = ast.literal_eval(text.partition("\n\n")[0])["task_name"]
    good = {
        "instruction": "Say if it is good.",
        "input_fields": ["review"],
        "output_field": "label",
    }
    unknown = {**good, "instruction": "Name the maker.", "output_field": ["maker"]}
    return {
        "prose": "What a nice dataset!",
        "broken": '{"instruction": "Say',
        "evil": "{'instruction': __import__('os').system('true')}",
        "copy": json.dumps({**good, "output_field": ["review"]}),
        "unknown": f"1. {json.dumps(unknown)}\n2. {good}",
        "few": str({"task1": good}),
    }.get(name, json.dumps(good))


def test_an_endpoint(server, connect, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = answer
    skewed = [{"review": f"t {i}", "label": "ab"[i > 80]} for i in range(100)]
    lines = [reviews(name) for name in ("good", "prose", "broken", "evil", "copy", "unknown")]
    path = rows(tmp_path, *lines, reviews("skewed", selected_data=skewed), reviews("few", 4))
    endpoint = connect(prices=Prices(1.0, 1.0))
    tally, entries, said = run(tmp_path, path, endpoint=endpoint)
    assert len(server.requests) == 16
    assert {e.task.metadata["Source"][0] for e in entries} == {"good", "unknown", "few"}
    assert tally.counts("answers") == {
        "tasks read": 12,
        "unreadable: no dictionary in it": 2,
        "unreadable: a dictionary that is broken off or malformed": 4,
    }
    assert tally.counts("proposals") == {
        "kept": 3,
        "duplicate: the very same task": 4,
        "fields: both input and output": 2,
        "fields: not in the dataset": 2,
        "labels: out of balance": 1,
    }
    good = next(e for e in entries if e.task.metadata["Source"] == ("good",))
    definition = good.task.instruction.definition
    assert definition == "Say if it is good. Answers must be one of bad, good." and good.is_cls
    assert good.task.metadata["Generator"] == ("description-aware",)
    assert good.task.metadata["Model"] == ("m",)
    few = next(e for e in entries if e.task.metadata["Source"] == ("few",))
    assert few.task.instruction.definition == "Say if it is good."
    assert "16 answers paid for" in said
    for written in (tmp_path / "pool").rglob("*"):
        assert not written.is_file() or KEY not in written.read_text()


def test_an_endpoint_that_dies_half_way_is_resumed(server, connect, tmp_path):
    server.answer = answer
    path = rows(tmp_path, *(reviews(f"d{i}") for i in range(6)))
    server.script = [None] * 4
    server.then = status(500)
    options = {"styles": STYLES[:1]}
    endpoint = connect(max_attempts=1, max_failures=2, concurrency=1)
    tally, entries, said = run(tmp_path, path, endpoint=endpoint, **options)
    assert len(entries) == 4 and "stopped: " in said
    asked = len(server.requests)
    server.then = None
    tally, entries, _ = run(tmp_path, path, endpoint=connect(), **options)
    assert len(entries) == 6 and len(server.requests) == asked + 2, "what was paid for is kept"
    assert tally.counts("pool") == {"already in the pool": 4, "added, with instances": 2}


def test_a_budget_of_nothing_asks_nothing(server, connect, tmp_path):
    path = rows(tmp_path, reviews())
    endpoint = connect(budget=0.0, prices=Prices(1.0, 1.0))
    tally, entries, said = run(tmp_path, path, endpoint=endpoint)
    assert server.requests == [] and entries == [] and "stopped: " in said
    assert tally.counts("questions, description-aware") == {"not answered: budget": 1}
    assert not (tmp_path / "pool" / "instructions.jsonl").exists()
    (report,) = read_report(tmp_path / "pool")["growths"]
    assert report["counts"]["questions, description-aware"]["not answered: budget"]["count"] == 1


def test_answers_that_are_no_text(server, connect, tmp_path):
    server.then = says("\ud83d {'instruction': 'x'}")
    tally, entries, _ = run(tmp_path, rows(tmp_path, reviews()), endpoint=connect())
    assert entries == [] and sum(tally.counts("proposals").values()) > 0


def test_only_so_many_datasets(tmp_path):
    path = rows(tmp_path, *(reviews(f"d{i}") for i in range(6)))
    tally, _, _ = run(tmp_path, path, max_datasets=2)
    assert tally.counts("datasets") == {"kept": 2}


def test_two_datasets_of_one_name(tmp_path):
    one, other = (rows(tmp_path, reviews(), name=name) for name in ("a.jsonl", "b.jsonl"))
    tally, _, _ = run(tmp_path, one, other)
    assert tally.counts("datasets") == {"kept": 1, "duplicate: name of an earlier dataset": 1}


def test_one_growth_at_a_time(tmp_path):
    (tmp_path / "pool").mkdir()
    with open(tmp_path / "pool" / ".lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `ait-jax grow` is at work"):
            run(tmp_path, rows(tmp_path, reviews()))


def test_nothing_given(tmp_path):
    with pytest.raises(UserError, match="nothing to grow from"):
        run(tmp_path)
    with pytest.raises(UserError, match="--from=no_such"):
        run(tmp_path, "no_such")
    assert not (tmp_path / "pool").exists()


def test_cards_have_no_rows(tmp_path):
    write_card(tmp_path / "cards")
    tally, entries, _ = run(tmp_path, tmp_path / "cards", screening=Screening())
    assert tally.counts("pool") == {"added, without instances": len(entries)}
    kind = next(e for e in entries if e.task.metadata["Output Field"] == ("kind",))
    assert kind.is_cls and kind.task.instruction.definition.endswith("one of place, person.")
    assert not (tmp_path / "pool" / "tasks").exists()


@needs_shared
def test_all_released_instructions_come_in(tmp_path):
    tally, entries, _ = run(tmp_path, RELEASED)
    assert tally.counts("proposals") == {"kept": 5740} and len(entries) == 5740
    assert sum(entry.is_cls for entry in entries) == 1231


def test_half_a_surrogate_pair_in_an_answer(server, connect, tmp_path):
    half = json.dumps(
        {"instruction": "Half \ud83d.", "input_fields": ["review"], "output_field": "label"}
    )
    texts = {
        "escaped": half,
        "raw": half.encode().decode("unicode_escape"),
        "prose": "Half \ud83d.",
    }

    def answer(body):
        text = body["messages"][-1]["content"].rpartition("\n\nInput:\n")[2]
        return texts[ast.literal_eval(text.partition("\n\n")[0])["task_name"]]

    server.answer = answer
    path = rows(tmp_path, *map(reviews, texts))
    for _ in range(2):  # from the endpoint, from its cache
        tally, entries, _ = run(tmp_path, path, endpoint=connect())
        assert tally.counts("answers")["tasks read"] == 4
        definitions = {entry.task.instruction.definition for entry in entries}
        assert all(text.startswith("Half \ufffd.") for text in definitions)


def test_a_source_whose_name_is_not_utf8(tmp_path):
    path = rows(tmp_path, reviews())
    odd = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.rename(odd)
    tally, entries, _ = run(tmp_path, odd)
    assert entries and tally.counts("datasets") == {"kept": 1}
    assert "\\udce9" not in (tmp_path / "pool" / "report.json").read_text()
