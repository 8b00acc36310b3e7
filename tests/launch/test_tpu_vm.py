"""launch/tpu_vm.py: the real command line against a stand-in gcloud that fails on demand."""

import json
import os
import shutil
import subprocess

import launches
import pytest
from ait_jax.launch import source, statuses, tpu_vm

from ait_jax import cli

WAITING = {"state": "WAITING_FOR_RESOURCES"}
PROVISIONING = {"state": "PROVISIONING"}
BOOTING = {"state": "ACTIVE", "node": "CREATING"}
SUSPENDED = {"state": "SUSPENDED"}
LINE = (
    "launch tpu-vm --name=t5-xl --accelerator=v5e-16 --zone=us-west4-a --project=my-project "
    "--bucket=gs://bucket/runs --poll_s=0"
).split()
COMMAND = ["--", "run", "--gin_file=experiments/niv2.gin"]


def active(*states: str, **more) -> dict:
    """A scene in which the hosts say these states of themselves."""
    hosts = {str(host): {"state": state, "attempt": 1} for host, state in enumerate(states)}
    return {"state": "ACTIVE", "node": "READY", "hosts": hosts} | more


RUNNING, DONE = active(*["running"] * 4), active(*["done"] * 4)


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    stand_in = launches.StandIn(tmp_path / "google")
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    clone = launches.a_clone(tmp_path / "clone")
    monkeypatch.setattr(source, "root", lambda: clone)
    monkeypatch.chdir(tmp_path)
    return stand_in


@pytest.fixture
def launch(capsys):
    """Runs the command line; returns exit code and everything printed."""

    def run(*flags: str, command=COMMAND) -> tuple[int, str]:
        code = cli.main([*LINE, *flags, *command])
        output = capsys.readouterr()
        return code, output.out + output.err

    return run


def test_creates_waits_watches_and_deletes(gcloud, launch):
    gcloud.play(lives=[["absent", WAITING, WAITING, PROVISIONING, BOOTING, RUNNING, DONE]])
    code, output = launch()
    assert code == 0, output
    assert gcloud.verbs() == ["cp", "cp", "rm", "create", "delete"]
    for text in (
        "asking for v5litepod-16: 16 chips (4x4) on 4 hosts, spot, in us-west4-a",
        "WAITING_FOR_RESOURCES\n",
        "PROVISIONING\n",
        "ACTIVE, TPU VM CREATING\n",
        "ACTIVE, 4 hosts: 4 running; attempt 1\n",
        "done on all hosts",
        "deleting t5-xl",
        "ait-jax launch logs --name=t5-xl --bucket=gs://bucket/runs",
    ):
        assert text in output
    assert output.count("WAITING_FOR_RESOURCES") == 1  # a state is told once
    create = next(call for call in gcloud.calls() if "create" in call)
    for flag in ("--spot", "--accelerator-type=v5litepod-16", "--node-id=t5-xl", "--async",
                 "--runtime-version=v2-alpha-tpuv5-lite", "--zone=us-west4-a"):  # fmt: skip
        assert flag in create
    delete = next(call for call in gcloud.calls() if "delete" in call)
    assert "--force" in delete


def test_what_the_hosts_get(gcloud, launch, tmp_path):
    gcloud.play(lives=[[DONE]])
    launch()
    archive = next(gcloud.in_bucket("t5-xl/code").iterdir())
    names = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True)
    assert "constraints.txt" in names.stdout.split()
    script = gcloud.in_bucket("t5-xl/startup.sh").read_text()
    assert script == (gcloud.folder / "startup.sh").read_text()
    assert archive.name.removesuffix(".tar.gz") in script
    assert "--gin.MODEL_DIR=gs://bucket/runs/t5-xl/model_dir" in script


@pytest.mark.parametrize("lost", [SUSPENDED, {"state": "ACTIVE", "node": "PREEMPTED"}])
def test_preempted_then_resumed_without_counting(gcloud, launch, lost):
    saved = active("preempted", "preempted", "preempted", "preempted")
    life = [WAITING, RUNNING, saved, {"state": "SUSPENDING"}, lost]
    gcloud.play(lives=[life, life, [RUNNING, DONE]])
    code, output = launch("--max_retries=0")
    assert code == 0, output
    assert gcloud.verbs()[3:] == ["create", "delete", "create", "delete", "create", "delete"]
    assert "preempted (" in output
    # The second and third machines start what the first did: code and statuses stay.
    assert gcloud.verbs().count("cp") == 2 and gcloud.verbs().count("rm") == 1


def test_a_host_that_gives_up_ends_the_run(gcloud, launch):
    failed = active("running", "failed", "failed", "failed")
    failed["hosts"]["1"] |= {"message": "given up: host 2 (x): failed", "time": 5.0}
    failed["hosts"]["2"] |= {"message": "failed (exit code 1); 5 retries are used up", "time": 9.0}
    failed["hosts"]["3"] |= {"message": "given up: host 2 (x): failed", "time": 6.0}
    gcloud.play(lives=[[RUNNING, failed]])
    log = gcloud.in_bucket("t5-xl/logs/host_2.log")
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "ValueError: so it is\n")
    code, output = launch()
    assert code == 1
    assert "failed on host 2 (tpu-w-2): failed (exit code 1); 5 retries are used up" in output
    assert "[host 2] ValueError: so it is" in output and "[host 2] line 5\n" not in output
    assert gcloud.verbs()[-1] == "delete"
    assert "continues from the last checkpoint" in output


def test_requests_that_fail_are_bounded(gcloud, launch):
    lives = [[WAITING, {"state": "FAILED", "error": "the valid until time has passed"}]] * 9
    gcloud.play(lives=lives)
    code, output = launch("--max_retries=2")
    assert code == 2
    assert gcloud.verbs().count("create") == 3 and gcloud.verbs()[-1] == "delete"
    assert "got no TPU in 3 attempts: the valid until time has passed" in output


def test_reasons_with_braces_are_only_text(gcloud, launch):
    gcloud.play(lives=[[{"state": "FAILED", "error": "{no} %s {0}"}]])
    code, output = launch("--max_retries=0")
    assert code == 2 and "{no} %s {0}" in output


def test_waiting_for_capacity_ends_when_asked_to(gcloud, launch):
    gcloud.play(lives=[[{"state": "FAILED", "error": "expired"}]] * 9)
    code, output = launch("--valid_until_duration=0s")
    assert code == 2 and "came within --valid_until_duration=0s: expired" in output
    assert gcloud.verbs().count("create") == 1 and gcloud.verbs()[-1] == "delete"


def test_on_demand_that_is_taken_away_counts(gcloud, launch):
    gcloud.play(lives=[[SUSPENDED]] * 9)
    code, output = launch("--on_demand", "--max_retries=1")
    assert code == 2 and gcloud.verbs().count("create") == 2
    assert "t5-xl was taken away 2 times" in output


def test_what_is_there_is_watched_not_created(gcloud, launch):
    gcloud.play(lives=[[WAITING, RUNNING, DONE]], existing=True, accelerator="v5litepod-16",
                fingerprint=launches.a_spec().fingerprint())  # fmt: skip
    code, _ = launch()
    assert code == 0
    assert gcloud.verbs() == ["delete"]


def test_a_suspended_one_is_deleted_with_force_and_made_again(gcloud, launch):
    gcloud.play(lives=[[SUSPENDED], [DONE]], existing=True, accelerator="v5litepod-16")
    code, _ = launch()
    assert code == 0
    assert gcloud.verbs() == ["delete", "cp", "cp", "rm", "create", "delete"]


def test_a_race_for_the_creation_is_no_error(gcloud, launch):
    exists = "ERROR: (gcloud) ALREADY_EXISTS: Resource already exists"
    gcloud.play(lives=[["absent", DONE]], existing=True, accelerator="v5litepod-16",
                errors={"create": [exists]},
                fingerprint=launches.a_spec().fingerprint())  # fmt: skip
    code, _ = launch()
    assert code == 0 and gcloud.verbs().count("create") == 1


def test_a_run_that_is_done_costs_nothing_again(gcloud, launch):
    gcloud.play(lives=[[DONE]])
    launch()
    before = gcloud.verbs()
    code, output = launch()
    assert code == 0 and gcloud.verbs() == before
    assert "done already; nothing was created" in output


def test_another_command_under_the_same_name_is_refused(gcloud, launch):
    flags = {"labels": "ait-jax-command=0000", "accelerator-type": "v5litepod-16"}
    gcloud.play(lives=[[RUNNING]], existing=True, flags=flags)
    code, output = launch()
    assert code == 2 and "runs another command" in output and gcloud.verbs() == []


def test_another_slice_under_the_same_name_is_refused(gcloud, launch):
    gcloud.play(lives=[[RUNNING]], existing=True, accelerator="v5litepod-64")
    code, output = launch()
    assert code == 2 and "is a v5litepod-64, not a v5litepod-16" in output


def test_deleted_by_somebody(gcloud, launch):
    gcloud.play(lives=[[RUNNING, "absent"]])
    code, output = launch()
    assert code == 1 and "was deleted by somebody" in output


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: Quota limit "
            "'TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 in "
            "zone us-west4-a.",
            ["TPUV5sPreemptibleLitepodPerProjectPerZone", "Request quota", "--zone"],
        ),
        (
            "ERROR: (gcloud.compute.tpus.queued-resources.create) PERMISSION_DENIED: Permission "
            "'tpu.nodes.create' denied on 'projects/my-project'\n- '@type': details\n",
            ["'tpu.nodes.create' denied", "roles/tpu.admin", "roles/storage.objectAdmin"],
        ),
        (
            "ERROR: (gcloud.compute) You do not currently have an active account selected.\n"
            "Please run:\n\n  $ gcloud auth login\n",
            ["active account", "Log in: gcloud auth login."],
        ),
        ("ERROR: (gcloud) INVALID_ARGUMENT: no such image", ["INVALID_ARGUMENT: no such image"]),
    ],
)
def test_errors_say_what_to_do_in_one_line(gcloud, launch, text, expected):
    gcloud.play(lives=[], errors={"create": [text]})
    code, output = launch()
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("ait-jax:")]
    assert all(part in line for part in expected)
    assert "Traceback" not in output and "@type" not in output


def test_a_bucket_that_cannot_be_written_stops_before_anything_is_created(gcloud, launch):
    denied = (
        "ERROR: (gcloud.storage.cp) HTTPError 403: me@x.com does not have storage.objects.create "
        "access to the Google Cloud Storage object. This command is authenticated as me@x.com "
        "which is the active account specified by the [core/account] property."
    )
    gcloud.play(lives=[], errors={"cp": [denied]})
    code, output = launch()
    assert code == 2 and "writing to gs://bucket/runs failed: ERROR" in output
    assert "roles/storage.objectAdmin" in output and gcloud.verbs() == ["cp"]


def test_quota_in_a_failed_request_stops_and_deletes(gcloud, launch):
    failed = {"state": "FAILED", "error": "Quota 'TPUV5s' exhausted. Limit 16 in region us-west4"}
    gcloud.play(lives=[[failed]])
    code, output = launch()
    assert code == 2 and "Quota 'TPUV5s' exhausted" in output and gcloud.verbs()[-1] == "delete"


def test_a_service_that_does_not_answer_is_asked_again(gcloud, launch):
    busy = "ERROR: (gcloud) UNAVAILABLE: The service is currently unavailable."
    gcloud.play(lives=[[RUNNING, DONE]], errors={"describe": ["", "", busy, busy, ""]})
    code, output = launch()
    assert code == 0 and "asking again" in output


def test_a_service_that_is_gone_ends_the_launcher_not_the_run(gcloud, launch):
    busy = "ERROR: (gcloud) UNAVAILABLE: The service is currently unavailable."
    gcloud.play(lives=[[RUNNING]], errors={"queued-resources describe": [busy] * 40})
    code, output = launch()
    assert code == 2 and "the same command continues from here" in output
    assert (
        "It costs money until it is deleted: gcloud compute tpus" not in output
    )  # nothing was made
    gcloud.play(lives=[[RUNNING]], existing=True, accelerator="v5litepod-16",
                errors={"queued-resources describe": ["", *[busy] * 40]})  # fmt: skip
    code, output = launch()
    assert code == 2 and "It costs money until it is deleted: gcloud compute tpus" in output


def test_a_service_that_does_not_answer_when_a_tpu_is_made_again_is_asked_again(gcloud, launch):
    busy = "ERROR: (gcloud) UNAVAILABLE: The service is currently unavailable."
    slow = "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'x' per minute"
    gcloud.play(lives=[[RUNNING, SUSPENDED], [RUNNING, DONE]],
                errors={"create": ["", busy, slow], "delete": [busy, ""]})  # fmt: skip
    code, output = launch()
    assert code == 0, output
    assert gcloud.verbs()[3:] == ["create", *["delete"] * 2, *["create"] * 3, "delete"]
    assert gcloud.verbs().count("rm") == 1 and "deleted by somebody" not in output


def test_one_that_is_just_being_deleted_is_made_again(gcloud, launch):
    gone = {"state": "DELETING"}
    gcloud.play(lives=[[gone, gone, "absent"], [DONE]], existing=True, leaves=True,
                accelerator="v5litepod-16")  # fmt: skip
    code, output = launch()
    assert code == 0, output
    assert gcloud.verbs() == ["cp", "cp", "rm", "create", "delete"]


def test_a_run_that_failed_before_its_tpu_was_taken_away_is_over(gcloud, launch):
    failed = active(*["failed"] * 4)["hosts"]
    gcloud.play(lives=[[RUNNING, SUSPENDED | {"hosts": failed}], [RUNNING]])
    code, _output = launch()
    assert code == 1 and gcloud.verbs().count("create") == 1 and gcloud.verbs()[-1] == "delete"


def test_hosts_of_whom_nothing_is_heard_are_not_paid_for_ever(gcloud, launch, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tpu_vm.time, "monotonic", lambda: clock[0])
    # Ten minutes between looks.
    monkeypatch.setattr(tpu_vm.Launch, "_pause", lambda self: clock.append(clock.pop() + 600))
    gcloud.play(lives=[[BOOTING, BOOTING, BOOTING, BOOTING, {"state": "ACTIVE", "node": "READY"}]])
    code, output = launch()
    assert code == 2 and gcloud.verbs()[-1] == "delete"
    assert clock[0] == 600 * 4 + tpu_vm.SILENT_S
    for text in ("no host of t5-xl has written to gs://bucket/runs/t5-xl/status",
                 "roles/storage.objectAdmin", "journalctl", "with --keep"):  # fmt: skip
        assert text in output
    # Those that say something from time to time are left alone.
    talking = [active("running") for _ in range(6)]
    for number, scene in enumerate(talking):
        scene["hosts"]["0"]["time"] = float(number // 2)
    gcloud.play(lives=[[*talking, DONE]])
    assert launch()[0] == 0


def test_no_gcloud(gcloud, launch, monkeypatch):
    monkeypatch.setenv("PATH", str(gcloud.folder / "nothing"))
    code, output = launch()
    assert code == 2 and output.count("\n") == 1 and "gcloud is not on PATH" in output


def test_keep_leaves_it_and_says_what_it_costs(gcloud, launch):
    gcloud.play(lives=[[DONE]])
    code, output = launch("--keep")
    assert code == 0 and "delete" not in gcloud.verbs()
    assert (
        "was kept" in output and "It costs money until it is deleted: gcloud compute tpus" in output
    )
    assert "--when_over" not in (gcloud.folder / "startup.sh").read_text()
    shutil.rmtree(gcloud.in_bucket("t5-xl/status"))
    gcloud.play(lives=[[active(*["failed"] * 4)]])
    code, output = launch("--keep")
    assert code == 1 and "With --use_existing=t5-xl the command continues there." in output


def test_ctrl_c_leaves_it_running_and_says_how_to_go_on(gcloud, launch, monkeypatch):
    gcloud.play(lives=[[RUNNING]])

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(tpu_vm.Launch, "_pause", lambda self: interrupt(0))
    code, output = launch()
    assert code == 130 and "delete" not in gcloud.verbs()
    for text in ("goes on without this program", "queued-resources delete t5-xl", "same command"):
        assert text in output


# Code sent, asked for, seen running, deleted after it was preempted, asked for again.
@pytest.mark.parametrize("calls", [4, 6, 10, 13, 16])
def test_killed_at_any_time_the_same_line_ends_the_run(gcloud, launch, monkeypatch, calls):
    """The launcher dies right after some call; given again, it leaves nothing that costs."""
    gcloud.play(lives=[[WAITING, RUNNING, SUSPENDED], *[[RUNNING, DONE]] * 3])
    call, left = tpu_vm.gcloud.call, [calls]

    def dying(arguments, **options):
        try:
            return call(arguments, **options)
        finally:
            left[0] -= 1
            if not left[0]:
                raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(tpu_vm.gcloud, "call", dying)
        with pytest.raises(SystemExit):
            launch()
    code, output = launch()
    assert code == 0, output
    verbs = gcloud.verbs()
    # The stand-in refuses to make what is there, so these alternate.
    assert verbs.count("create") == verbs.count("delete") <= 3
    assert json.loads((gcloud.folder / "script.json").read_text())["there"] is False


def test_an_existing_tpu_is_used_and_never_deleted(gcloud, launch):
    repaired = RUNNING | {"node": "REPAIRING"}
    scenes = [{"state": "ACTIVE"}, RUNNING, repaired, DONE]
    gcloud.play(lives=[scenes], existing=True, node_only=True,
                accelerator="v5litepod-16", run="t5-xl",
                fingerprint=launches.a_spec().fingerprint())  # fmt: skip
    code, output = launch("--use_existing=mine")
    assert code == 0, output
    assert gcloud.verbs() == ["cp", "cp", "rm", "ssh"]
    ssh = next(call for call in gcloud.calls() if "ssh" in call)
    assert "mine" in ssh and "--worker=all" in ssh
    assert "whoever created mine deletes it" in output


def test_an_existing_tpu_that_is_gone(gcloud, launch):
    gcloud.play(lives=[])
    code, output = launch("--use_existing=mine")
    assert code == 2 and "mine is ABSENT" in output


def test_the_logs_of_all_hosts(gcloud, capsys):
    folder = gcloud.in_bucket("t5-xl/logs")
    folder.mkdir(parents=True)
    for host in (10, 2):
        (folder / f"host_{host}.log").write_text(f"one of {host}\ntwo\n")
    arguments = ["launch", "logs", "--name=t5-xl", "--bucket=gs://bucket/runs"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "[host 2] one of 2", "[host 2] two", "[host 10] one of 10", "[host 10] two",
    ]  # fmt: skip
    assert cli.main([*arguments, "--host=3"]) == 2
    assert "no logs at gs://bucket/runs/t5-xl/logs/host_3.log" in capsys.readouterr().err


def test_the_launcher_as_a_process(gcloud, tmp_path):
    """From the shell, with the clone that the tests run from, so that nothing is patched."""
    if subprocess.run(["git", "-C", source.__file__.rsplit("/", 2)[0], "rev-parse"],
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("the tests do not run from a git clone")
    gcloud.play(lives=[[DONE]])
    environment = os.environ | gcloud.environment
    done = subprocess.run(
        ["python", "-m", "ait_jax.cli", *LINE, "--allow_dirty", *COMMAND],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((gcloud.folder / "script.json").read_text())["there"] is False


def test_hosts_words_stay_one_harmless_line():
    said = {"host": 1, "state": "failed", "message": "a\x1b[2Jb\nait-jax: done" + "x" * 1000}
    lines = [json.dumps(said), '{"host": Infinity}', "[" * 5000, '{"host": 1e999}', "{"]
    (status,) = statuses.parse("\n".join(lines))
    assert status.message.startswith("a\\x1b[2Jb\\nait-jax: done") and len(status.message) < 600
    assert statuses.summary([status], 2, 0.0).isprintable()
