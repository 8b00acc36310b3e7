"""The same run on other schedulers: a JobSet and an xpk line for GKE, a batch script for SLURM.

All start `ait_jax.launch.worker`, as Cloud TPU VMs do. It restarts its command and remembers
failures in the shared folder; the scheduler replaces lost machines.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence

from ait_jax.launch import gcloud, launch_spec
from ait_jax.launch.launch_spec import LaunchSpec, filled

from ait_jax.errors import ExitCode, UserError

# Restarts of the whole set by Kubernetes, for lost machines; the worker's --max_retries bounds
# failures.
_MAX_RESTARTS = 100
_GKE_GRACE_S, _SLURM_NOTICE_S = 60, 120
_PORTS = (8471, 8482)  # of libtpu, and of JAX's coordinator
# PYTHONSAFEPATH: the installed package, not a folder of its name in the working folder.
_VARIABLES = ("AIT_JAX_DISTRIBUTED=tpu", "PYTHONSAFEPATH=1")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:@-]{0,254}")
_CLUSTER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")
_PARTITION = re.compile(r"[A-Za-z0-9_.,-]*")
_TIME = re.compile(r"([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}")


def worker(spec: LaunchSpec) -> list[str]:
    """Returns the worker's command line in a container."""
    own = [f"--grace_s={_GKE_GRACE_S - 10}", "--work_dir=/tmp/ait_jax"]
    module = ["python", "-m", "ait_jax.launch.worker"]
    return [*module, *spec.worker_flags(), *own, "--", *spec.command]


def jobset(spec: LaunchSpec, image: str) -> str:
    """Returns the JobSet as YAML; raises UserError for an impossible image."""
    _check("image", image, _IMAGE, "a container: REGION-docker.pkg.dev/PROJECT/REPO/NAME:TAG")
    slice_ = spec.accelerator
    spot = '              cloud.google.com/gke-spot: "true"\n' if spec.tier == "spot" else ""
    # Kubernetes replaces $(NAME) in a command and reads $$ as $. JSON's strings are YAML's.
    arguments = [json.dumps(argument.replace("$", "$$")) for argument in worker(spec)]
    return filled(
        "jobset.yaml",
        name=spec.name,
        slice=slice_.describe(),
        logs=f"{spec.folder}/logs/host_N.log",
        forget=shlex.join(gcloud.remove(f"{spec.folder}/status/**")),
        restarts=_MAX_RESTARTS,
        hosts=slice_.hosts,
        given_up=ExitCode.PREFLIGHT,
        grace=_GKE_GRACE_S,
        machine=slice_.gke_machine_type,
        accelerator=slice_.generation.gke_accelerator,
        topology=slice_.topology,
        spot=spot,
        image=image,
        ports="\n".join(f"              - containerPort: {port}" for port in _PORTS),
        chips_per_host=slice_.chips_per_host,
        command="\n".join(f"              - {argument}" for argument in arguments),
    )


def xpk_comment(spec: LaunchSpec, image: str, cluster: str) -> str:
    """Returns the xpk call as a comment for the JobSet's file.

    The container's shell reads its --command, which is therefore quoted twice.
    """
    _check("cluster", cluster, _CLUSTER, "letters, digits and '-'")
    place = {"project": spec.project, "zone": spec.zone}
    arguments = [
        *("xpk", "workload", "create", f"--cluster={cluster}", f"--workload={spec.name}"),
        *(f"--{name}={value}" for name, value in place.items() if value),
        f"--tpu-type={spec.accelerator.name}",
        "--num-slices=1",
        f"--docker-image={image}",
        f"--max-restarts={_MAX_RESTARTS}",
        f"--restart-on-exit-codes={ExitCode.PREEMPTED}",
        f"--command={shlex.join(['env', *_VARIABLES, *worker(spec)])}",
    ]
    return f"# The same with xpk, instead of this file:\n#   {shlex.join(arguments)}\n"


@dataclasses.dataclass(frozen=True)
class SlurmJob:
    """A batch job: `nodes` machines of `gpus_per_node`, one process per GPU."""

    name: str
    nodes: int
    gpus_per_node: int
    folder: str
    venv: str
    partition: str = ""
    time: str = "24:00:00"
    max_retries: int = 5


def slurm(job: SlurmJob, command: Sequence[str]) -> str:
    """Returns the batch script; raises UserError for names that SLURM or a shell would misread."""
    launch_spec.check_names(name=job.name)
    path = "an absolute path on all nodes, of letters, digits, '.', '_', '-'"
    _check("folder", job.folder, _FOLDER, path)
    _check("venv", job.venv, _FOLDER, path)
    _check("partition", job.partition, _PARTITION, "letters, digits, '_', '-'")
    _check("time", job.time, _TIME, "24:00:00 or 7-00")
    for flag, least in (("nodes", 1), ("gpus_per_node", 1), ("max_retries", 0)):
        if getattr(job, flag) < least:
            raise UserError(f"--{flag}={getattr(job, flag)} must be at least {least}.")
    command = launch_spec.check_command(command)
    run = f"{job.folder.rstrip('/')}/{job.name}"
    if launch_spec.binding(command, "MODEL_DIR") is None:
        command = (*command, f"--gin.MODEL_DIR={run}/model_dir")
    processes = job.nodes * job.gpus_per_node
    flags = [
        f"--run_id={job.name}",
        f"--folder={run}",
        f"--hosts={processes}",
        f"--chips={processes}",
        "--expect_backend=gpu",
        f"--fingerprint={launch_spec.fingerprint([str(processes), *command])}",
        f"--max_retries={job.max_retries}",
        f"--grace_s={_SLURM_NOTICE_S - 10}",
        f"--work_dir=/tmp/ait_jax_{job.name}",
    ]
    return filled(
        "slurm.sh",
        name=job.name,
        run=run,
        nodes=job.nodes,
        gpus=job.gpus_per_node,
        time=job.time,
        partition=f"#SBATCH --partition={job.partition}\n" if job.partition else "",
        venv=job.venv.rstrip("/"),
        flags=shlex.join(flags),
        command=shlex.join(command),
        given_up=ExitCode.PREFLIGHT,
        preempted=ExitCode.PREEMPTED,
        restarts=_MAX_RESTARTS,
        notice=_SLURM_NOTICE_S,
    )


def _check(flag: str, value: str, pattern: re.Pattern[str], needed: str) -> None:
    if not pattern.fullmatch(value):
        raise UserError(f"--{flag}={value!r} is not valid; give {needed}.")
