"""What the tests of launching share: a clone to launch from and a stand-in for gcloud on PATH."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import stand_in_gcloud
from ait_jax.launch import accelerators, launch_spec

# Arguments that a shell, a second one, a start-up script or YAML could misread.
HARD_ARGUMENTS = (
    "--gin.A=two words",
    "--gin.A='single'",
    '--gin.A="double"',
    "--gin.A=$HOME",
    "--gin.A=$(touch oops)`touch oops`",
    "--gin.A=\\back\\\\slash\\",
    "--gin.A=*;?[a]|&<>(){}#~!",
    "--gin.A=%s%%d{run}{}",
    "--gin.A=",
    "--gin.A=é→",
    "AIT_JAX_HOST",
    "-n",
)


def a_spec(**changes) -> launch_spec.LaunchSpec:
    values = {
        "name": "t5-xl",
        "accelerator": accelerators.parse("v5e-16"),
        "command": ("run", "--gin_file=experiments/niv2.gin"),
        "bucket": "gs://bucket/runs",
        "zone": "us-west4-a",
        "project": "my-project",
    }
    return launch_spec.checked(launch_spec.LaunchSpec(**(values | changes)))


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def a_clone(folder: Path) -> Path:
    """Returns a git clone with the files that launching looks for, committed."""
    folder.mkdir(parents=True)
    (folder / "constraints.txt").write_text("jax==0.10.2\n")
    (folder / "gin" / "experiments").mkdir(parents=True)
    (folder / "gin" / "experiments" / "niv2.gin").write_text("\n")
    (folder / "mine.gin").write_text("\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    return folder


class StandIn:
    """A folder with `gcloud` in it, and what it was called with."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        # -S -E: no site-packages; a call takes 20 ms.
        program = f'#!/bin/sh\nexec {sys.executable} -S -E {stand_in_gcloud.__file__} "$@"\n'
        executable(self.bin / "gcloud", program)
        self.play(lives=[])

    def play(self, **script) -> None:
        (self.folder / "script.json").write_text(json.dumps(script))

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", "STAND_IN": str(self.folder)}

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        """The calls in short, without looks: `create`, `delete`, `cp`."""
        words = [
            [a for a in call if not a.startswith("-") and a != "alpha"] for call in self.calls()
        ]
        verbs = [call[1] if call[0] == "storage" else call[3] for call in words]
        return [verb for verb in verbs if verb not in ("describe", "cat")]

    def in_bucket(self, path: str) -> Path:
        return self.folder / "bucket" / "bucket" / "runs" / path
