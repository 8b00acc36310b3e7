"""A task on the terminal: metadata, prompt, tokens, perturbed form, references, answers."""

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ait_jax.errors import visible
from ait_jax.report.pool_view import PoolView
from ait_jax.report.prompt_view import ADDED, DROPPED, SAME, Form, Seen, compared

_WIDE = 120
_FEW_PIECES = 80
_MOST_REFERENCES = 8
# Style on a terminal with colors, and brackets elsewhere.
_MARKS = {
    SAME: ("", "", ""),
    DROPPED: ("strike red", "[-", "-]"),
    ADDED: ("bold green", "{+", "+}"),
}


def show(console: Console, view: PoolView, seen: Seen, all_tokens: bool = False) -> None:
    """Prints the task; on wide terminals the perturbed form is beside the prompt."""
    _metadata(console, view, seen)
    original, *others = seen.forms
    about = ", without an input: the task has no instances"
    if seen.instance is not None:
        about = f" of the instance {visible(seen.instance.id)}, exactly as encoded"
    sides = [(f"prompt{about}", Text(visible(original.prompt.text, keep_lines=True)))]
    marked = console.is_terminal and not console.no_color
    for form in others:
        title = f"perturbed form {form.j}: " + (
            "struck words are dropped" if marked else "[-dropped-] {+added+}"
        )
        sides.append((title, _perturbed(original, form, marked)))
    if console.is_terminal and console.width >= _WIDE and len(sides) > 1:
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in sides:
            table.add_column(ratio=1)
        table.add_row(*(Text(title, style="bold") for title, _ in sides))
        table.add_row(*(body for _, body in sides))
        console.print(Padding(table, (1, 0, 0, 0)))
    else:
        for title, body in sides:
            _section(console, title, body)
    _tokens(console, seen, all_tokens)
    _references(console, seen)
    _likelihoods(console, view, seen)
    for problem in dict.fromkeys(view.problems):
        console.print(Text(f"note: {visible(problem)}", style="yellow"))


def _section(console: Console, title: str, body: Any) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(body)


def _metadata(console: Console, view: PoolView, seen: Seen) -> None:
    task = seen.task
    console.print(Text(task.name, style="bold"))
    kind = "classification (CLS)" if view.pool.is_cls(task.name) else "generation (GEN)"
    split = view.split_of.get(task.name, "in no split")
    instruction = task.instruction
    examples = f"{len(instruction.positive_examples)} positive"
    if instruction.negative_examples:
        examples += f", {len(instruction.negative_examples)} negative"
    entries = {
        "pool": f"{view.pool.name}, split: {split}",
        "categories": ", ".join(task.categories) or task.category,
        "kind": kind,
        "instances": f"{len(task.instances):,}",
        "examples": examples,
        "languages": f"{', '.join(task.input_languages)} -> {', '.join(task.output_languages)}",
    }
    found = view.found.get(task.name)
    if found and found.scored is not None:
        entries["scores"] = (
            f"prompt uncertainty {found.uncertainty:.4f}, prediction probability "
            f"{found.probability:.4f}, {found.region} in round {found.scored}"
        )
    if found and found.selected is not None:
        entries["selected"] = f"in round {found.selected}"
    entries |= {key: ", ".join(values) for key, values in task.metadata.items() if any(values)}
    if task.further_definitions:
        entries["unused"] = f"{len(task.further_definitions)} further definitions"
    table = Table.grid(padding=(0, 2))
    for key, value in entries.items():
        table.add_row(Text(visible(key)[:24], style="dim"), Text(visible(value)[:400]))
    console.print(table)


def _perturbed(original: Form, form: Form, marked: bool) -> Text:
    """Returns the perturbed prompt, with dropped and added words marked."""
    text = Text()
    for kind, part in compared(original.prompt.text, form.prompt.text):
        shown = visible(part, keep_lines=True)
        word = shown.lstrip()
        style, opening, closing = _MARKS[kind]
        text.append(shown[: len(shown) - len(word)])
        text.append(word, style) if marked else text.append(f"{opening}{word}{closing}")
    return text


def _tokens(console: Console, seen: Seen, everything: bool) -> None:
    form = seen.forms[0]
    if form.pieces is None:
        _section(console, "tokens", Text("unknown: there is no vocabulary"))
        return
    shown = form.pieces if everything else form.pieces[:_FEW_PIECES]
    text = Text()
    for place, piece in enumerate(shown):
        text.append(visible(piece), style="cyan" if place % 2 else "")
        text.append(" ")
    if len(shown) < len(form.pieces):
        text.append(f"... {len(form.pieces) - len(shown):,} more: --tokens shows all", style="dim")
    _section(console, f"{len(form.pieces):,} tokens; {_cut(form)}", text)


def _cut(form: Form) -> str:
    """Returns in words what did not fit into a prompt."""
    prompt = form.prompt
    shown = prompt.positive_examples + prompt.negative_examples
    lost: list[str] = []
    if prompt.examples_left_out:
        lost.append(f"{prompt.examples_left_out} examples left out")
    if prompt.tokens_cut:
        lost.append(f"{prompt.tokens_cut:,} tokens cut from the end")
    return f"{shown} examples shown, {' and '.join(lost) if lost else 'nothing cut'}"


def _references(console: Console, seen: Seen) -> None:
    outputs = seen.instance.outputs if seen.instance else ()
    text = Text("\n").join(Text(visible(output)) for output in outputs[:_MOST_REFERENCES])
    if len(outputs) > _MOST_REFERENCES:
        text.append(f"\n... {len(outputs) - _MOST_REFERENCES:,} more", style="dim")
    _section(console, "references" if outputs else "references: none", text)


def _likelihoods(console: Console, view: PoolView, seen: Seen) -> None:
    if seen.answer is None:
        if view.run is not None:
            console.print()
            console.print(Text("the run has no answer to this instance", style="dim"))
        return
    _section(console, "the model's answer", Text(visible(seen.answer) or "(empty)"))
    if not seen.likelihoods:
        return
    first = seen.likelihoods.get(0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("form", "probability of the answer", "difference"):
        table.add_column(title, justify="right")
    for j, value in sorted(seen.likelihoods.items()):
        p = math.exp(value)
        change = "" if not j or first is None else f"{p - math.exp(first):+.4f}"
        table.add_row("original" if not j else str(j), f"{p:.4f}", change)
    console.print(table)


def to_json(view: PoolView, seen: Seen) -> str:
    """Returns everything that `show` prints, as ASCII JSON."""
    task, instance = seen.task, seen.instance
    value: Mapping[str, Any] = {
        "task": task.name,
        "categories": task.categories,
        "kind": "CLS" if view.pool.is_cls(task.name) else "GEN",
        "split": view.split_of.get(task.name),
        "instances": len(task.instances),
        "metadata": dict(task.metadata),
        "instance": instance and instance.id,
        "references": instance and instance.outputs,
        "forms": [
            {"form": form.j, **vars(form.prompt), "pieces": form.pieces} for form in seen.forms
        ],
        "found": vars(view.found[task.name]) if task.name in view.found else None,
        "answer": seen.answer,
        "log_likelihoods": seen.likelihoods,
        "problems": list(dict.fromkeys(view.problems)),
    }
    return json.dumps(value, indent=1)
