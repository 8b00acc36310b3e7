"""What the benchmarks share: machine, processes, tables. `workload` has model and prompts.

    python tests/benchmarks/scorer.py     ours against the authors' way in PyTorch
    python tests/benchmarks/rivals.py     ours against CTranslate2 and transformers
    python tests/benchmarks/limit.py      how near the scorer is to what the machine can do
    python tests/benchmarks/growth.py     devices, pool size, memory

They are run by hand: their numbers are the machine's, so no test holds them to a limit.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEED = 0


# --- the machine ---


def machine() -> dict[str, Any]:
    """Describes processor and versions; starts no JAX backend."""
    names = ("jax", "jaxlib", "flax", "torch", "transformers", "ctranslate2")
    found = [name for name in names if importlib.util.find_spec(name)]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in found},
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return lines[0] if lines else platform.machine()


def describe_machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, load "
        f"{machine['load_average']} at the start; Python {machine['python']}, {versions}"
    )


def jax_matmul_peak(dtype: str, seconds: float = 1.0) -> float:
    """Returns the FLOP/s of JAX's best large matrix product of `dtype` inputs, float32 output."""
    import jax
    import jax.numpy as jnp

    size = 1536 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((size, size), dtype)
    # With bfloat16 output too, XLA's CPU product is several times slower.
    matmul = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    return fastest(lambda: matmul(a, a).block_until_ready(), 2.0 * size**3, seconds)


def fastest(run: Any, flops: float, seconds: float) -> float:
    """Returns FLOP/s of the fastest of as many runs as fit in `seconds`, at least 5."""
    run()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return flops / min(times)


class Stopwatch:
    """Wall-clock time, and how many cores this process and all others used meanwhile.

    Others' share is the one sign of a measurement not worth keeping: threads that wait for
    one another lose far more to a busy neighbour than the neighbour takes.
    """

    def __init__(self):
        self._start, self._own, self._all = self._now()

    def read(self) -> dict[str, float | None]:
        """Returns seconds, cores_used and cores_of_others (None where /proc/stat is absent)."""
        seconds, own, everyone = (
            None if now is None else now - then
            for now, then in zip(self._now(), (self._start, self._own, self._all), strict=True)
        )
        others = None if everyone is None else max(0.0, everyone - own) / seconds
        return {"seconds": seconds, "cores_used": own / seconds, "cores_of_others": others}

    def _now(self) -> tuple[float, float, float | None]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return time.perf_counter(), usage.ru_utime + usage.ru_stime, _busy_seconds()


def _busy_seconds() -> float | None:
    """Processor time of all processes since the machine started, a hypervisor's theft included."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def warn_if_shared(results: Sequence[Mapping[str, Any]]) -> None:
    most = max((result["cores_of_others"] or 0.0 for result in results), default=0.0)
    if most > 0.1:
        print(
            f"\nNOT WORTH KEEPING: other programs used up to {most:.1f} of {os.cpu_count()} cores "
            "during a measurement."
        )


def require_torch(*others: str) -> None:
    """Ends the program where PyTorch, transformers or `others` are not installed."""
    needed = ("torch", "transformers", *others)
    if missing := [name for name in needed if not importlib.util.find_spec(name)]:
        print(
            f"The other side needs {', '.join(missing)}: pip install -e '.[bench]'",
            file=sys.stderr,
        )
        raise SystemExit(2)


# --- processes, tables, JSON ---


def measure_apart(script: str, arguments: Sequence[str], **environment: str) -> Any:
    """Runs `script arguments --result FILE` in a process of its own; returns FILE's JSON.

    Nothing of one measurement (threads, memory, compiled programs) is there in the next.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, script, *map(str, arguments), "--result", str(result)]
        finished = subprocess.run(command, env={**os.environ, **environment})
        if finished.returncode:
            raise SystemExit(finished.returncode)
        return json.loads(result.read_text())


def save(path: str | Path, data: Any) -> None:
    Path(path).write_text(json.dumps(data, indent=1) + "\n")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write everything measured to FILE")
    # Where a process that measures leaves its figures for the one that prints them.
    parser.add_argument("--result", help=argparse.SUPPRESS)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows of equal keys as an aligned Markdown table; None becomes "-"."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]

    def line(texts: Sequence[str]) -> str:
        first, *others = zip(texts, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return "| " + " | ".join(padded) + " |"

    dashes = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    rule = "|" + "|".join(dashes) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def percent(fraction: float | None) -> str | None:
    return None if fraction is None else f"{fraction:.1%}"
