"""The same run on other schedulers: a JobSet and an xpk line for GKE, a batch script for SLURM.

All start `ait_jax.launch.worker`, as Cloud TPU VMs do. It restarts its command and remembers
failures in the shared folder; the scheduler replaces lost machines.
"""

import dataclasses
import json
import shlex
from collections.abc import Sequence

from ait_jax.launch import gcloud, launch_spec
from ait_jax.launch.launch_spec import LaunchSpec, filled, flags

from ait_jax.errors import ExitCode

# Restarts of the whole set by Kubernetes, for lost machines; the worker's --max_retries bounds
# failures.
_MAX_RESTARTS = 100
_GKE_GRACE_S, _SLURM_NOTICE_S = 60, 120
_PORTS = (8471, 8482)  # of libtpu, and of JAX's coordinator
# PYTHONSAFEPATH: the installed package, not a folder of its name in the working folder.
_VARIABLES = ("AIT_JAX_DISTRIBUTED=tpu", "PYTHONSAFEPATH=1")


def worker(spec: LaunchSpec) -> list[str]:
    """Returns the worker's command line in a container."""
    own = flags(grace_s=_GKE_GRACE_S - 10, work_dir="/tmp/ait_jax")
    module = ["python", "-m", "ait_jax.launch.worker"]
    return [*module, *spec.worker_flags(), *own, "--", *spec.command]


def jobset(spec: LaunchSpec, image: str) -> str:
    """Returns the JobSet as YAML; raises UserError for an impossible image."""
    launch_spec.check_names(image=image)
    slice_ = spec.accelerator
    spot = '              cloud.google.com/gke-spot: "true"\n' if spec.tier == "spot" else ""
    # Kubernetes replaces $(NAME) in a command and reads $$ as $.
    arguments = [_yaml(argument.replace("$", "$$")) for argument in worker(spec)]
    return filled(
        "jobset.yaml",
        name=spec.name,
        slice=slice_.describe(),
        logs=f"{spec.folder}/logs/host_N.log",
        forget=shlex.join(gcloud.storage("rm", f"{spec.folder}/status/**")),
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


def _yaml(text: str) -> str:
    """Returns a string of YAML: JSON's, with YAML's own escapes of what it cannot hold."""
    quoted = json.dumps(text, ensure_ascii=False)
    escaped = {c: f"\\u{ord(c):04x}" for c in quoted if not c.isprintable()}
    escaped |= {c: f"\\U{ord(c):08x}" for c in quoted if ord(c) > 0xFFFF}
    return quoted.translate(str.maketrans(escaped))


def xpk_comment(spec: LaunchSpec, image: str, cluster: str) -> str:
    """Returns the xpk call as a comment for the JobSet's file.

    The container's shell reads its --command, which is therefore quoted twice.
    """
    launch_spec.check_names(cluster=cluster)
    arguments = [
        *("xpk", "workload", "create", f"--cluster={cluster}", f"--workload={spec.name}"),
        *flags(project=spec.project, zone=spec.zone),
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
    launch_spec.check_names(**vars(job))
    launch_spec.check_least(1, nodes=job.nodes, gpus_per_node=job.gpus_per_node)
    launch_spec.check_least(0, max_retries=job.max_retries)
    command = launch_spec.check_command(command)
    run = f"{job.folder.rstrip('/')}/{job.name}"
    if launch_spec.binding(command, "MODEL_DIR") is None:
        command = (*command, f"--gin.MODEL_DIR={run}/model_dir")
    processes = job.nodes * job.gpus_per_node
    own = flags(
        run_id=job.name,
        folder=run,
        hosts=processes,
        chips=processes,
        expect_backend="gpu",
        fingerprint=launch_spec.fingerprint([str(processes), *command]),
        max_retries=job.max_retries,
        grace_s=_SLURM_NOTICE_S - 10,
        work_dir=f"/tmp/ait_jax_{job.name}",
    )
    return filled(
        "slurm.sh",
        name=job.name,
        run=run,
        nodes=job.nodes,
        gpus=job.gpus_per_node,
        time=job.time,
        partition=f"#SBATCH --partition={job.partition}\n" if job.partition else "",
        venv=job.venv.rstrip("/"),
        flags=shlex.join(own),
        command=shlex.join(command),
        given_up=ExitCode.PREFLIGHT,
        preempted=ExitCode.PREEMPTED,
        restarts=_MAX_RESTARTS,
        notice=_SLURM_NOTICE_S,
    )
