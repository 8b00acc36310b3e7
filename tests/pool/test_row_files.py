"""Files of rows as people have them: kinds by their first bytes, broken places, bounded work."""

import gzip
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ait_jax.errors import UserError
from ait_jax.pool import row_files
from ait_jax.pool.columns import advice
from ait_jax.pool.row_files import BROKEN_JSON, NOT_UTF8, Broken, rows

ROWS = [{"instruction": f"Do {n}.", "output": "caf\u00e9"} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ONE_BY_ONE = "\n".join(json.dumps(row, indent=1) for row in ROWS)


@pytest.fixture
def read(tmp_path):
    def read(data, name="rows"):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return list(rows(tmp_path / name))

    return read


@pytest.mark.parametrize(
    "text, places",
    [
        (LINES, ["line 1", "line 2", "line 3"]),
        (f"\n \n{LINES}\n", ["line 3", "line 4", "line 5"]),
        (LINES.replace("\n", "\r\n"), ["line 1", "line 2", "line 3"]),
        (json.dumps(ROWS), ["line 1"] * 3),
        (json.dumps(ROWS, indent=1), ["line 2", "line 6", "line 10"]),
        (ONE_BY_ONE, ["line 1", "line 5", "line 9"]),
        (ONE_BY_ONE.replace("}\n{", "},\n{"), ["line 1", "line 5", "line 9"]),
        (json.dumps({"data": ROWS}), ["row 1", "row 2", "row 3"]),
        (json.dumps({"version": 2, "rows": ROWS}, indent=1), ["row 1", "row 2", "row 3"]),
    ],
)
def test_kinds_of_json(read, text, places):
    for data in (text.encode(), b"\xef\xbb\xbf" + text.encode(), gzip.compress(text.encode())):
        assert read(data) == list(zip(places, ROWS, strict=True))


def test_parquet_is_read_in_parts(read, tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "_ROWS_AT_ONCE", 2)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p")
    assert read((tmp_path / "p").read_bytes()) == [
        (f"row {number}", row) for number, row in enumerate(ROWS, start=1)
    ]
    with pytest.raises(UserError, match="rows: damaged Parquet"):
        read((tmp_path / "p").read_bytes()[:-20])


def test_what_is_broken_is_told_in_its_place(read):
    found = read(LINES.encode() + b'{"a": "\xe9"}\n{"b": \n{"c": NaN}\n{"d": "\\ud83d"}\n')
    assert found[3] == ("line 4", Broken(NOT_UTF8, "save the file as UTF-8"))
    assert found[4][1].reason == BROKEN_JSON and found[4][0] == "line 5"
    assert found[5][1]["c"] != found[5][1]["c"], "NaN"
    assert found[6] == ("line 7", {"d": "\ufffd"})
    for end, line in (("", 2), (" x]", 2), (",\n]", 3), ("]\n[]", 2)):
        text = '[{"a": 1},\n{"a": 2}' + end
        *good, (place, broken) = read(text)
        assert len(good) == 2 and place == f"line {line}" and broken.reason == BROKEN_JSON
    *good, (place, broken) = read('[{"a": 1},\n{"a": 1, "a": 2}]')
    assert "given twice" in broken.detail and len(good) == 1
    assert read('{"broken": \n' + LINES)[1:] == [
        (f"line {number}", row) for number, row in enumerate(ROWS, start=2)
    ]


@pytest.mark.parametrize(
    "data, problem",
    [
        (LINES.encode("utf-16"), r"line 1: not UTF-8 text \(UTF-16, by its first bytes\)"),
        (LINES.encode("utf-16-le"), r"line 1: not UTF-8 text \(UTF-16 or UTF-32, by its zero"),
        (LINES.encode("utf-32"), r"line 1: not UTF-8 text"),
        (gzip.compress(LINES.encode("utf-16"), mtime=0), r"line 1: not UTF-8 text"),
        (gzip.compress(LINES.encode() * 99, mtime=0)[:60], "damaged gzip"),
        (b"\x1f\x8bnothing", "damaged gzip"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1PAR1", "damaged Parquet"),
    ],
)
def test_other_files_are_refused_by_name(read, data, problem):
    with pytest.raises(UserError, match=problem) as error:
        read(data, "given.jsonl")
    assert "given.jsonl" in str(error.value)


def test_pipes_devices_and_links_to_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path / "gone", tmp_path):
        with pytest.raises(UserError, match="cannot read the file"):
            list(rows(path))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"instruction": "word " * 600_000}),
        json.dumps([{"instruction": "word " * 600_000}]),
        "[" + " " * 3_000_000 + '{"a": 1}]',
        json.dumps([{"a": n} for n in range(60_000)], indent=1),
        json.dumps({f"column {n}": n for n in range(100_000)}),
        "\n" * 3_000_000 + '{"a": 1}',
    ],
)
def test_time_grows_as_the_file_does(read, text):
    before = time.process_time()
    found = read(text)
    assert not any(isinstance(value, Broken) for _, value in found)
    assert "--columns=" in advice(found[0][1])
    assert time.process_time() - before < 6
