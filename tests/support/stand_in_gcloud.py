"""A `gcloud` that keeps a bucket in a folder and plays queued resources from a script.

The folder named by STAND_IN holds `script.json`, what is to happen, and gets `calls.jsonl`, one
line of arguments a call, and `bucket/`, for gs://. In the script:

  lives    one list of scenes for each creation; each look (`describe`) moves to the next one;
           the last one stays. A scene is {"state": "ACTIVE", "node": "READY", "hosts":
           {"0": {...}}}: the resource's state, its TPU VM's, and what hosts write into the bucket.
           The scene "absent" is a resource that is not there.
  errors   verb ("create") -> texts of the next calls' failures, "" for none.
  existing whether the first life is there before any creation.
  leaves   whether an "absent" resource is gone for good, so that it can be created.
"""

import fnmatch
import json
import os
import re
import shutil
import sys
from pathlib import Path

HOME = Path(os.environ.get("STAND_IN", "."))


def main(arguments: list[str]) -> int:
    with open(HOME / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    state = Play(json.loads((HOME / "script.json").read_text()))
    words = [a for a in arguments if not a.startswith("-") and a not in ("alpha", "beta")]
    verb = words[1] if words[0] == "storage" else words[3]
    errors = state.script.get("errors", {}).get(f"{words[2]} {verb}", None)
    errors = errors if errors is not None else state.script.get("errors", {}).get(verb, [])
    code = 0
    if errors and (text := errors.pop(0)):
        print(text, file=sys.stderr)
        code = 1
    elif words[0] == "storage":
        code = storage(verb, words[2:])
    else:
        code = getattr(state, f"{words[2]}_{verb}".replace("-", "_"))(words[4], arguments)
    (HOME / "script.json").write_text(json.dumps(state.script))
    return code


def local(url: str) -> Path:
    return HOME / "bucket" / url.removeprefix("gs://") if url.startswith("gs://") else Path(url)


def storage(verb: str, urls: list[str]) -> int:
    if verb == "cp":
        target = local(urls[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local(urls[0]), target)
        return 0
    pattern = str(local(urls[0]))
    files = sorted(path for path in (HOME / "bucket").rglob("*") if path.is_file())
    found = [path for path in files if fnmatch.fnmatch(str(path), pattern)]
    if not found:
        print(f"ERROR: (gcloud.storage.{verb}) The following URLs matched no objects or files:\n"
              f"{urls[0]}", file=sys.stderr)  # fmt: skip
        return 1
    for path in found:
        if verb == "cat":
            sys.stdout.write(path.read_text())
        elif verb == "ls":
            print(f"gs://{path.relative_to(HOME / 'bucket')}")
        elif verb == "rm":
            path.unlink()
    return 0


class Play:
    """The queued resource and its TPU VM."""

    def __init__(self, script: dict):
        self.script = script
        script.setdefault("life", 0 if script.get("existing") else -1)
        script.setdefault("scene", 0)
        script.setdefault("there", bool(script.get("existing")))

    def scene(self, name: str, back: int = 0) -> dict:
        scenes = self.script["lives"][self.script["life"]] if self.script["there"] else []
        number = max(self.script["scene"] - back, 0)
        scene = scenes[min(number, len(scenes) - 1)] if scenes else "absent"
        if scene == "absent":
            self.script["scene"] += 1
            self.script["there"] = self.script["there"] and not self.script.get("leaves")
            print(f"ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource '{name}' was not found",
                  file=sys.stderr)  # fmt: skip
            sys.exit(self.leave(1))
        return scene

    def leave(self, code: int) -> int:
        (HOME / "script.json").write_text(json.dumps(self.script))
        return code

    def queued_resources_create(self, name: str, arguments: list[str]) -> int:
        if self.script["there"]:
            print("ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS: Resource "
                  f"'{name}' already exists", file=sys.stderr)  # fmt: skip
            return 1
        flags = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
        startup = Path(flags["metadata-from-file"].removeprefix("startup-script="))
        (HOME / "startup.sh").write_text(startup.read_text())
        self.script |= {"there": True, "life": self.script["life"] + 1, "scene": 0, "flags": flags}
        return 0

    def queued_resources_describe(self, name: str, arguments: list[str]) -> int:
        scene = self.scene(name)
        self.script["scene"] += 1
        for host, status in scene.get("hosts", {}).items():
            self.write_status(name, int(host), status)
        flags = self.script.get("flags", {})
        labels = dict(pair.split("=") for pair in flags.get("labels", "").split(",") if pair)
        node = {"acceleratorType": self.accelerator(), "labels": labels}
        state = {"state": scene["state"]}
        if "error" in scene:
            state["failedData"] = {"error": {"message": scene["error"]}}
        print(json.dumps({"name": name, "state": state, "tpu": {"nodeSpec": [{"node": node}]}}))
        return 0

    def accelerator(self) -> str:
        flags = self.script.get("flags", {})
        return flags.get("accelerator-type", self.script.get("accelerator", ""))

    def tpu_vm_describe(self, name: str, arguments: list[str]) -> int:
        alone = self.script.get("node_only", False)
        scene = self.scene(name, 0 if alone else 1)  # the resource was looked at before
        if alone:
            self.script["scene"] += 1
            for host, status in scene.get("hosts", {}).items():
                self.write_status(name, int(host), status)
        node = {"state": scene.get("node", "READY"), "acceleratorType": self.accelerator()}
        print(json.dumps(node))
        return 0

    def tpu_vm_ssh(self, name: str, arguments: list[str]) -> int:
        return 0

    def write_status(self, name: str, host: int, status: dict) -> None:
        script = (HOME / "startup.sh").read_text() if (HOME / "startup.sh").exists() else ""
        written = re.search(r"--fingerprint=(\w+)", script)
        fingerprint = written[1] if written else self.script.get("fingerprint", "")
        folder = HOME / "bucket" / "bucket" / "runs" / self.script.get("run", name) / "status"
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "fingerprint": fingerprint,
            "host": host,
            "hostname": f"tpu-w-{host}",
            "time": 1e10,
        }
        (folder / f"host_{host}.json").write_text(json.dumps(value | status) + "\n")

    def queued_resources_delete(self, name: str, arguments: list[str]) -> int:
        scene = self.scene(name)
        if scene["state"] in ("SUSPENDED", "FAILED", "ACTIVE") and "--force" not in arguments:
            print("ERROR: FAILED_PRECONDITION: the queued resource has nodes", file=sys.stderr)
            return 1
        self.script["there"] = False
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
