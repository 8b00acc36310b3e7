"""`ait-jax launch tpu-vm`: requests a TPU, watches the run on it, deletes it at the end.

No state is kept here: all of it lies with Google's resource manager and in the bucket, so this
program may be stopped and started again at any time.
"""

import contextlib
import dataclasses
import shlex
import time
from collections import deque
from pathlib import Path
from typing import Any

from ait_jax.launch import gcloud, recipe, statuses
from ait_jax.launch.gcloud import GcloudError
from ait_jax.launch.launch_spec import LaunchSpec, seconds
from ait_jax.launch.source import Source

from ait_jax.errors import ExitCode, UserError, visible

# In a row, with pauses of up to two minutes: a run may last for weeks, and needs this program when
# its TPU is preempted.
TRANSIENT_ERRORS = 20
# Booting and installing take minutes; working hosts report every half minute. Hosts that cannot
# write to the bucket would be waited for, and paid for, forever.
SILENT_S = 1800.0
_LOST_NODES = ("PREEMPTED", "TERMINATED")
# A TPU VM recovers from these by itself, and its hosts then go on.
_PASSING_NODES = ("REPAIRING", "RESTARTING", "STARTING")
_SAY_AT_LEAST_EVERY_S = 600.0
_LOG_LINES = 25
# A new request may not be visible at once.
_ABSENCES = 5
_LONGEST_PAUSE_S = 600.0
_RESUME = "The same command continues from the last checkpoint."


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one look found.

    Attributes:
      resource: state of the queued resource: ABSENT, WAITING_FOR_RESOURCES, ACTIVE, ...
      reason: why it failed or was suspended, in Google's words.
      node: state of the TPU VM if the resource is ACTIVE: READY, PREEMPTED, ABSENT, ...
      hosts: statuses of this launch.
    """

    resource: str
    reason: str = ""
    node: str = ""
    hosts: tuple[statuses.Status, ...] = ()


class Launch:
    """One launch of a checked spec; `run` returns the exit code of the command line."""

    def __init__(self, spec: LaunchSpec, source: Source, poll_s: float) -> None:
        self.spec, self.source, self.poll_s = spec, source, poll_s
        self.script = Path(source.archive).with_name("startup.sh")
        self.began = time.monotonic()
        self.failures = self.errors = self.waits = self.absences = 0
        self.delivered = self.uploaded = False
        # Whether a TPU that costs money exists, or may exist.
        self.costing = False
        self.created: float | None = None
        # The newest status of any host, and when it was first seen.
        self.newest = 0.0
        self.heard: float | None = None
        self.last_line, self.last_said = "", 0.0

    def say(self, line: str, always: bool = True) -> None:
        """Prints a line with the time; unless `always`, not the same one again within minutes."""
        now = time.monotonic()
        if always or line != self.last_line or now - self.last_said > _SAY_AT_LEAST_EVERY_S:
            minutes = (now - self.began) / 60
            print(f"{time.strftime('%H:%M:%S')} ({minutes:.0f} min) {visible(line)}")
            self.last_line, self.last_said = line, now

    def run(self) -> int:
        """Launches and watches until the run is over."""
        try:
            return self._run()
        except KeyboardInterrupt:
            print(f"\nStopped watching. {recipe.going_on(self.spec)}")
            return ExitCode.INTERRUPTED
        except UserError:
            if self.costing:
                print(f"This program ends here. {recipe.going_on(self.spec)}")
            raise

    def _run(self) -> int:
        if self.source.warning:
            self.say(self.source.warning)
        while True:
            try:
                code = self._step(self._look())
            except GcloudError as error:
                self.errors += 1
                if error.kind != "transient" or self.errors > TRANSIENT_ERRORS:
                    raise error.for_user("gcloud") from None
                self.say(f"{error.line} (asking again)")
                self._pause()
            else:
                self.errors = 0
                if code is not None:
                    return code

    def _step(self, seen: Seen) -> int | None:
        """Acts on what was seen; returns an exit code at the end."""
        ended = statuses.outcome(seen.hosts, self.spec.accelerator.hosts)
        if self.spec.use_existing:
            return self._step_existing(seen, ended)
        if seen.resource == "ABSENT":
            return self._absent(seen, ended)
        if seen.resource == "DELETING":  # decide once it is gone
            return self._watch(seen)
        # A failure from before this program started, on a TPU that is gone, is retried.
        new = self.delivered or seen.resource == "ACTIVE"
        self.delivered = self.costing = True
        self.absences = 0
        if ended == "done" or (ended == "failed" and new):
            return self._end(seen, ended)
        lost = seen.resource == "ACTIVE" and seen.node in _LOST_NODES
        if seen.resource in ("SUSPENDED", "SUSPENDING") or lost:
            return self._suspended(seen)
        if seen.resource == "FAILED":
            return self._failed(seen)
        return self._watch(seen)

    def _step_existing(self, seen: Seen, ended: str) -> int | None:
        passing = self.delivered and seen.node in _PASSING_NODES
        if seen.node != "READY" and not passing:
            raise UserError(
                f"the TPU VM {self.spec.node} is {seen.node}, and --use_existing needs one that is "
                "READY. Leave the flag out to create one."
            )
        if not self.delivered and ended != "done" and (not seen.hosts or ended == "failed"):
            self._upload()
            doing = f"starting on {self.spec.node}"
            self.say(doing)
            self._call(gcloud.deliver(self.spec, f"{self.spec.folder}/startup.sh"), doing)
            self.delivered = self.costing = True
            return None
        self.delivered = True
        if ended:
            return self._end(seen, ended)
        return self._watch(seen)

    def _look(self) -> Seen:
        """Looks up the resource, its TPU VM and its hosts' statuses; raises GcloudError."""
        spec = self.spec
        if spec.use_existing:
            node = gcloud.shown(gcloud.describe(spec, node=True))
            self._check_slice(node.get("acceleratorType", ""))
            hosts = self._statuses() if node else ()
            return Seen("EXISTING", "", node.get("state", "ABSENT"), hosts)
        resource = gcloud.shown(gcloud.describe(spec))
        if not resource:
            return Seen("ABSENT", hosts=self._statuses())
        specs = resource.get("tpu", {}).get("nodeSpec", [{}])
        node = specs[0].get("node", {})
        self._check_slice(node.get("acceleratorType", ""))
        self._check_fingerprint(node.get("labels", {}).get("ait-jax-command", ""))
        state = resource.get("state", {})
        name = state.get("state", "UNKNOWN")
        if name == "SUSPENDED":
            return Seen(name, _reason(state), hosts=self._statuses())
        if name != "ACTIVE":
            return Seen(name, _reason(state))
        found = gcloud.shown(gcloud.describe(spec, node=True))
        return Seen(name, "", found.get("state", "ABSENT"), self._statuses())

    def _statuses(self) -> tuple[statuses.Status, ...]:
        found = statuses.read(self.spec.folder)
        return tuple(status for status in found if status.fingerprint == self.spec.fingerprint())

    def _check_slice(self, name: str) -> None:
        name = name.rsplit("/", 1)[-1]
        if name and name != self.spec.accelerator.name:
            raise UserError(
                f"{self.spec.node} already exists and is a {name}, not a "
                f"{self.spec.accelerator.name}. Give --accelerator={name}, or another --name."
            )

    def _check_fingerprint(self, label: str) -> None:
        if label and label != self.spec.fingerprint():
            raise UserError(
                f"{self.spec.name} already exists and runs another command. Give another "
                f"--name, or delete it first: {shlex.join(gcloud.delete(self.spec))}"
            )

    def _absent(self, seen: Seen, ended: str) -> int | None:
        """Creates the resource, unless the run is over or somebody has deleted it."""
        if self.delivered:
            if ended:
                return self._end(seen, ended)
            self.absences += 1
            if self.absences <= _ABSENCES:
                return self._pause()
            print(f"{self.spec.name} was deleted by somebody. {_RESUME}")
            return ExitCode.FAILED
        if ended == "done":
            again = shlex.join(gcloud.storage("rm", f"{self.spec.folder}/status/**"))
            print(
                f"{self.spec.name} is done already; nothing was created. To run it again: {again}"
            )
            return ExitCode.OK
        if not self.uploaded:  # after a preemption statuses keep counting
            self._upload()
        self._create()
        return None

    def _upload(self) -> None:
        """Sends code and start-up script, and deletes the statuses of an earlier launch."""
        folder, archive = self.spec.folder, self.source.archive
        self.say(f"sending commit {self.source.commit[:12]} to {folder}/code")
        self.script.write_text(recipe.script(self.spec, self.source))
        code = gcloud.storage("cp", archive, f"{folder}/code/{self.source.stem}.tar.gz")
        script = gcloud.storage("cp", str(self.script), f"{folder}/startup.sh")
        for call in (code, script):
            self._call(call, f"writing to {self.spec.bucket}")
        gcloud.call(gcloud.storage("rm", f"{folder}/status/**"), missing="")
        self.uploaded = True

    def _create(self) -> None:
        spec = self.spec
        self.say(f"asking for {spec.accelerator.describe()}, {spec.tier}, in {spec.zone}")
        # Another process with this command may be faster; its TPU is watched as if made here.
        create = gcloud.create(spec, str(self.script))
        self._call(create, f"asking for {spec.accelerator.name}", fine="exists")
        self.delivered = self.costing = True
        self.created = time.monotonic()
        self.waits, self.heard = 0, None

    def _call(self, arguments: list[str], doing: str, fine: str = "") -> None:
        """Calls gcloud, ignoring errors of kind `fine`; transient ones are for `_run`."""
        try:
            gcloud.call(arguments)
        except GcloudError as error:
            if error.kind == "transient":
                raise
            if error.kind != fine:
                raise error.for_user(doing) from None

    def _suspended(self, seen: Seen) -> None:
        """Handles a lost TPU: its request must be deleted before a new one can be made."""
        preempted = self.spec.tier == "spot"
        word = "preempted" if preempted else "taken away"
        state = seen.node if seen.node in _LOST_NODES else seen.resource
        self.say(f"{word} ({state}{': ' + seen.reason if seen.reason else ''})")
        if seen.resource == "SUSPENDING":  # being deleted; the next look finds it SUSPENDED
            self._pause()
            return
        if not preempted:
            self._count(f"{self.spec.name} was {word} {self.failures + 1} times")
        self._again()

    def _failed(self, seen: Seen) -> None:
        error = gcloud.classify(seen.reason or "no reason given")
        if error.kind in ("quota", "permission"):
            self._delete()
            raise error.for_user(f"asking for {self.spec.accelerator.name}")
        self.say(f"the request failed: {error.line}")
        limit = self.spec.valid_until_duration
        if limit and self.created is not None and time.monotonic() - self.created >= seconds(limit):
            self._delete()
            raise UserError(
                f"no {self.spec.accelerator.name} came within --valid_until_duration={limit}: "
                f"{error.line} {_RESUME}"
            )
        self._count(f"{self.spec.name} got no TPU in {self.failures + 1} attempts: {error.line}")
        self._again()

    def _count(self, message: str) -> None:
        self.failures += 1
        if self.failures > self.spec.max_retries:
            self._delete()
            raise UserError(
                f"{message}. --max_retries={self.spec.max_retries}; try another --zone or tier. "
                f"{_RESUME}"
            )

    def _again(self) -> None:
        """Deletes the request; the next look finds none and makes one (`_absent`)."""
        self._delete()
        self.delivered = False
        if self.failures:
            time.sleep(min(self.poll_s * 2**self.failures, _LONGEST_PAUSE_S))

    def _watch(self, seen: Seen) -> None:
        line = seen.resource
        self._check_silence(seen)
        if seen.node == "READY":
            hosts = self.spec.accelerator.hosts
            line += f", {statuses.summary(seen.hosts, hosts, time.time())}"
            self.waits = 0
        elif seen.node:
            line += f", TPU VM {seen.node}"
        self.say(line, always=False)
        self._pause()

    def _check_silence(self, seen: Seen) -> None:
        """Gives up silent hosts. Their clocks may be wrong, so any change of time counts."""
        newest, now = max((status.time for status in seen.hosts), default=0.0), time.monotonic()
        if seen.node != "READY" or self.heard is None or newest != self.newest:
            self.newest, self.heard = newest, now if seen.node == "READY" else None
        if self.heard is None or now - self.heard < SILENT_S:
            return
        spec = self.spec
        journal = f"sudo journalctl --no-pager -n 50 -u ait-jax-{spec.name}"
        look = shlex.join(gcloud.ssh(spec, 0, journal))
        if spec.deletes:
            self._delete()
            look = f"with --keep: {look}"
        raise UserError(
            f"no host of {spec.node} has written to {spec.folder}/status for "
            f"{SILENT_S / 60:.0f} minutes. Usually their service account may not write to the "
            "bucket: give it roles/storage.objectAdmin there, or give another --service_account. "
            f"To see what they say, {look}"
        )

    def _pause(self) -> None:
        """Sleeps, longer and longer while there is no TPU yet."""
        time.sleep(self.poll_s * min(2**self.waits, 4))
        self.waits += 1

    def _end(self, seen: Seen, ended: str) -> int:
        if ended == "failed":
            status = statuses.culprit(seen.hosts)
            with contextlib.suppress(UserError):
                for line in deque(statuses.logs(self.spec.folder, status.host), _LOG_LINES):
                    print(line)
            self.say(f"failed on host {status.host} ({status.hostname}): {status.message}")
        else:
            self.say("done on all hosts")
        resume = _RESUME
        if seen.resource != "ABSENT":
            if self.spec.deletes:
                self._delete()
            else:
                node = self.spec.node
                print(f"{node} was kept. {recipe.costs(self.spec)}")
                if not self.spec.use_existing:
                    resume = f"With --use_existing={node} the command continues there."
        print(f"Logs: {recipe.logs_command(self.spec)}")
        if ended == "failed":
            print(resume)
        return ExitCode.OK if ended == "done" else ExitCode.FAILED

    def _delete(self) -> None:
        doing = f"deleting {self.spec.name}"
        self.say(doing)
        self._call(gcloud.delete(self.spec), doing, fine="missing")
        self.costing = False


def _reason(state: dict[str, Any]) -> str:
    """Returns what explains a state: `failedData.error.message` or the like."""
    for key in ("failedData", "suspendedData", "suspendingData", "deletingData"):
        error = (state.get(key) or {}).get("error") or {}
        if error.get("message"):
            return str(error["message"]).strip()
    initiator = str(state.get("stateInitiator", ""))
    return f"by {initiator}" if initiator else ""
