"""What the benchmarks compute without a model: tables, batches as the authors make them."""

import subprocess
import sys
from pathlib import Path

import authors_way
import common
import growth
import numpy as np
import pytest
import scorer as scorer_benchmark
import workload

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_the_authors_batches_are_64_rows_in_order():
    sizes = [len(rows) for rows in authors_way.batches(list(range(130)))]
    assert sizes == [64, 64, 2]
    assert [row for rows in authors_way.batches("abcde", 2) for row in rows] == list("abcde")


def test_rows_are_padded_to_the_longest_of_their_batch():
    padded = authors_way.pad_to_longest([[5, 1], [7, 8, 9, 1]], -100)
    assert padded.dtype == np.int64
    np.testing.assert_array_equal(padded, [[5, 1, -100, -100], [7, 8, 9, 1]])


def test_padding_of_batches_by_hand():
    # 3 rows padded to 4, then 1 row as it is: 9 real tokens of 12, then 2 of 2.
    assert workload.padding_of_batches([4, 3, 2, 2], 3) == pytest.approx(1 - 11 / 14)
    assert workload.padding_of_batches([7, 7], 64) == 0


def test_a_table_is_aligned_and_has_a_dash_for_what_is_absent():
    rows = [
        {"side": "a", "prompts/s": 1234.5, "wait": None},
        {"side": "longer", "prompts/s": 0.0123, "wait": 12000},
    ]
    assert common.table(rows).splitlines() == [
        "| side   | prompts/s |   wait |",
        "|--------|----------:|-------:|",
        "| a      |     1,234 |      - |",
        "| longer |    0.0123 | 12,000 |",
    ]


def result(side, dtype, speed, rows=()):
    return {"side": side, "dtype": dtype, "prompts_per_second": speed, "rows": rows}


def test_ratios_take_the_better_dtype_of_a_side():
    results = [
        result("theirs", "float32", 2.0), result("ours", "float32", 3.0),
        result("theirs", "bfloat16", 4.0), result("ours", "bfloat16", 10.0),
    ]  # fmt: skip
    assert scorer_benchmark.ratios(results) == {
        "ours float32 / theirs float32": 1.5,
        "ours better / theirs float32": 5.0,
        "ours better / theirs better": 2.5,
    }
    assert scorer_benchmark.ratios(results[:1]) == {}


def row(prompt, answer, value, tokens=9):
    return {
        "task": "t", "instance_id": "i", "prompt": prompt, "answer": answer,
        "num_prompt_tokens": tokens, "log_likelihood": value,
    }  # fmt: skip


def test_only_rows_of_equal_answers_are_compared():
    theirs = [row(0, "a", -1.0), row(1, "a", -2.0), row(2, "b", -3.0)]
    ours = [row(2, "c", -9.0), row(1, "a", -2.25), row(0, "a", -1.0)]
    results = [result("theirs", "float32", 1.0, theirs), result("ours", "float32", 1.0, ours)]
    assert scorer_benchmark.differences(results, "float32") == {
        "dtype": "float32", "rows": 3, "rows_with_equal_answers": 2, "largest_difference": 0.25,
    }  # fmt: skip
    assert scorer_benchmark.differences(results, "bfloat16") is None


def test_two_sides_that_read_different_prompts_are_not_compared():
    results = [
        result("theirs", "float32", 1.0, [row(0, "a", -1.0)]),
        result("ours", "float32", 1.0, [row(0, "a", -1.0, tokens=8)]),
    ]
    with pytest.raises(SystemExit, match="did not read the same prompts"):
        scorer_benchmark.differences(results, "float32")


def test_the_synthetic_pool_is_the_same_every_time():
    pool = growth.synthetic_pool(50)
    assert len(pool) == 50 and len({t.instruction.definition for t in pool.values()}) > 30
    assert all(len(task.instances) == 1 for task in pool.values())
    assert pool.fingerprint() == growth.synthetic_pool(50).fingerprint()


def test_without_pytorch_one_line_says_how_to_get_it():
    script = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "importlib.util.find_spec = lambda name: None\n"
        "import common\n"
        "common.require_torch()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "pip install -e '.[bench]'" in done.stderr
