"""CSV files: no cell of theirs is computed, in Python's and in the page's own."""

import csv
import io
import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from ait_jax.report import csv_text

FORMULAS = [
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    " =1+1",
    "\u00a0\u3000=1+1",
    "\ufeff=1",
    "\x00-1 day",
    "\t=1",
    "\r=1",
    "\nx",
    "\t",
    "=",
    "--1",
    "\uff1d1+1",
    '="a",b',
    "+\u0661",
]
TEXTS = ["", "a=b", "task_1", "1-2", "'=1", "a\n=1", "é,b", 'a"b']
NUMBERS = ["-1", "+1.5", "-.5e-3", "-1.", "3"]


def cells(values) -> list[str]:
    buffer = io.StringIO()
    csv_text.write([[value] for value in values], buffer)
    return [row[0] if row else "" for row in csv.reader(io.StringIO(buffer.getvalue(), newline=""))]


def test_formulas_are_text():
    assert all(cell.startswith("'") for cell in cells(FORMULAS))
    assert cells(["=1+1", " @x"]) == ["'=1+1", "' @x"]


def test_other_text_and_numbers_stay_as_they_are():
    assert cells(NUMBERS) == NUMBERS
    assert cells([-1, -0.25, math.inf, None]) == ["-1", "-0.25", "inf", ""]
    assert cells([text for text in TEXTS if "\n" not in text]) == [
        text for text in TEXTS if "\n" not in text
    ]


def test_nothing_controls_a_terminal():
    assert cells(["a\x1b[2J\u202eb"]) == [r"a\x1b[2J\u202eb"]


def test_the_page_guards_the_same_cells():
    if shutil.which("node") is None:
        pytest.skip("needs node")
    source = (Path(csv_text.__file__).parent / "assets" / "tables.js").read_text()
    start = source.index("function csvCell")
    function = source[start : source.index("\n}\n", start) + 2]
    program = f"{function}\nconsole.log(JSON.stringify(JSON.parse(process.argv[1]).map(csvCell)))"
    given = [*FORMULAS, *TEXTS, *NUMBERS, -1, None]
    done = subprocess.run(
        ["node", "-e", program, json.dumps(given)], capture_output=True, text=True, check=True
    )
    (made,) = [json.loads(done.stdout)]
    read = [next(csv.reader(io.StringIO(cell, newline="")), [""])[0] for cell in made]
    guarded = [f"'{text}" for text in FORMULAS]
    assert read == [*guarded, *TEXTS, *NUMBERS, "-1", ""]
