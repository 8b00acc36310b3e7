"""The progress bar: on terminals only, and the printed lines stay whole."""

import io
import sys

from ait_jax.console import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work():
    with progress("training", total=6, done=2) as show:
        show(3)
        print("step 3/6  loss 1.2345 [not markup]")
        show(6)
    print("after")


def test_no_bar_in_a_file(capsys):
    work()
    assert capsys.readouterr().out == "step 3/6  loss 1.2345 [not markup]\nafter\n"


def test_a_bar_on_a_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", stream)
    work()
    assert sys.stdout is stream
    shown = stream.getvalue()
    assert "training" in shown and "2/6" in shown
    assert "step 3/6  loss 1.2345 [not markup]\n" in shown
    assert shown.endswith("after\n")
