"""Stands in for `ait-jax run` in tests of what starts it: writes run.json stage by stage.

    python tests/support/stand_in_run.py PARENT CPUS run --gin.MODEL_DIR=DIR [--round_0_from=DIR]

A DIR that has a file `fail` makes it exit with the code in there; `wait` makes it wait until told
to stop. What it was called with goes to calls.jsonl beside DIR.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

STAGES = (
    "round_000/splits",
    "round_000/train",
    "round_000/evaluate",
    "round_000/score",
    "round_000/select",
    "round_001/train",
    "round_001/evaluate",
)
STATE: dict = {"schema_version": 1, "code_version": "0", "seed": 0}
STATE["pool"] = {"name": "fake", "fingerprint": "0"}
FIGURES = {"rougeL": 1.5}
EVALUATED = {"test": {**FIGURES, "cls": FIGURES, "gen": FIGURES}}


def main() -> int:
    flags = dict(argument.split("=", 1) for argument in sys.argv[4:])
    folder = Path(flags["--gin.MODEL_DIR"])
    call = {
        "run": folder.name,
        "from": Path(flags.get("--round_0_from", "")).name,
        "cpus": sys.argv[2],
    }
    call["after"] = sorted(path.parent.name for path in folder.parent.glob("*/over"))
    with open(folder.parent / "calls.jsonl", "a") as file:
        file.write(json.dumps(call) + "\n")
    folder.mkdir(exist_ok=True)
    (folder / "config.gin").write_text("SEED = 0\n")
    print(f"at work in {folder}")
    if (folder / "fail").exists():
        print("a reason, at length")
        return int((folder / "fail").read_text())
    if (folder / "wait").exists():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
        (folder / "waiting").write_text("")
        time.sleep(60)
    done: dict = {}
    for stage in STAGES:
        if stage == "round_000/score" and folder.name.startswith("random"):
            continue
        done[stage] = EVALUATED if stage.endswith("evaluate") else {"tasks": 1}
        temporary = folder / ".tmp-run.json"
        temporary.write_text(json.dumps({**STATE, "stages": done}))
        temporary.replace(folder / "run.json")
        time.sleep(0.03)
    (folder / "over").write_text("")
    return 0


if __name__ == "__main__":
    sys.exit(main())
