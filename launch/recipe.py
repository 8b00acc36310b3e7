"""A launch in words: every command of a dry run, and what the user is told about cost."""

from ait_jax.launch import gcloud, startup
from ait_jax.launch.request import Request
from ait_jax.launch.source import Source


def logs_command(request: Request) -> str:
    return gcloud.show(
        ["ait-jax", "launch", "logs", f"--name={request.name}", f"--bucket={request.bucket}"]
    )


def costs(request: Request) -> str:
    """Says that the TPU costs, and how to end that."""
    if request.use_existing:
        return f"It costs until it is deleted; whoever created {request.node} deletes it."
    return f"It costs until it is deleted: {gcloud.show(gcloud.delete(request))}"


def going_on(request: Request) -> str:
    """What is true after Ctrl-C."""
    end = ""
    if request.deletes:
        end = " Host 0 tries to delete it 15 minutes after the run's end."
    return (
        f"{request.node} goes on without this program, and its hosts restart by themselves. "
        f"{costs(request)}\n"
        f"To watch again: the same command. Logs: {logs_command(request)}.{end}"
    )


def dry_run(request: Request, source: Source) -> str:
    """Returns every command of a launch, as a script for bash up to the TPU's creation."""
    folder = request.folder
    script = startup.script(request, source)
    archive = f"{source.stem}.tar.gz"
    status = f"{folder}/status/**"
    lines = [
        f"# {request.accelerator.describe()}, {request.tier}, runtime {request.runtime_version}",
        f"# hosts run: {gcloud.show(['ait-jax', *request.command])}",
        "",
        "# Code: one commit, and the script that every host runs at boot.",
        gcloud.show(["git", "archive", "--format=tar.gz", f"--output={archive}", source.commit]),
        gcloud.show(gcloud.copy(archive, f"{folder}/code/{archive}")),
        "cat > startup.sh <<'AIT_JAX_STARTUP'",
        f"{script}AIT_JAX_STARTUP",
        gcloud.show(gcloud.copy("startup.sh", f"{folder}/startup.sh")),
        f"{gcloud.show(gcloud.remove(status))} || true",
        "",
    ]
    if request.use_existing:
        lines += ["# Start on a TPU VM that is there.", gcloud.show(_existing(request))]
    else:
        lines += ["# Ask for the TPU.", gcloud.show(gcloud.create(request, "startup.sh"))]
    watch = [] if request.use_existing else [gcloud.describe(request)]
    watch += [gcloud.describe_node(request), gcloud.cat(f"{folder}/status/host_*.json")]
    lines += ["", "# Watch, until every host is done or one has given up."]
    lines += [f"# {gcloud.show(arguments)}" for arguments in watch]
    if not request.use_existing:
        lines += ["# When it was preempted or suspended: delete, then ask again."]
        what = "At the end" if request.deletes else "It is kept at the end. To stop paying"
        lines += [f"# {what}:", f"# {gcloud.show(gcloud.delete(request))}"]
    lines += ["# Logs of all hosts:", f"# {logs_command(request)}"]
    return "\n".join(lines) + "\n"


def _existing(request: Request) -> list[str]:
    return gcloud.deliver(request, f"{request.folder}/startup.sh")
