"""Names from strangers become one file in the folder that was meant, or an error of one line.

`pytest -n0 --hypothesis-profile=long tests/runtime/test_hostile_names.py` tries 10,000 of them.
"""

from pathlib import Path

import pytest
from hostile import unchanged
from hypothesis import example, given
from hypothesis import strategies as st

from ait_jax.errors import UserError, shown, shown_path, visible
from ait_jax.pool.splits import read_names
from ait_jax.runtime import files

PARTS = ["..", ".", "/", "\\", "~", "%2e%2e", "\0", "\n", "\r", "\u2028", "\u202e", "\x1b[2J", "é",
         "задача", "x" * 120, "=1+1", " ", "\ud800", "#?|*", "C:", ".tmp-", "-rf"]  # fmt: skip
NAMES = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=4).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("outside") / "run"
    path.mkdir()
    return path


@given(NAMES | st.sampled_from([None, 5, b"a", ["a"], {"a": 1}]))
@example("..")
@example("a/../../b")
@example("x" * 201)
def test_a_name_is_one_file_of_its_folder_or_refused(folder, name):
    try:
        checked = files.check_name(name, "task name in a.txt")
    except UserError as error:
        assert (
            "\n" not in str(error) and len(str(error)) < 500 and str(error) == visible(str(error))
        )
        return
    path = folder / checked
    with unchanged(folder.parent):
        files.write_text(path, "x")
        assert path.parent == folder and [p.name for p in folder.iterdir()] == [name]
        files.write_lines(folder / "names.txt", [checked])
        assert read_names(folder / "names.txt") == (name,)
        path.unlink()
        Path(folder / "names.txt").unlink()


@given(st.text() | st.text(alphabet="\x00\x1b\n\u202e\ud800a'\"\\", max_size=400))
def test_what_is_shown_is_one_short_line(text):
    for line in (shown(text), shown_path(text), shown({text: [text]})):
        assert len(line) <= 200 and line == visible(line)
        line.encode()
    if text.isascii() and text.isprintable() and len(text) < 190:
        assert shown(text) == repr(text)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_a_message_has_the_lines_that_it_was_given(lines):
    message = str(UserError(*lines))
    assert message.count("\n") == len(lines) - 1
    message.encode()
