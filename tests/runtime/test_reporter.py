"""The live view of a run: through a pseudo-terminal, and what stays of it where there is none."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from ait_jax.report import run_view
from ait_jax.rounds.run_status import compose
from ait_jax.runtime import reporter
from ait_jax.runtime.watching import watch

# A stage of 40 steps in 2 seconds, printing now and then; argument: how it ends.
PROGRAM = """
import signal, sys, time
from ait_jax.runtime import preemption, reporter
from ait_jax.runtime.watching import watch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
if sys.argv[1] == "heeded": preemption.heed()
from ait_jax.report import run_view
from ait_jax.runtime import watching
watching.show_with(run_view.reporter_lines)
TEST = {"rougeL": 1.75, "cls": {"rougeL": 1.0}, "gen": {"rougeL": 2.0}}
STAGES = {"base/evaluate": {"test": TEST}}
with watch(reporter.Reporter("run")):
    reporter.owned(STAGES, dict)
    reporter.plan([("base/evaluate", 9), ("round_000/train", 16), ("round_000/evaluate", 9)])
    with reporter.stage("round_000/train"), reporter.progress("training", 40) as show:
        for step in range(1, 41):
            time.sleep(0.05); preemption.check()
            reporter.trained(4.0 / step, tokens_per_second=12345.0, mfu=0.341); show(step)
            if step % 10 == 0: print(f"step {step}/40 [not markup]")
print("after")
"""


class Screen:
    """A program on a pseudo-terminal; `text` is all that it wrote."""

    def __init__(self, *arguments: str, columns: int = 80, **environment: str):
        self.leader, follower = pty.openpty()
        resize(self.leader, columns)
        environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env=environ | {"TERM": "xterm-256color"} | environment,
        )  # fmt: skip
        os.close(follower)
        self.text = ""

    def read(self, until: str = "", seconds: float = 30.0) -> str:
        """Reads until a text has come, or the program has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until in self.text):
            if select.select([self.leader], [], [], 0.1)[0]:
                try:
                    data = os.read(self.leader, 65536)
                except OSError:  # the other side is closed
                    break
                self.text += data.decode()
        assert not until or until in self.text, self.text
        return self.text

    def end(self) -> tuple[int, list[str]]:
        """Returns the exit code and what stands on the terminal at the end."""
        self.read()
        os.close(self.leader)
        return self.process.wait(timeout=20), shown(self.text)


def resize(descriptor: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def shown(text: str) -> list[str]:
    """A terminal in a few lines: printable text, line ends, up, erase to the end; no colors."""
    lines, row = [""], 0
    for up, erase, _, end, plain in re.findall(
        r"\x1b\[(\d+)A|(\x1b\[J)|(\x1b\[[\d;]*m)|([\r\n]+)|([^\x1b\r\n]+)", text
    ):
        if up:
            row -= int(up)
        elif erase:
            lines[row:] = [""]
        elif end:
            row += end.count("\n")
            lines += [""] * (row + 1 - len(lines))
        elif plain:
            lines[row] += plain
    assert not re.search(r"\x1b(?!\[(\d+A|J|[\d;]*m))", text), "an escape that this cannot read"
    return [line for line in lines if line]


LINES = [f"step {step}/40 [not markup]" for step in (10, 20, 30, 40)]


def test_the_view_stands_below_the_printed_lines_and_goes_away():
    screen = Screen("", columns=80)
    screen.read("step 30/40")
    screen.read(seconds=0.2)
    view = [line for line in shown(screen.text) if not line.startswith("step")]
    heading, bar, figures, curve = view
    assert heading.startswith("round_000 (1 of 1)  train  stage 2 of 3") and len(heading) <= 79
    assert re.match(r"training +━+─+ \d+/40 +\d+%  \d s left", bar)
    assert "loss 0." in figures and "█" in figures and "12,345 tokens/s   MFU 34.1%" in figures
    assert curve.startswith("test ROUGE-L ▄ 1.8")
    code, lines = screen.end()
    assert (code, lines) == (0, [*LINES, "after"])
    # Twice a second and once for every printed line.
    assert screen.text.count("stage 2 of 3") <= 2 * 2.5 + 4 + 3
    assert "\x1b[?25l" not in screen.text and "\x1b[32m" in screen.text


@pytest.mark.parametrize("columns", [30, 200])
def test_no_line_is_wider_than_the_terminal(columns):
    screen = Screen("", columns=columns, NO_COLOR="1")
    screen.read("step 20/40")
    if columns < 60:
        resize(screen.leader, 60)
    code, lines = screen.end()
    assert code == 0 and lines[-1] == "after" and lines[:1] == LINES[:1]
    plain = re.sub(r"\x1b\[[\d;]*[AJm]", "", screen.text)
    assert max(len(line.strip("\r")) for line in plain.split("\n")) <= (60 if columns < 60 else 110)
    assert not re.search(r"\x1b\[(3|9)\d", screen.text), "colours"


def test_ctrl_c_and_sigterm_leave_a_clean_terminal():
    for kind, number in (("", signal.SIGINT), ("", signal.SIGTERM), ("heeded", signal.SIGTERM)):
        screen = Screen(kind)
        screen.read("step 10/40")
        screen.process.send_signal(number)
        code, lines = screen.end()
        assert lines[0] == LINES[0] and not any("━" in line for line in lines), lines
        if kind == "heeded":
            assert code == 1 and "Preempted" in lines[-1]
        else:
            assert code == -number


def test_without_a_terminal_lines_are_as_they_are():
    for environment in ({}, {"TERM": "dumb"}):
        if environment:
            code, lines = Screen("", **environment).end()
        else:
            command = [sys.executable, "-c", PROGRAM, ""]
            done = subprocess.run(command, capture_output=True, text=True)
            code, lines = done.returncode, done.stdout.splitlines()
            assert done.stderr == ""
        assert (code, lines) == (0, [*LINES, "after"])


def test_live_json_says_how_it_goes_and_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("ait_jax.runtime.watching.PERIOD_SECONDS", 0.1)
    monkeypatch.setattr("ait_jax.runtime.watching._DRAW_SECONDS", 0.05)
    path = tmp_path / "live.json"
    with pytest.raises(ValueError), watch(reporter.Reporter("run"), tmp_path):
        raise ValueError("another run's folder")
    assert not path.exists(), "the folder was not this program's yet"
    with pytest.raises(KeyboardInterrupt), watch(reporter.Reporter("run"), tmp_path):
        reporter.owned({}, dict)
        reporter.plan([("round_000/train", 16)])
        with reporter.stage("round_000/train"), reporter.activity("training", 8) as show:
            reporter.trained(0.5)
            show(3)
            for _ in range(100):
                time.sleep(0.05)
                if path.exists():
                    break
            running = json.loads(path.read_text())
            raise KeyboardInterrupt
    assert running["state"] == "running" and running["activities"][0]["done"] == 3
    assert running["losses"] == [0.5] and running["pid"] == os.getpid()
    ended = json.loads(path.read_text())
    assert (ended["state"], ended["stage"]) == ("interrupted", "round_000/train")
    assert reporter._current is reporter._UNSEEN


def test_time_left_comes_from_the_pace_after_compiling(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    activity = reporter.Activity("training", 10, done=2)
    assert activity.seconds_left() is None
    now[0] = 160.0  # the first step compiles
    activity.update(3)
    assert activity.seconds_left() is None
    now[0] = 164.0
    activity.update(5)
    assert activity.seconds_left() == 5 * 2.0
    now[0] = 165.0
    assert activity.seconds_left() == 9.0


def test_time_left_of_the_run_comes_from_stages_of_the_same_kind():
    kinds = ("train", "evaluate", "score", "select")
    plan = [(f"round_00{r}/{k}", w) for r, w in ((0, 10), (1, 20), (2, 30)) for k in kinds][:-2]
    stages = {name: {} for name, _ in plan[:4]}
    timings = [
        (f"round_000/{kind}", seconds)
        for kind, seconds in zip(kinds, (50.0, 10.0, 20.0, 1.0), strict=True)
    ]
    known = {"state": "running", "plan": plan, "stage": "round_001/train", "stage_seconds": 30.0}
    assert compose(known, stages, timings[:2])["seconds_left"] is None
    # 100 - 30 of this stage, 20 + 40 + 2 of its round, 150 + 30 of the last.
    assert compose(known, stages, timings)["seconds_left"] == 70 + 62 + 180
    known["activities"] = [reporter.Activity("training", 4).to_json() | {"seconds_left": 5.0}]
    status = compose(known, stages, timings)
    assert status["seconds_left"] == 5 + 62 + 180
    assert (status["round"], status["rounds"], status["next"]) == (1, 3, "round_001/evaluate")


def test_terminals_without_unicode_get_ascii():
    class Latin(io.StringIO):
        encoding = "latin-1"

    status = compose({"losses": [3.0, 2.0, 1.0]}, {}, [])
    lines = run_view.drawn(run_view.live_lines(status, 60), 60, Latin())
    assert lines[0][0] == "loss 1.0000 #+_" and lines[0][1] == 15
