"""What to launch: names are checked and the hosts' command is completed; nothing is started.

Names reach shells, URLs, paths and the resource manager, so each may have only the characters that
its owner allows.
"""

import dataclasses
import hashlib
import importlib.resources
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from typing import Any

from ait_jax.launch.accelerators import Accelerator

from ait_jax.errors import UserError, nearest, shown

COMMANDS = ("run", "score", "pretrain")
TIERS = ("spot", "on_demand", "reserved", "flex_start")
_FLEX_START_DAYS = 7


def filled(asset: str, **values: Any) -> str:
    """Returns a file of launch/assets with its {{name}}s replaced; values are not looked into."""
    text = (importlib.resources.files("ait_jax.launch") / "assets" / asset).read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda name: str(values[name[1]]), text)


# Flag -> pattern, and what to give.
_NAMES: dict[str, tuple[str, str]] = tomllib.loads(filled("names.toml"))


@dataclasses.dataclass(frozen=True)
class LaunchSpec:
    """One launch; `checked` completes it.

    Attributes:
      name: the run id: names the TPU and the folder in the bucket, and so is the key to resume.
      accelerator: the slice.
      command: of every host, after `ait-jax`: ("run", "--gin_file=...").
      bucket: folder for code, logs, statuses and, by default, MODEL_DIR; no slash at the end.
      tier: one of TIERS.
      use_existing: a TPU VM to run on instead of creating one; it is never deleted.
      max_retries: how many failures of a host, or of the resource, are retried; preemptions do not
        count.
    """

    name: str
    accelerator: Accelerator
    command: tuple[str, ...]
    bucket: str
    zone: str = ""
    project: str = ""
    tier: str = "spot"
    use_existing: str = ""
    runtime_version: str = ""
    valid_until_duration: str = ""
    max_run_duration: str = ""
    reservation: str = ""
    service_account: str = ""
    max_retries: int = 5
    keep: bool = False

    @property
    def folder(self) -> str:
        """The run's folder in the bucket."""
        return f"{self.bucket}/{self.name}"

    @property
    def node(self) -> str:
        """The TPU VM's name."""
        return self.use_existing or self.name

    @property
    def deletes(self) -> bool:
        """Whether the TPU is deleted at the end."""
        return not self.keep and not self.use_existing

    def worker_flags(self, commit: str = "") -> list[str]:
        """Returns the flags of `ait_jax.launch.worker` that are the same on every host."""
        return flags(
            run_id=self.name,
            folder=self.folder,
            hosts=self.accelerator.hosts,
            chips=self.accelerator.chips,
            topology=self.accelerator.topology,
            commit=commit,
            fingerprint=self.fingerprint(),
            max_retries=self.max_retries,
        )

    def fingerprint(self) -> str:
        """Returns a hash of slice and command."""
        return fingerprint([self.accelerator.name, *self.command])


def flags(**values: Any) -> list[str]:
    """Returns `--name=value` for each value that is not empty."""
    return [f"--{name}={value}" for name, value in values.items() if value not in ("", None)]


def fingerprint(parts: Sequence[str]) -> str:
    """Returns a hash that tells apart launches of one name but another command or slice."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def checked(spec: LaunchSpec) -> LaunchSpec:
    """Returns `spec` with its command and image completed.

    Raises:
      UserError: a name or flag is invalid, or settings contradict each other.
    """
    spec = dataclasses.replace(spec, bucket=_bucket(spec).rstrip("/"))
    check_names(**vars(spec))
    check_least(0, max_retries=spec.max_retries)
    _check_tier(spec)
    image = spec.runtime_version or spec.accelerator.generation.runtime_version
    return dataclasses.replace(spec, command=_completed(spec), runtime_version=image)


def check_names(**given: Any) -> None:
    """Raises UserError for a name that its owner does not allow; other flags pass."""
    for flag, (pattern, needed) in _NAMES.items():
        if flag in given and not re.fullmatch(pattern, given[flag]):
            raise UserError(f"--{flag}={shown(given[flag])} is not valid; give {needed}.")


def check_least(least: int, **given: float | None) -> None:
    """Raises UserError for a number below `least`."""
    for flag, value in given.items():
        if value is not None and value < least:
            raise UserError(f"--{flag}={value} must be at least {least}.")


def _bucket(spec: LaunchSpec) -> str:
    if spec.bucket:
        return spec.bucket
    model_dir = binding(spec.command, "MODEL_DIR")
    if model_dir and model_dir.startswith("gs://"):
        return "/".join(model_dir.split("/")[:3])
    raise UserError(
        "--bucket is missing: code, logs and the state of every host go there. Give "
        "--bucket=gs://BUCKET/FOLDER in the TPU's region."
    )


def _completed(spec: LaunchSpec) -> tuple[str, ...]:
    """Returns the hosts' command, with a MODEL_DIR derived from the run id if it has none."""
    command = check_command(spec.command)
    model_dir = binding(command, "MODEL_DIR")
    if model_dir is None:
        return (*command, f"--gin.MODEL_DIR={spec.folder}/model_dir")
    if not model_dir.startswith("gs://"):
        raise UserError(
            f"--gin.MODEL_DIR={model_dir} is a folder of one host, and hosts go away. Leave it "
            f"out (default: {spec.folder}/model_dir) or give a folder in a bucket, gs://..."
        )
    return command


def check_command(command: Sequence[str]) -> tuple[str, ...]:
    """Returns the command after `--`, without `ait-jax`.

    Raises:
      UserError: the command is missing or unknown, or has line breaks or control characters.
    """
    command = tuple(command)
    if not command:
        raise UserError("The command is missing: end the line with `-- run --gin_file=...`.")
    if command[0] == "ait-jax":
        command = command[1:]
    if not command or command[0] not in COMMANDS:
        given = command[0] if command else ""
        raise UserError(
            f"{shown(given)} after `--` cannot be launched.{nearest(given, COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}."
        )
    for argument in command:
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in argument):
            raise UserError(
                f"the argument {shown(argument)} has a line break or control character, which "
                "start-up scripts and logs cannot carry. Put the value into a gin file."
            )
    return command


def binding(command: Sequence[str], name: str) -> str | None:
    """Returns the last value of `--gin.NAME=`, without the quotes that gin does not need."""
    prefix = f"--gin.{name}="
    values = [a.removeprefix(prefix).strip() for a in command if a.startswith(prefix)]
    return values[-1].strip("\"'") if values else None


def _check_tier(spec: LaunchSpec) -> None:
    if spec.tier not in TIERS:
        raise UserError(f"unknown tier {shown(spec.tier)}; give one of {', '.join(TIERS)}.")
    if spec.reservation and spec.tier != "reserved":
        raise UserError("--reservation needs --reserved.")
    if spec.tier != "flex_start":
        if spec.max_run_duration:
            raise UserError("--max_run_duration needs --flex_start; other tiers have no end.")
        return
    generation = spec.accelerator.generation
    if not generation.flex_start:
        raise UserError(
            f"--flex_start is not available for {generation.name}; give a v5e or v6e, or --spot."
        )
    if not spec.max_run_duration:
        raise UserError("--flex_start needs --max_run_duration=12h, for example; at most 7d.")
    if seconds(spec.max_run_duration) > _FLEX_START_DAYS * 86400:
        raise UserError(f"--max_run_duration={spec.max_run_duration}; --flex_start ends at 7d.")


def seconds(duration: str) -> int:
    """Returns the seconds of `1d12h`, `90m`."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"([0-9]+)([dhms])", duration))
