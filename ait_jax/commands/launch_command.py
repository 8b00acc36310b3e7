"""`ait-jax launch KIND ... -- COMMAND`: a command in many processes, here or in the cloud."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode

_TIERS = {
    "spot": "spare capacity, cheapest; may be preempted, and the run then resumes by itself "
    "(the default)",
    "on_demand": "at list price, until it is deleted",
    "reserved": "from a reservation",
    "flex_start": "for at most 7 days, v5e and v6e; needs --max_run_duration",
}


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command, its kinds and their flags."""
    launch = subcommand.add(
        subparsers,
        "launch",
        "run a command in many processes: here, on a Cloud TPU slice, on GKE, on SLURM",
    )
    kinds = launch.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, (summary, add_flags, _) in KINDS.items():
        kind = subcommand.add(kinds, name, summary, "launch")
        kind.allow_abbrev = False
        kind.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        add_flags(kind)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separates the arguments of `launch` from the hosts' command after the first `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    return KINDS[options.kind][2](options, options.hosts_command)


def _add_run(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "--name", required=True, metavar="RUN_ID", help="the permanent name of the run"
    )
    kind.add_argument(
        "--accelerator", required=True, help="a slice: v5e-256 (or v5litepod-256), v4-8, v5p-128"
    )
    kind.add_argument("--bucket", default="", help="gs://... for code, logs, statuses, MODEL_DIR")
    kind.add_argument("--max_retries", type=int, default=5, help="after failures (default: 5)")


def _add_tpu_vm(kind: argparse.ArgumentParser) -> None:
    _add_run(kind)
    kind.add_argument("--zone", required=True)
    kind.add_argument("--project", required=True)
    kind.add_argument("--allow_dirty", action="store_true", help="launch uncommitted changes")
    kind.add_argument("--dry_run", action="store_true", help="print every command; run none")
    tier = kind.add_mutually_exclusive_group()
    for name, help_ in _TIERS.items():
        tier.add_argument(f"--{name}", dest="tier", action="store_const", const=name, help=help_)
    kind.set_defaults(tier="spot")
    kind.add_argument(
        "--use_existing", default="", metavar="TPU_VM", help="run on this TPU VM, and keep it"
    )
    for flag, help_ in {
        "reservation": "name of the reservation, with --reserved",
        "max_run_duration": "such as 12h, with --flex_start",
        "valid_until_duration": "stop waiting for capacity after, such as 6h",
        "runtime_version": "default: the generation's own",
        "service_account": "of the hosts",
    }.items():
        kind.add_argument(f"--{flag}", default="", help=help_)
    kind.add_argument(
        "--keep", action="store_true", help="do not delete the TPU at the end; it keeps costing"
    )
    kind.add_argument(
        "--poll_s", type=float, default=30.0, help="seconds between checks (default: 30)"
    )


def _add_gke(kind: argparse.ArgumentParser) -> None:
    _add_run(kind)
    kind.add_argument("--image", required=True, help="a container with this package: see launch/")
    kind.add_argument("--cluster", default="CLUSTER", help="for the xpk line")
    kind.add_argument("--zone", default="")
    kind.add_argument("--project", default="")
    kind.add_argument("--spot", dest="tier", action="store_const", const="spot")
    kind.set_defaults(tier="on_demand")


def _add_slurm(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--name", required=True, metavar="RUN_ID")
    kind.add_argument("--nodes", type=int, required=True)
    kind.add_argument("--gpus_per_node", type=int, required=True)
    kind.add_argument("--folder", required=True, help="shared by all nodes, for logs and MODEL_DIR")
    kind.add_argument("--venv", required=True, help="a virtual environment with this package")
    kind.add_argument("--partition", default="")
    kind.add_argument("--time", default="24:00:00")
    kind.add_argument("--max_retries", type=int, default=5)


def _add_local(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--processes", type=int, required=True, help="how many")
    kind.add_argument(
        "--devices_per_process", type=int, help="CPU devices per process (default: what JAX finds)"
    )


def _add_logs(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--name", required=True, metavar="RUN_ID")
    kind.add_argument("--bucket", required=True)
    kind.add_argument("--host", type=int, help="of this host only (default: all)")


def _spec(options: argparse.Namespace, command: list[str]) -> Any:
    from ait_jax.launch import accelerators, launch_spec

    fields = set(launch_spec.LaunchSpec.__dataclass_fields__) - {"accelerator", "command"}
    given = {name: value for name, value in vars(options).items() if name in fields}
    slice_ = accelerators.parse(options.accelerator)
    return launch_spec.checked(
        launch_spec.LaunchSpec(accelerator=slice_, command=tuple(command), **given)
    )


def _tpu_vm(options: argparse.Namespace, command: list[str]) -> int:
    from ait_jax.launch import gcloud, launch_spec, recipe, source, tpu_vm

    launch_spec.check_least(0, poll_s=options.poll_s)
    spec = _spec(options, command)
    if not options.dry_run:
        gcloud.check_installed()
    with tempfile.TemporaryDirectory() as temporary:
        made = source.archive(Path(temporary, "code.tar.gz"), options.allow_dirty)
        source.check_gin_files(spec.command, source.root(), made.commit)
        if not options.dry_run:
            return tpu_vm.Launch(spec, made, options.poll_s).run()
        print(recipe.dry_run(spec, made), end="")
        return ExitCode.OK


def _local(options: argparse.Namespace, command: list[str]) -> int:
    from ait_jax.launch import local

    return local.launch(command, options.processes, options.devices_per_process)


def _gke(options: argparse.Namespace, command: list[str]) -> int:
    from ait_jax.launch import cluster_files

    spec = _spec(options, command)
    print(cluster_files.jobset(spec, options.image), end="")
    print(cluster_files.xpk_comment(spec, options.image, options.cluster), end="")
    return ExitCode.OK


def _slurm(options: argparse.Namespace, command: list[str]) -> int:
    from ait_jax.launch import cluster_files

    fields = cluster_files.SlurmJob.__dataclass_fields__
    job = cluster_files.SlurmJob(**{name: getattr(options, name) for name in fields})
    print(cluster_files.slurm(job, command), end="")
    return ExitCode.OK


def _logs(options: argparse.Namespace, command: list[str]) -> int:
    from ait_jax.launch import launch_spec, statuses

    launch_spec.check_names(name=options.name, bucket=options.bucket.rstrip("/"))
    for line in statuses.logs(f"{options.bucket.rstrip('/')}/{options.name}", options.host):
        print(line)
    return ExitCode.OK


_AddFlags = Callable[[argparse.ArgumentParser], None]
_Launch = Callable[[argparse.Namespace, list[str]], int]
# Name -> summary, flags, and the launch, which takes the options and the hosts' command.
KINDS: dict[str, tuple[str, _AddFlags, _Launch]] = {
    "tpu-vm": ("create a Cloud TPU slice, run on it until done, delete it", _add_tpu_vm, _tpu_vm),
    "local": (
        "run in several processes on this machine, as the hosts of a pod do",
        _add_local,
        _local,
    ),
    "gke": ("print a JobSet for GKE, and the xpk line", _add_gke, _gke),
    "slurm": ("print a batch script for SLURM", _add_slurm, _slurm),
    "logs": ("print the logs of all hosts of a run", _add_logs, _logs),
}
