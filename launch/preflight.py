"""Checks that all hosts are as asked for, in under a minute, before the first step costs anything.

    python -m ait_jax.launch.preflight --folder=gs://B/ID --host=0 --hosts=64 --chips=256

Every host writes a report to the folder and reads the others'. First comes what needs no
accelerator: the same code, lock and packages everywhere, free disk, the clock, a writable folder.
The accelerator, which on a pod waits for every host, starts only when all hosts have arrived, so a
missing host is named, not waited for in silence. Then come backend, devices and topology. Exit
codes: 0; 78 a host is not as asked for (it is named); 69 a host did not arrive, or its accelerator
did not start in time, which also happens when another host is just taken away.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypedDict

from ait_jax.launch import statuses

from ait_jax.errors import ExitCode, UserError, visible
from ait_jax.runtime import strict_json
from ait_jax.runtime.buckets import Unavailable

CHECKS_TIMEOUT_S = 55.0
MAX_CLOCK_SKEW_S = 10.0
# Waiting hosts rewrite their report; one older than this is from an earlier attempt, or its host
# is gone.
FRESH_S = 45.0
REWRITE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Devices:
    """What JAX sees: `coordinates` of all devices, empty if the backend has none."""

    backend: str
    count: int
    local_count: int
    coordinates: tuple[tuple[int, ...], ...] = ()


class Probe:
    """Looks at this host; tests pass another one."""

    def __init__(self, commit: str = "", lock: str = "", distributed: str = "") -> None:
        self.commit, self.lock, self.distributed = commit, lock, distributed

    def identity(self) -> dict[str, Any]:
        """Returns what must be the same on every host."""
        packages = {
            f"{d.metadata['Name']}=={d.version}".lower().replace("_", "-")
            for d in importlib.metadata.distributions()
        }
        return {
            "code": code_sha256(Path(__file__).resolve().parent.parent),
            "commit": self.commit,
            "lock": hashlib.sha256(Path(self.lock).read_bytes()).hexdigest() if self.lock else "",
            "python": platform.python_version(),
            "packages": sorted(packages),
        }

    def free_gb(self) -> float:
        """Returns the free disk space of the fuller of home and /tmp."""
        return min(shutil.disk_usage(folder).free for folder in (Path.home(), "/tmp")) / 1e9

    def now(self) -> float:
        """Returns this host's time, in seconds since 1970."""
        return time.time()

    def devices(self) -> Devices:
        """Starts JAX as the command will; on a pod it returns when all hosts have arrived."""
        import jax

        if self.distributed:
            jax.distributed.initialize(
                initialization_timeout=int(CHECKS_TIMEOUT_S),
                cluster_detection_method="slurm" if self.distributed == "slurm" else None,
            )
        all_devices = jax.devices()
        coordinates = [tuple(getattr(device, "coords", None) or ()) for device in all_devices]
        found = Devices(
            jax.default_backend(),
            len(all_devices),
            jax.local_device_count(),
            tuple(coordinates) if all(coordinates) else (),
        )
        if self.distributed:
            # All hosts leave together: the first to go alone would take the others down.
            jax.distributed.shutdown()
        return found


def code_sha256(folder: Path) -> str:
    """Hashes names and bytes of the Python, gin and TOML files below `folder`, ordered by name."""
    digest = hashlib.sha256()
    for path in sorted(p for kind in ("*.py", "*.gin", "*.toml") for p in folder.rglob(kind)):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def host_problems(free_gb: float, skew_s: float, least_gb: float) -> list[str]:
    """Returns what is wrong with one host before its accelerator is started."""
    problems = []
    if free_gb < least_gb:
        problems.append(
            f"{free_gb:.1f} GB of disk are free, {least_gb:.1f} are needed; delete old "
            "runs in /opt/ait_jax and /tmp"
        )
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        problems.append(
            f"its clock is {skew_s:+.0f} s off the bucket's, {MAX_CLOCK_SKEW_S:.0f} s are allowed; "
            "restart its time service"
        )
    return problems


def device_problems(devices: Devices, asked: argparse.Namespace) -> list[str]:
    """Returns what is wrong with the devices that one host sees."""
    if devices.backend != asked.expect_backend:
        return [
            f"JAX's backend is {devices.backend}, not {asked.expect_backend}; another process "
            "holds the TPU (sudo fuser -v /dev/accel* /dev/vfio/*), or jax was installed without "
            "[tpu]"
        ]
    problems = []
    if devices.count != asked.chips:
        problems.append(f"{devices.count} devices in all, not {asked.chips}")
    if devices.local_count * asked.hosts != asked.chips:
        per_host = asked.chips / asked.hosts
        problems.append(f"{devices.local_count} devices of its own, not {per_host:g}")
    found = topology_of(devices.coordinates)
    if asked.topology and found and found != _significant(asked.topology.split("x")):
        shown = "x".join(str(length) for length in found)
        problems.append(f"the topology is {shown}, not {asked.topology}")
    return problems


def topology_of(coordinates: Sequence[Sequence[int]]) -> list[int]:
    """Returns the lengths of the box that the devices fill, sorted, without ones."""
    if not coordinates:
        return []
    return _significant(max(axis) - min(axis) + 1 for axis in zip(*coordinates, strict=True))


def _significant(lengths: Iterable[int | str]) -> list[int]:
    return sorted(int(length) for length in lengths if int(length) > 1)


def differences(reports: Sequence[dict]) -> list[str]:
    """Names the hosts whose code, lock, Python or packages differ from those of most hosts."""
    problems = []
    for key in ("commit", "code", "lock", "python", "packages"):
        values = [str(report["identity"][key]) for report in reports]
        usual = collections.Counter(values).most_common(1)[0][0]
        reference = reports[values.index(usual)]
        for report, value in zip(reports, values, strict=True):
            if value != usual:
                problems.append(f"{_name(report)}: {_difference(key, report, reference)}")
    return problems


def _difference(key: str, report: dict, reference: dict) -> str:
    here, there = report["identity"][key], reference["identity"][key]
    if key == "packages":
        changed = sorted(set(here) ^ set(there))
        return f"packages differ from {_name(reference)}: {', '.join(changed[:6])}"
    return f"{key} {here[:12] or 'none'}, but {there[:12] or 'none'} on {_name(reference)}"


def _name(report: Mapping[str, Any]) -> str:
    return f"host {report['host']} ({report['hostname']})"


class _Identity(TypedDict):
    code: str
    commit: str
    lock: str
    python: str
    packages: list[str]


class _Report(TypedDict):
    host: int
    hostname: str
    identity: _Identity
    problems: list[str]
    stage: str


class Preflight:
    """One host's part, `asked` for by the flags; `run` returns the exit code and says why."""

    def __init__(
        self, asked: argparse.Namespace, probe: Any, say: Callable[[str], None] = print
    ) -> None:
        self.asked, self.probe = asked, probe
        self.say = lambda line: say(visible(line))  # other hosts' words, too
        self.path = statuses.path_of(asked.folder, "preflight", asked.host)
        self.report: dict[str, Any] = {
            "host": asked.host,
            "hostname": socket.gethostname(),
            "identity": {},
            "problems": [],
            "stage": "host",
            "timed_out": False,
        }

    def run(self) -> int:
        """Checks the host, then its devices."""
        began = time.monotonic()
        code = self._host_stage() or self._device_stage()
        if code == ExitCode.OK:
            took = time.monotonic() - began
            self.say(
                f"preflight: {self.asked.hosts} hosts, {self.asked.chips} "
                f"{self.asked.expect_backend} devices, same code and packages everywhere; "
                f"{took:.0f} s"
            )
        return code

    def _host_stage(self) -> int:
        self.report["identity"] = self.probe.identity()
        try:
            skew = self._write()
        except Unavailable as error:
            self.say(f"preflight: {_name(self.report)}: {error}")
            return ExitCode.FAILED
        except Exception as error:
            self.say(
                f"preflight: {_name(self.report)} cannot write to {self.asked.folder}: {error}. "
                "Give its service account roles/storage.objectAdmin on the bucket."
            )
            return ExitCode.PREFLIGHT
        free_gb = self.probe.free_gb()
        self.report["problems"] = host_problems(free_gb, skew, self.asked.min_free_gb)
        self._write()
        return self._wait("host", self.asked.arrival_timeout_s)

    def _device_stage(self) -> int:
        """Starts the accelerator in a thread, because a driver that hangs cannot be interrupted."""
        found: Future[Devices] = Future()

        def look() -> None:
            try:
                found.set_result(self.probe.devices())
            except Exception as error:
                found.set_exception(error)

        began = time.monotonic()
        threading.Thread(target=look, daemon=True).start()
        timed_out = not wait([found], self.asked.checks_timeout_s).done
        if timed_out:
            problems = [f"JAX found no devices within {self.asked.checks_timeout_s:g} s"]
        elif failed := found.exception():
            problems = [f"JAX found no devices: {' '.join(str(failed).split())[:300]}"]
        else:
            problems = device_problems(found.result(), self.asked)
        self.report |= {"stage": "devices", "problems": problems, "timed_out": timed_out}
        self._write()
        left = self.asked.checks_timeout_s - (time.monotonic() - began)
        return self._wait("devices", max(left, 5 * self.asked.poll_s))

    def _write(self) -> float:
        """Writes the report; returns how far this clock is ahead of the folder's."""
        now = self.probe.now()
        statuses.write_json(self.path, self.report)
        return now - statuses.modified(self.path)

    def _wait(self, stage: str, timeout_s: float) -> int:
        """Waits until every host's report of this stage has arrived and shows no problem."""
        deadline, rewrite = time.monotonic() + timeout_s, time.monotonic() + REWRITE_S
        known: dict[int, dict] = {}
        while True:
            # Reports that have arrived are reread only at the end: hundreds of hosts that read
            # hundreds of files every other second are too much for a bucket.
            missing = [host for host in range(self.asked.hosts) if host not in known]
            known |= self._fresh_reports(stage, missing)
            if known and len(missing) < len(known) == self.asked.hosts:
                known = self._fresh_reports(stage, sorted(known))
            reports = [known[host] for host in sorted(known)]
            problems = [
                f"{_name(report)}: {problem}"
                for report in reports
                for problem in report["problems"]
            ]
            problems = problems or differences(reports)
            if problems:
                for problem in problems[:10]:
                    self.say(f"preflight: {problem}.")
                wrong = [report for report in reports if report["problems"]]
                late = wrong and all(report.get("timed_out") for report in wrong)
                return ExitCode.HOST_LOST if late else ExitCode.PREFLIGHT
            if len(reports) == self.asked.hosts:
                return ExitCode.OK
            if time.monotonic() > deadline:
                missing = [host for host in range(self.asked.hosts) if host not in known]
                named = ", ".join(map(str, missing[:20]))
                self.say(
                    f"preflight: host {named} of {self.asked.hosts} did not reach the check of "
                    f"{'its devices' if stage == 'devices' else 'all hosts'} within "
                    f"{timeout_s:.3g} s; its log: {self.asked.folder}/logs/host_{missing[0]}.log"
                )
                return ExitCode.HOST_LOST
            if time.monotonic() > rewrite:
                self._write()
                rewrite = time.monotonic() + REWRITE_S
            time.sleep(self.asked.poll_s)

    def _fresh_reports(self, stage: str, hosts: Sequence[int]) -> dict[int, dict]:
        """Returns the reports of these hosts that have reached `stage` in this attempt."""
        newest = statuses.modified(self.path)

        def read(host: int) -> dict | None:
            path = statuses.path_of(self.asked.folder, "preflight", host)
            report = statuses.read_json(path)
            if not report or report.get("host") != host:
                return None
            with contextlib.suppress(OSError, UserError):  # also one that no preflight wrote
                strict_json.typed(report, _Report, path)
                if newest - statuses.modified(path) <= FRESH_S:
                    arrived = stage == "host" or report["stage"] == stage
                    # Do not wait for a host that has failed already.
                    return report if arrived or report["problems"] else None
            return None

        with ThreadPoolExecutor(min(32, self.asked.hosts)) as pool:
            return {report["host"]: report for report in pool.map(read, hosts) if report}


def shared_flags() -> argparse.ArgumentParser:
    """Returns the flags that the worker hands on, as a parent of both parsers."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--folder", required=True, help="of all hosts: reports, logs, statuses")
    shared.add_argument("--hosts", type=int, required=True)
    shared.add_argument("--chips", type=int, required=True, help="JAX devices of all hosts")
    shared.add_argument("--topology", default="")
    shared.add_argument("--expect_backend", default="tpu")
    shared.add_argument("--commit", default="")
    shared.add_argument("--lock", default="", help="the lock file used to install")
    shared.add_argument("--arrival_timeout_s", type=float, default=900.0)
    return shared


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all flags."""
    parser = argparse.ArgumentParser(
        prog="ait_jax.launch.preflight", allow_abbrev=False, parents=[shared_flags()]
    )
    parser.add_argument("--host", type=int, required=True)
    parser.add_argument("--checks_timeout_s", type=float, default=CHECKS_TIMEOUT_S)
    parser.add_argument("--min_free_gb", type=float, default=5.0)
    parser.add_argument("--poll_s", type=float, default=2.0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks this host; returns the exit code."""
    options = parser().parse_args(arguments)
    # JAX does not count one host as a cluster.
    distributed = os.environ.get("AIT_JAX_DISTRIBUTED", "") if options.hosts > 1 else ""
    probe = Probe(options.commit, options.lock, distributed)
    return Preflight(options, probe).run()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A driver that hangs in its thread must not keep the process alive.
    os._exit(code)
