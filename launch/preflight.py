"""Whether all hosts are as asked for, in under a minute, before the first step costs anything.

    python -m ait_jax.launch.preflight --folder=gs://B/ID --host=0 --hosts=64 --chips=256

Every host writes a report to the folder and reads the others'. First what needs no accelerator:
the same code, lock and packages everywhere, free disk, the clock, and that the folder can be
written at all. Only when all hosts have come is the accelerator started, which on a pod waits for
every host: so a host that is missing is named, not waited for in silence. Then backend, devices
and topology. Exit codes: 0; 78 a host is not as asked for (it is named); 69 a host did not come,
or its accelerator did not start in time, which is also so when another host is just taken away.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ait_jax.launch import bucket

from ait_jax.errors import ExitCode
from ait_jax.runtime.buckets import Unavailable

CHECKS_TIMEOUT_S = 55.0
MIN_FREE_GB = 5.0
MAX_CLOCK_SKEW_S = 10.0
# Waiting hosts write their report again; one that has been silent for so long is of an earlier
# attempt, or its host is gone.
FRESH_S = 45.0
REWRITE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was asked for: hosts, chips of all of them, `4x4` or "", `tpu`, seconds."""

    hosts: int
    chips: int
    topology: str = ""
    backend: str = "tpu"
    arrival_timeout_s: float = 900.0
    checks_timeout_s: float = CHECKS_TIMEOUT_S
    poll_s: float = 2.0
    min_free_gb: float = MIN_FREE_GB


@dataclasses.dataclass(frozen=True)
class Devices:
    """What JAX sees: `coordinates` of all devices, empty where the backend has none."""

    backend: str
    count: int
    local_count: int
    coordinates: tuple[tuple[int, ...], ...] = ()


class Probe:
    """Looks at this host; tests give another one."""

    def __init__(self, commit: str = "", lock: str = "", distributed: str = "") -> None:
        self.commit, self.lock, self.distributed = commit, lock, distributed

    def identity(self) -> dict:
        """What must be the same on every host."""
        packages = sorted(
            {
                f"{d.metadata['Name']}=={d.version}".lower().replace("_", "-")
                for d in importlib.metadata.distributions()
            }
        )
        return {
            "code": code_sha256(Path(__file__).resolve().parent.parent),
            "commit": self.commit,
            "lock": hashlib.sha256(Path(self.lock).read_bytes()).hexdigest() if self.lock else "",
            "python": ".".join(str(part) for part in sys.version_info[:3]),
            "packages": packages,
        }

    def free_gb(self) -> float:
        return min(shutil.disk_usage(folder).free for folder in (Path.home(), "/tmp")) / 1e9

    def now(self) -> float:
        return time.time()

    def devices(self) -> Devices:
        """Starts JAX as the command will; on a pod it returns when all hosts have."""
        import jax

        if self.distributed:
            method = {"slurm": "slurm"}.get(self.distributed)
            jax.distributed.initialize(
                initialization_timeout=int(CHECKS_TIMEOUT_S), cluster_detection_method=method
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
            # All hosts leave together, or the first to go would take the others down with it.
            jax.distributed.shutdown()
        return found


def code_sha256(folder: Path) -> str:
    """Hashes names and bytes of the Python and gin files below `folder`, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.gin") for path in folder.rglob(kind)):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def host_problems(free_gb: float, skew_s: float, asked: Asked) -> list[str]:
    """Returns what is wrong with one host before its accelerator is started."""
    problems = []
    if free_gb < asked.min_free_gb:
        problems.append(
            f"{free_gb:.1f} GB of disk are free, needed: {asked.min_free_gb:.1f}; delete old runs "
            "in /opt/ait_jax and /tmp"
        )
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        problems.append(
            f"its clock is {skew_s:+.0f} s off the bucket's, allowed: {MAX_CLOCK_SKEW_S:.0f} s; "
            "restart its time service"
        )
    return problems


def device_problems(devices: Devices, asked: Asked) -> list[str]:
    """Returns what is wrong with the devices that one host sees."""
    if devices.backend != asked.backend:
        return [
            f"JAX's backend is {devices.backend}, needed: {asked.backend}; another process holds "
            "the TPU (sudo fuser -v /dev/accel* /dev/vfio/*), or jax came without [tpu]"
        ]
    problems = []
    if devices.count != asked.chips:
        problems.append(f"{devices.count} devices in all, needed: {asked.chips}")
    if devices.local_count * asked.hosts != asked.chips:
        per_host = asked.chips / asked.hosts
        problems.append(f"{devices.local_count} devices of its own, needed: {per_host:g}")
    found = topology_of(devices.coordinates)
    if asked.topology and found and found != _significant(asked.topology.split("x")):
        shown = "x".join(str(length) for length in found)
        problems.append(f"the topology is {shown}, needed: {asked.topology}")
    return problems


def topology_of(coordinates: Sequence[Sequence[int]]) -> list[int]:
    """Returns the lengths of the box that the devices fill, sorted, without ones."""
    if not coordinates:
        return []
    return _significant(max(axis) - min(axis) + 1 for axis in zip(*coordinates, strict=True))


def _significant(lengths) -> list[int]:
    return sorted(int(length) for length in lengths if int(length) > 1)


def differences(reports: Sequence[dict]) -> list[str]:
    """Names the hosts whose code, lock, Python or packages are not those of most hosts."""
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
        return f"other packages than {_name(reference)}: {', '.join(changed[:6])}"
    return f"{key} {here[:12] or 'none'}, but {there[:12] or 'none'} on {_name(reference)}"


def _name(report: dict) -> str:
    return f"host {report['host']} ({report['hostname']})"


class Preflight:
    """One host's part. `run` returns the exit code and says, in a line, why."""

    def __init__(
        self, folder, host: int, asked: Asked, probe: Probe, say: Callable = print
    ) -> None:
        self.folder, self.host, self.asked, self.probe, self.say = folder, host, asked, probe, say
        self.path = bucket.report_path(folder, host)
        self.report = {
            "host": host,
            "hostname": socket.gethostname(),
            "identity": {},
            "problems": [],
            "stage": "host",
            "timed_out": False,
        }

    def run(self) -> int:
        began = time.monotonic()
        code = self._host_stage() or self._device_stage()
        if code == ExitCode.OK:
            took = time.monotonic() - began
            self.say(
                f"preflight: {self.asked.hosts} hosts, {self.asked.chips} {self.asked.backend} "
                f"devices, same code and packages everywhere; {took:.0f} s"
            )
        return code

    def _host_stage(self) -> int:
        self.report["identity"] = self.probe.identity()
        try:
            skew = self._write()
        except Unavailable as error:
            self.say(f"preflight: host {self.host} ({socket.gethostname()}): {error}")
            return ExitCode.FAILED
        except Exception as error:
            self.say(
                f"preflight: host {self.host} ({socket.gethostname()}) cannot write to "
                f"{self.folder}: {error}. Give its service account roles/storage.objectAdmin on "
                "the bucket."
            )
            return ExitCode.PREFLIGHT
        self.report["problems"] = host_problems(self.probe.free_gb(), skew, self.asked)
        self._write()
        return self._wait("host", self.asked.arrival_timeout_s)

    def _device_stage(self) -> int:
        """Starts the accelerator in a thread: a driver that hangs cannot be interrupted."""
        found: list = []

        def look() -> None:
            try:
                found.append(self.probe.devices())
            except Exception as error:
                found.append(error)

        began = time.monotonic()
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(self.asked.checks_timeout_s)
        if not found:
            problem = f"JAX found no devices within {self.asked.checks_timeout_s:g} s"
        elif isinstance(found[0], Exception):
            problem = f"JAX found no devices: {' '.join(str(found[0]).split())[:300]}"
        else:
            problem = ""
        problems = [problem] if problem else device_problems(found[0], self.asked)
        self.report |= {"stage": "devices", "problems": problems, "timed_out": not found}
        self._write()
        left = self.asked.checks_timeout_s - (time.monotonic() - began)
        return self._wait("devices", max(left, 5 * self.asked.poll_s))

    def _write(self) -> float:
        """Writes the report; returns how far this clock is ahead of the folder's."""
        now = self.probe.now()
        bucket.write(self.path, self.report)
        return now - bucket.modified(self.path)

    def _wait(self, stage: str, timeout_s: float) -> int:
        """Waits until every host's report of this stage is there and right."""
        deadline, rewrite = time.monotonic() + timeout_s, time.monotonic() + REWRITE_S
        known: dict[int, dict] = {}
        while True:
            # Those that have come are read once more at the end: hundreds of hosts that read
            # hundreds of files every other second are more than a bucket answers.
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
                    f"preflight: host {named} of {self.asked.hosts} did not come "
                    f"to the check of {'its devices' if stage == 'devices' else 'all hosts'} "
                    f"within {timeout_s:.3g} s; its log: {self.folder}/logs/host_{missing[0]}.log"
                )
                return ExitCode.HOST_LOST
            if time.monotonic() > rewrite:
                self._write()
                rewrite = time.monotonic() + REWRITE_S
            time.sleep(self.asked.poll_s)

    def _fresh_reports(self, stage: str, hosts: Sequence[int]) -> dict[int, dict]:
        """Returns reports of this attempt that have come to `stage`, of these hosts."""
        newest = bucket.modified(self.path)

        def read(host: int) -> dict | None:
            path = bucket.report_path(self.folder, host)
            report = bucket.read(path)
            if not report or report.get("host") != host or not report.get("identity"):
                return None
            with contextlib.suppress(OSError):
                if newest - bucket.modified(path) <= FRESH_S:
                    arrived = stage == "host" or report["stage"] == stage
                    # A host that has failed already is not waited for.
                    return report if arrived or report["problems"] else None
            return None

        with ThreadPoolExecutor(min(32, self.asked.hosts)) as pool:
            return {report["host"]: report for report in pool.map(read, hosts) if report}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ait_jax.launch.preflight", allow_abbrev=False)
    parser.add_argument("--folder", required=True, help="where hosts leave their reports")
    parser.add_argument("--host", type=int, required=True)
    parser.add_argument("--hosts", type=int, required=True)
    parser.add_argument("--chips", type=int, required=True, help="JAX devices of all hosts")
    parser.add_argument("--topology", default="")
    parser.add_argument("--expect_backend", default="tpu")
    parser.add_argument("--commit", default="")
    parser.add_argument("--lock", default="")
    parser.add_argument("--arrival_timeout_s", type=float, default=Asked.arrival_timeout_s)
    parser.add_argument("--checks_timeout_s", type=float, default=CHECKS_TIMEOUT_S)
    parser.add_argument("--min_free_gb", type=float, default=MIN_FREE_GB)
    parser.add_argument("--poll_s", type=float, default=2.0)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    asked = Asked(
        options.hosts, options.chips, options.topology, options.expect_backend,
        options.arrival_timeout_s, options.checks_timeout_s, options.poll_s, options.min_free_gb,
    )  # fmt: skip
    # One host is no cluster to JAX.
    distributed = os.environ.get("AIT_JAX_DISTRIBUTED", "") if options.hosts > 1 else ""
    probe = Probe(options.commit, options.lock, distributed)
    return Preflight(options.folder, options.host, asked, probe).run()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A driver that hangs in its thread must not keep the process; what was written is whole.
    os._exit(code)
