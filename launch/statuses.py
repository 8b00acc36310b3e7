"""What the hosts of a run leave for others in the bucket: statuses, preflight reports, logs.

Hosts write and read them as files of the bucket or a shared folder; the launcher reads them with
gcloud.
"""

import collections
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ait_jax.launch import gcloud

from ait_jax.errors import UserError, visible
from ait_jax.runtime import files, strict_json

SILENT_AFTER_S = 300.0
_MOST_CHARACTERS = 500  # of a text in a status


@dataclasses.dataclass
class Status:
    """The last status of one host; times are in seconds since 1970."""

    host: int
    state: str
    hostname: str = ""
    message: str = ""
    attempt: int = 0
    failures: int = 0
    began: float = 0.0
    time: float = 0.0
    fingerprint: str = ""


def path_of(folder: Any, kind: str, host: int) -> Any:
    """Returns the path of a host's `kind`: "status", "preflight" (its report) or "logs"."""
    ending = "log" if kind == "logs" else "json"
    return files.as_path(folder) / kind / f"host_{host}.{ending}"


def write_json(path: Any, value: dict[str, Any]) -> None:
    """Writes one line of JSON, so that concatenated files stay apart."""
    files.write_text(path, json.dumps(value, sort_keys=True) + "\n")


def read_json(path: Any) -> dict[str, Any] | None:
    """Returns what `write_json` wrote; None if it is missing or incomplete."""
    try:
        value = strict_json.loads(files.read_bytes(path), path)
    except (FileNotFoundError, UserError):
        return None
    return value if isinstance(value, dict) else None


def modified(path: Any) -> float:
    """Returns when `path` was written by its storage's clock, in seconds since 1970."""
    stat = path.stat()
    return float(getattr(stat, "st_mtime", None) or stat.mtime)


def parse(text: str) -> list[Status]:
    """Returns the statuses in lines of JSON, by host; other lines are skipped."""
    found = {}
    kinds = Status.__annotations__
    for line in text.splitlines():
        try:
            value = strict_json.loads(line, "a status")
            status = Status(**{name: kinds[name](value[name]) for name in kinds if name in value})
        except (UserError, ValueError, KeyError, TypeError):
            continue
        for name, kind in kinds.items():
            if kind is str:  # hosts' words, for a terminal
                setattr(status, name, visible(getattr(status, name)[:_MOST_CHARACTERS]))
        found[status.host] = status
    return [found[host] for host in sorted(found)]


def read(folder: str) -> list[Status]:
    """Returns the statuses in the bucket, perhaps none; raises GcloudError."""
    return parse(gcloud.call(gcloud.storage("cat", f"{folder}/status/host_*.json"), missing=""))


def outcome(statuses: Sequence[Status], hosts: int) -> str:
    """Returns `done` when all hosts are, `failed` when one has given up, else ""."""
    if any(status.state == "failed" for status in statuses):
        return "failed"
    done = sum(status.state == "done" for status in statuses)
    return "done" if done == hosts else ""


def culprit(statuses: Sequence[Status]) -> Status:
    """Returns the first host that failed by itself; others gave up only because of it."""
    failed = [status for status in statuses if status.state == "failed"]
    own = [status for status in failed if not status.message.startswith("given up")]
    return min(own or failed, key=lambda status: status.time)


def summary(statuses: Sequence[Status], hosts: int, now: float) -> str:
    """Returns one line: how many hosts are in which state, which are silent."""
    if not statuses:
        return f"no host of {hosts} has reported yet (booting, installing)"
    counts = collections.Counter(status.state for status in statuses)
    counts["not heard of"] = hosts - len(statuses)
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    line = f"{hosts} hosts: {', '.join(parts)}; attempt {max(s.attempt for s in statuses)}"
    silent = [s for s in statuses if s.state != "done" and now - s.time > SILENT_AFTER_S]
    if silent:
        oldest = min(silent, key=lambda status: status.time)
        minutes = (now - oldest.time) / 60
        line += f"; host {oldest.host} ({oldest.hostname}) silent for {minutes:.0f} min"
    return line


def logs(folder: str, host: int | None) -> Iterator[str]:
    """Yields the lines of the hosts' logs, each with its host; UserError if there are none."""
    pattern = f"{folder}/logs/host_{'*' if host is None else host}.log"
    try:
        urls = gcloud.call(gcloud.storage("ls", pattern)).split()
        for url in sorted(urls, key=_host_of):
            for line in gcloud.call(gcloud.storage("cat", url)).splitlines():
                yield f"[host {_host_of(url)}] {visible(line, keep_lines=True)}"
    except gcloud.GcloudError as error:
        if error.kind == "missing":
            raise UserError(f"no logs at {pattern}; hosts write them once they run.") from None
        raise error.for_user(f"reading {pattern}") from None


def _host_of(url: str) -> int:
    number = url.rsplit("host_", 1)[-1].removesuffix(".log")
    return int(number) if number.isdigit() else -1
