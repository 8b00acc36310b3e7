"""The progress bar, on terminals only; and noise on the error stream, hidden."""

import io
import os
import sys
import time

import pytest

from ait_jax.runtime.reporter import progress
from ait_jax.runtime.terminal import quiet_stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work():
    with progress("training", total=6, done=2) as show:
        show(3)
        time.sleep(0.1)
        print("step 3/6  loss 1.2345 [not markup]")
        show(6, "$0.01, [3] cached")
        time.sleep(0.1)
    print("after")


def test_no_bar_in_a_file(capsys):
    work()
    assert capsys.readouterr().out == "step 3/6  loss 1.2345 [not markup]\nafter\n"


def test_a_bar_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("ait_jax.runtime.watching._DRAW_SECONDS", 0.01)
    work()
    assert sys.stdout is stream
    shown = stream.getvalue()
    assert "training" in shown and "3/6" in shown and "$0.01, [3] cached" in shown
    assert "step 3/6  loss 1.2345 [not markup]\n" in shown
    assert shown.endswith("after\n")


def test_greetings_are_not_shown(capfd):
    with quiet_stderr():
        os.write(2, b"WARNING: could not find cuda drivers\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_came_before_an_error_is_shown(capfd):
    with pytest.raises(ImportError), quiet_stderr():
        os.write(2, b"undefined symbol\n")
        raise ImportError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "undefined symbol\nafter\n"
