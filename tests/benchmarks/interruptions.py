"""Runs that are interrupted at random instants and continued, against one that was not.

    python tests/benchmarks/interruptions.py FOLDER                  20 Ctrl-C and 20 kills
    python tests/benchmarks/interruptions.py FOLDER --times 2 --per_run 10   each of 2 runs gets 10
    python tests/benchmarks/interruptions.py FOLDER --signals INT --times 5 -- --gin_file=my.gin

The first call makes FOLDER/whole, the uninterrupted run; what follows `--` goes to `ait-jax run`.
Each attempt leaves FOLDER/<signal>_<number>.json, so that the same command continues. Exit code 1
if an attempt ended late or wrongly, or its continued run differs in a byte.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import run_files

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
SIGNALS = {"INT": signal.SIGINT, "KILL": signal.SIGKILL}
# How long a run may take to end after Ctrl-C: a step, a batch, a checkpoint; then it has hung.
MOST_SECONDS, HUNG_SECONDS = 30.0, 300.0
# Before, Python itself is starting; after, a run that happens to be faster has ended.
_EARLIEST, _LATEST = 0.5, 0.9
_LATEST_OF_SEVERAL = 60.0


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen:
    """Starts a run in `folder`/run; its path is the same in every configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ait_jax.cli", "run", *arguments, '--gin.MODEL_DIR="run"']
    with open(folder / "out.txt", "ab") as out, open(folder / "err.txt", "wb") as err:
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)


def whole(folder: Path, arguments: Sequence[str]) -> float:
    """Makes the uninterrupted run unless it is there; returns the seconds that it took."""
    record = folder / "whole.json"
    if not record.exists():
        shutil.rmtree(folder / "whole", ignore_errors=True)
        since = time.monotonic()
        if start(folder / "whole", arguments).wait():
            sys.exit((folder / "whole" / "err.txt").read_text())
        common.save(record, {"seconds": time.monotonic() - since})
    return json.loads(record.read_text())["seconds"]


def attempt(
    folder: Path, name: str, instants: Sequence[float], arguments: Sequence[str]
) -> dict[str, Any]:
    """Interrupts a new run at each of `instants` after its start or continuation; compares."""
    here = folder / name
    shutil.rmtree(here, ignore_errors=True)
    ends = [
        interrupt(here, SIGNALS[name.partition("_")[0]], after, arguments) for after in instants
    ]
    problems = [problem for end in ends for problem in end["problems"]]
    if start(here, arguments).wait():
        problems.append(f"does not continue: {(here / 'err.txt').read_text().strip()}")
    else:
        problems += run_files.differences(folder / "whole" / "run", here / "run")
    if not problems:
        shutil.rmtree(here)
    return {
        "attempt": name,
        "after s": [round(after, 1) for after in instants],
        "exit codes": [end["code"] for end in ends],
        "seconds to end": max(end["seconds"] for end in ends),
        "problems": "; ".join(problems) or "none",
    }


def interrupt(
    here: Path, number: signal.Signals, after: float, arguments: Sequence[str]
) -> dict[str, Any]:
    """Starts or continues a run, sends it the signal, and says how it ended."""
    process = start(here, arguments)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    since = time.monotonic()
    try:
        code = process.wait(timeout=HUNG_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    seconds = time.monotonic() - since
    said = (here / "err.txt").read_text().splitlines()
    last = said[-1] if said else ""
    problems = []
    # 0: it was over before, or in its last moments.
    if code not in (0, 130 if number == signal.SIGINT else -number):
        problems.append(f"exit code {code}")
    if seconds > MOST_SECONDS:
        problems.append(f"ended {seconds:.0f} s after the signal")
    if code == 130 and "the same command continues" not in last:
        problems.append(f"said {last!r}")
    if any(line.startswith("Traceback") for line in said):
        problems.append("a traceback")
    return {"code": code, "seconds": seconds, "problems": problems}


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes what attempts are missing, prints all; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    place = given.index("--") if "--" in given else len(given)
    own, rest = given[:place], given[place + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--signals", nargs="+", choices=tuple(SIGNALS), default=list(SIGNALS))
    parser.add_argument("--times", type=int, default=20, help="runs with each signal")
    parser.add_argument("--per_run", type=int, default=1, help="signals that each of them gets")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args(own)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    seconds = whole(folder, rest)
    rows = []
    for name in [f"{kind}_{i:02d}" for kind in options.signals for i in range(options.times)]:
        record = folder / f"{name}.json"
        if not record.exists():
            draw = random.Random(f"{options.seed} {name}").uniform
            # Of several, some must be late enough for a run to come further.
            latest = _LATEST * seconds
            if options.per_run > 1:
                latest = min(seconds, _LATEST_OF_SEVERAL)
            instants = [draw(_EARLIEST, latest) for _ in range(options.per_run)]
            common.save(record, attempt(folder, name, instants, rest))
        rows.append(json.loads(record.read_text()))
        print(rows[-1], flush=True)
    print(common.table(rows))
    wrong = [row["attempt"] for row in rows if row["problems"] != "none"]
    print(f"{len(rows) - len(wrong)} of {len(rows)} ended well and continued to the same bytes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
