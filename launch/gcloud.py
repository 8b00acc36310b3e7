"""Google's command line: every call, and what to do about its errors."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from ait_jax.launch.launch_spec import LaunchSpec

from ait_jax.errors import UserError, visible
from ait_jax.runtime import strict_json

_MOST_CHARACTERS = 500
TIMEOUT_S = 900.0  # a deletion takes minutes
_ROLES = (
    "Needed: roles/tpu.admin and roles/iam.serviceAccountUser on the project, "
    "roles/storage.objectAdmin on the bucket, and the Cloud TPU API enabled "
    "(gcloud services enable tpu.googleapis.com)."
)
# Kinds of errors by what their text matches; the first match counts.
_KINDS = (
    ("exists", r"ALREADY_EXISTS|already exists"),
    ("missing", r"NOT_FOUND|was not found|matched no objects|not found: 404|No URLs matched"),
    ("login", r"not currently have an active|gcloud auth login|Reauthentication|invalid_grant"),
    ("transient", r"RATE_LIMIT_EXCEEDED|rateLimitExceeded|\b429\b|[Qq]uota metric .* per minute"),
    ("quota", r"RESOURCE_EXHAUSTED|[Qq]uota|Insufficient reserved capacity"),
    ("permission", r"PERMISSION_DENIED|[Pp]ermission|does not have .* access|\b403\b|Forbidden"),
    ("transient", r"UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|\b50[0234]\b|ECONN|[Cc]onnection|"
                  r"timed? ?out|ssl\."),
)  # fmt: skip


class GcloudError(Exception):
    """A call that failed: `kind` of `_KINDS` or other, `line` the first of the error itself."""

    def __init__(self, kind: str, line: str) -> None:
        self.kind, self.line = kind, visible(line[:_MOST_CHARACTERS])
        super().__init__(self.line)

    def for_user(self, doing: str) -> UserError:
        """Returns the error that stops the launch; `doing` says what failed."""
        advice = {
            "login": "Log in: gcloud auth login.",
            "quota": "Request quota (console: IAM, Quotas, Cloud TPU API), or give another --zone, "
            "tier (--spot, --on_demand, --reserved, --flex_start) or a smaller --accelerator; "
            "suspended and failed requests also use quota until they are deleted.",
            "permission": _ROLES,
            "missing": "Check that the name is right and that it exists.",
            "transient": "Google's service did not answer; the same command continues from here.",
        }.get(self.kind, "")
        return UserError(f"{doing} failed: {self.line} {advice}".strip())


def classify(text: str) -> GcloudError:
    """Returns the error that a failed call's output describes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("ERROR")), lines[0] if lines else "?")
    if line.endswith(":") and line in lines[:-1]:
        line = f"{line} {lines[lines.index(line) + 1]}"
    kind = next((kind for kind, pattern in _KINDS if re.search(pattern, text)), "other")
    return GcloudError(kind, line)


def check_installed() -> None:
    """Raises UserError unless `gcloud` is on PATH."""
    if shutil.which("gcloud") is None:
        raise UserError(
            "gcloud is not on PATH: install the Google Cloud CLI "
            "(https://cloud.google.com/sdk/docs/install), then run `gcloud auth login`."
        )


def call(arguments: Sequence[str], missing: str | None = None) -> str:
    """Runs `arguments` and returns its standard output, or `missing` for what does not exist.

    Raises:
      UserError: `gcloud` is not installed.
      GcloudError: the call failed.
    """
    check_installed()
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        line = f"{' '.join(arguments[:5])} did not end within {TIMEOUT_S:.0f} s"
        raise GcloudError("transient", line) from None
    if done.returncode:
        error = classify(done.stderr or done.stdout)
        if error.kind == "missing" and missing is not None:
            return missing
        raise error
    return done.stdout


def shown(arguments: Sequence[str]) -> Any:
    """Runs a `describe`; returns its JSON, {} for what does not exist; raises as `call` does."""
    text = call(arguments, missing="{}")
    try:
        return strict_json.typed(strict_json.loads(text, "gcloud"), dict, "gcloud")
    except UserError as error:
        line = f"`gcloud describe` did not print an object of JSON: {error}"
        raise GcloudError("other", line) from None


def _tpus(spec: LaunchSpec, *command: str) -> list[str]:
    place = f"--zone={spec.zone}", f"--project={spec.project}"
    return ["gcloud", "compute", "tpus", *command, *place]


def create(spec: LaunchSpec, startup_script: str) -> list[str]:
    """Returns the call that requests the TPU; `startup_script` is a local file."""
    tiers = {
        "spot": ["--spot"],
        "on_demand": [],
        "reserved": ["--reserved"],
        "flex_start": ["--provisioning-model=flex-start"],
    }
    optional = {
        "max-run-duration": spec.max_run_duration,
        "reservation": spec.reservation,
        "valid-until-duration": spec.valid_until_duration,
        "service-account": spec.service_account,
    }
    arguments = [
        *_tpus(spec, "queued-resources", "create", spec.name, f"--node-id={spec.name}"),
        f"--accelerator-type={spec.accelerator.name}",
        f"--runtime-version={spec.runtime_version}",
        *tiers[spec.tier],
        *(f"--{flag}={value}" for flag, value in optional.items() if value),
        f"--labels=ait-jax-run={spec.name},ait-jax-command={spec.fingerprint()}",
        f"--metadata-from-file=startup-script={startup_script}",
        "--async",  # otherwise the call waits, silently, until the TPU exists
    ]
    if spec.tier == "flex_start" or spec.reservation:
        arguments.insert(1, "alpha")
    return arguments


def describe(spec: LaunchSpec, node: bool = False) -> list[str]:
    """Returns the call that shows the queued resource, or the TPU VM, as JSON."""
    what = (
        ("tpu-vm", "describe", spec.node) if node else ("queued-resources", "describe", spec.name)
    )
    return [*_tpus(spec, *what), "--format=json"]


def delete(spec: LaunchSpec, wait: bool = True) -> list[str]:
    """Returns the call that deletes the queued resource.

    --force deletes the TPU VM too; suspended and failed requests need it.
    """
    command = [*_tpus(spec, "queued-resources", "delete", spec.name), "--force", "--quiet"]
    return command if wait else [*command, "--async"]


def deliver(spec: LaunchSpec, script_url: str) -> list[str]:
    """Returns the call that installs the start-up script on an existing TPU VM over ssh.

    The last argument is a line for the host's shell; `shlex.join` quotes it for this one.
    """
    inner = f"set -o pipefail; gcloud storage cat {shlex.quote(script_url)} | bash"
    return ssh(spec, "all", shlex.join(["sudo", "bash", "-c", inner]))


def ssh(spec: LaunchSpec, worker: int | str, line: str) -> list[str]:
    """Returns the call that has the shell of one host, or of all, run `line`."""
    return [*_tpus(spec, "tpu-vm", "ssh", spec.node), f"--worker={worker}", f"--command={line}"]


def storage(command: str, *arguments: str) -> list[str]:
    """Returns a call about files of the bucket: `cp` from, to; `cat`, `ls` or `rm` what."""
    quiet = ["--quiet"] if command in ("cp", "rm") else []
    return ["gcloud", "storage", command, *quiet, *arguments]
