"""One self-contained HTML page of a report: opens from disk, without network.

Everything that came from tasks, models or file names is untrusted. It reaches the page only
as gzip + base64 in inert data blocks, whose alphabet cannot end an element, and our scripts
place it as text. A Content-Security-Policy allows our own scripts alone, by their hashes,
and no connection to anywhere.
"""

import base64
import functools
import gzip
import hashlib
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = 1
# In the order in which they are joined into the page's one script.
SHARED_SCRIPTS = ("dom", "numbers", "data", "theme", "plot", "tables", "curves", "setup")
SCRIPTS = {
    "run": (
        *SHARED_SCRIPTS,
        *("summary", "learning_curves", "run_data", "matches", "map_traces", "map_controls"),
        *("task_map", "task_list", "word_diff", "task_prompts", "task_detail", "run_tables"),
        *("training", "run"),
    ),
    "comparison": (
        *SHARED_SCRIPTS,
        *("comparison_curves", "comparison_differences", "comparison_tables", "comparison"),
    ),
}
# Maps of more tasks are drawn by WebGL. Plotly's WebGL compiles functions at run time, which
# the policy must allow with 'unsafe-eval'; smaller maps do without both.
LARGE_MAP = 4000
# Arrays of a round that are as long as its tasks; the rest is small and read at once.
_LONG = ("task", "prompt_uncertainty", "prediction_probability", "region", "measures")


def render(payload: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """Returns the whole page; the same arguments give the same text.

    Args:
      payload: what the page shows, JSON-able; "kind" picks the page. The generator in
        tests/benchmarks/report_page.py has every field of kind "run". Of kind "comparison":
        title, version, commands, config, and "result": what compare.json holds.
      details: chunks {"tasks": [task numbers], "data": {task number: detail}}; a chunk is
        unpacked when one of its tasks is opened.

    Raises:
      ValueError: a kind that there is no page for.
    """
    kind = payload["kind"]
    if kind not in SCRIPTS:
        raise ValueError(
            f"There is no page for reports of kind {kind!r}; there is {list(SCRIPTS)}."
        )
    first, later = _blocks(payload, details)
    early, script = _asset("theme_first.js"), page_script(kind)
    plotly = _plotly()
    sizes = [len(round.get("task") or ()) for round in payload.get("rounds", [])]
    webgl = max(sizes, default=0) > LARGE_MAP
    parts = {
        "csp": _content_security_policy(early, script, plotly, webgl=webgl),
        "style": _asset("page.css"),
        "early": early,
        "main": _asset(f"{kind}.html"),
        "plotly": _packed_plotly(),
        "first": first,
        "script": script,
        "later": later,
    }
    return _fill(_asset("page.html"), parts)


def page_script(kind: str) -> str:
    """Returns the page's script: its files joined inside one function."""
    files = "\n".join(_asset(f"{name}.js") for name in SCRIPTS[kind])
    return f'(() => {{\n"use strict";\n{files}\n}})();\n'


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Puts parts in place of {{name}}, once; what a part contains is not looked at."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _content_security_policy(*scripts: str, webgl: bool) -> str:
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    if webgl:
        sources += " 'unsafe-eval'"
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


# --- data blocks ---


def _blocks(payload: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Returns the blocks that the first view needs and those that can come after the script."""
    rounds = payload.get("rounds", [])
    head = {key: value for key, value in payload.items() if key not in ("tasks", "rounds")}
    head["rounds"] = [_round_head(round) for round in rounds]
    head["large_map"] = LARGE_MAP
    head["details"] = [list(chunk["tasks"]) for chunk in details]
    scored = [i for i, round in enumerate(rounds) if round.get("task")]
    last = scored[-1] if scored else None
    long = [{key: round.get(key) for key in _LONG} for round in rounds]
    first = [_block("head", head), _block("tasks", payload.get("tasks") or {})]
    first += [_block(f"round-{i}", long[i]) for i in scored if i == last]
    later = [_block(f"round-{i}", long[i]) for i in scored if i != last]
    later += [_block(f"details-{i}", chunk["data"]) for i, chunk in enumerate(details)]
    return "\n".join(first), "\n".join(later)


def _round_head(round: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is short of a round, with the extent of its scores for common axes."""
    head = {key: value for key, value in round.items() if key not in _LONG}
    head["num_tasks"] = len(round.get("task") or ())
    head["measure_names"] = list(round.get("measures") or ())
    for key in ("prompt_uncertainty", "prediction_probability"):
        known = [v for v in round.get(key) or () if v is not None and math.isfinite(v)]
        head[f"{key}_extent"] = [min(known), max(known)] if known else None
    return head


def _block(name: str, value: Any) -> str:
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return _script_block(name, _pack(text))


def _script_block(name: str, packed: str) -> str:
    return f'<script type="application/x-gzip-base64" id="block-{name}">{packed}</script>'


def _pack(text: str, level: int = 6) -> str:
    return base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode()


def _finite(value: Any) -> Any:
    """Returns `value` with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


# --- our files and plotly's ---


@functools.cache
def _asset(name: str) -> str:
    folder = importlib.resources.files("ait_jax.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


@functools.cache
def _packed_plotly() -> str:
    """A third of the plain text; the page unpacks it after its first paint."""
    return _script_block("plotly", _pack(_plotly(), 9))
