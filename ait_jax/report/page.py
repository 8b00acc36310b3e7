"""A report's self-contained HTML page, which opens from disk without a network.

Everything that comes from tasks, models or file names is untrusted. It reaches the page only as
gzip + base64 in inert data blocks, whose alphabet cannot end an element, and our scripts insert it
as text. A Content-Security-Policy allows only our own scripts, by their hashes, and no connections.
"""

import base64
import functools
import gzip
import hashlib
import importlib.resources
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

# In the order in which they are joined into one script.
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
        *("comparison_curves", "comparison_differences", "comparison_looks"),
        *("comparison_tables", "comparison"),
    ),
}
# Maps of more tasks are drawn with WebGL. Plotly's WebGL compiles functions at run time, which the
# policy must allow with 'unsafe-eval'; smaller maps need neither.
LARGE_MAP = 4000
# A round's arrays with one value per task; the rest is small and read at once.
_LONG = ("task", "prompt_uncertainty", "prediction_probability", "region", "measures")


def render(payload: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> str:
    """Returns the whole page; the same arguments give the same text.

    Args:
      payload: what the page shows, ready for JSON; "kind" selects the page. The generator in
        tests/benchmarks/report_page.py has every field of kind "run". Kind "comparison" has
        title, version, commands, config, and "result": the contents of compare.json.
      details: chunks {"tasks": [task numbers], "data": {task number: detail}}; the page unpacks a
        chunk when one of its tasks is opened.
    """
    kind = payload["kind"]
    first, later = _blocks(payload, details)
    early, script = _asset("theme_first.js"), page_script(kind)
    plotly = _plotly()
    sizes = [len(each.get("task") or ()) for each in payload.get("rounds", [])]
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
    # What a part contains is not looked at.
    return re.sub(r"\{\{(.*?)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def page_script(kind: str) -> str:
    """Returns the page's script: its files joined in one function."""
    files = "\n".join(_asset(f"{name}.js") for name in SCRIPTS[kind])
    return f'(() => {{\n"use strict";\n{files}\n}})();\n'


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
    """Returns the blocks that the first view needs, and those that may follow the script."""
    rounds = payload.get("rounds", [])
    head = {key: value for key, value in payload.items() if key not in ("tasks", "rounds")}
    head["rounds"] = [_round_head(each) for each in rounds]
    head["large_map"] = LARGE_MAP
    head["details"] = [list(chunk["tasks"]) for chunk in details]
    scored = [i for i, each in enumerate(rounds) if each.get("task")]
    last = scored[-1] if scored else None
    long = [{key: each.get(key) for key in _LONG} for each in rounds]
    first = [_block("head", head), _block("tasks", payload.get("tasks") or {})]
    first += [_block(f"round-{i}", long[i]) for i in scored if i == last]
    later = [_block(f"round-{i}", long[i]) for i in scored if i != last]
    later += [_block(f"details-{i}", chunk["data"]) for i, chunk in enumerate(details)]
    return "\n".join(first), "\n".join(later)


def _round_head(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a round without its long arrays, and with the extent of its scores for the axes."""
    head = {key: value for key, value in scored.items() if key not in _LONG}
    head["num_tasks"] = len(scored.get("task") or ())
    head["measure_names"] = list(scored.get("measures") or ())
    for key in ("prompt_uncertainty", "prediction_probability"):
        known = [v for v in scored.get(key) or () if v is not None and math.isfinite(v)]
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
    """Returns `value` with None for NaN and infinities, which JSON lacks."""
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
    """Returns Plotly at a third of its size; the page unpacks it after its first paint."""
    return _script_block("plotly", _pack(_plotly(), 9))
