"""What the benchmarks compute without a model: tables, batches as the authors make them."""

import subprocess
import sys
from pathlib import Path

import authors_way
import common
import growth
import numpy as np
import pytest
import rival_scoring
import rival_tables
import rival_training
import rivals
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
    assert done.returncode == 2 and "torch, transformers" in done.stderr
    assert done.stderr.count("\n") == 1 and "pip install -e '.[bench]'" in done.stderr


def test_batches_of_a_budget_are_longest_first():
    # 3 x 10 tokens fit into 30, then 9 + 9 (with 5 padded: 27); a row of 40 is alone.
    assert rival_scoring.batches_by_tokens([5, 10, 9, 40, 10, 9, 10], 30) == [
        [3], [1, 4, 6], [2, 5, 0],
    ]  # fmt: skip


def test_an_answer_is_scored_with_its_end_and_within_the_limit():
    assert rival_scoring.target_of([7, 8, 9], 3) == [7, 8, 1]
    assert rival_scoring.target_of([7, 1, 0, 0], 3) == [7, 1]
    assert rival_scoring.pairs_of([[[3, 1], [4, 1]], [[5, 1]]], [[7, 1], [8, 1]]) == (
        [[3, 1], [4, 1], [5, 1]],
        [[7, 1], [7, 1], [8, 1]],
    )


def test_the_warm_up_is_left_out_of_the_rate_of_training():
    assert rival_training.steady_rate([9, 9, 9, 10, 20], [50.0, 60.0, 70.0, 72.0, 75.0]) == 6.0


def test_labels_are_padded_with_what_the_loss_leaves_out():
    padded = rival_training.padded([[[5, 6, 1], [7, 1]], [[5, 1], [1]]])
    np.testing.assert_array_equal(padded["input_ids"], [[5, 6, 1], [5, 1, 0]])
    np.testing.assert_array_equal(padded["attention_mask"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(padded["labels"], [[7, 1], [1, -100]])


def test_a_repeat_measures_the_sides_of_a_comparison_in_turn():
    options = rivals.parse_options(
        "--quick --curve=20 --steps=4 --dropouts 0 --sides ait-jax transformers".split()
    )
    assert (options.model_size, options.repeats, options.steps) == ("mini", 1, 4)
    steps = [(m["part"], m["side"], m.get("steps")) for m in rivals.measurements(options)]
    assert steps == [
        ("scoring", "ait-jax", None), ("scoring", "transformers", None),
        ("training", "ait-jax", 4), ("training", "transformers", 4),
    ]  # fmt: skip
    assert [m["steps"] for m in rivals.curves_of(options)] == [20, 20]


def measured(part, side, repeat, seconds=1.0, **others):
    return {
        "part": part, "side": side, "repeat": repeat, "seconds": seconds,
        "teacher_forcing_seconds": seconds, "decode_seconds": seconds, "cores_of_others": 0.0,
        "cores_used": 2.0,
        "values": [-1.0, -2.0], "targets": [[3, 1], [4, 1]], **others,
    }  # fmt: skip


def test_tables_have_medians_and_ratios_of_the_same_repeat():
    assert rival_tables.spread([3.0, 1.0, 2.0]) == "2 (1..3)"
    assert rival_tables.spread([1234.5]) == "1,234" and rival_tables.spread([]) is None
    theirs = [measured("scoring", "transformers", i, 4.0 * 2**i) for i in range(2)]
    ours = [measured("scoring", "ait-jax", i, 2.0**i, values=[-1.5, -2.0]) for i in range(2)]
    trained = [
        measured(
            "training", side, 0, dropout=0.0, losses=[9.0, loss], tokens_per_second=rate,
            padding=0.25,
        )
        for side, loss, rate in (("ait-jax", 8.5, 300.0), ("transformers", 8.0, 200.0))
    ]  # fmt: skip
    options = rivals.parse_options(["--dropouts", "0"])
    text = rival_tables.markdown(
        {
            "machine": common.machine(),
            "settings": vars(options),
            "prepared": {
                "scoring": {
                    "source": "NIV2", "prompts": 2, "instances": 2, "mean_prompt_tokens": 300.0,
                    "target_tokens": 2.0, "teacher_forcing_flops": 1e9,
                },
                "training": {
                    "30": {"mean_input_tokens": 3.0, "mean_target_tokens": 2, "longest_input": 4}
                },
            },
            "peaks": [{"jax": 1e9, "torch": 2e9}],
            "results": [*ours, *theirs, *trained],
            "curves": [],
        }
    )  # fmt: skip
    rows = {
        tuple(cells[:2]): cells
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) > 2
    }
    assert rows["transformers, float32", "0.375 (0.25..0.5)"][2] == "4 (4..4)"
    of_ours = rows["ait-jax, float32", "1.5 (1..2)"]
    assert of_ours[2] == "-" and of_ours[7:10] == ["2.5e-01", "5.0e-01", "2 of 2"]
    assert rows["transformers, float32", "0"][2:5] == ["200", "1.5", "25.0%"]
    assert rows["ait-jax, float32", "0"][6] == "5.0e-01"


@pytest.mark.parametrize("arguments", ["--steps=3", "--curve=30", "--threads=100000"])
def test_what_cannot_be_measured_is_refused_at_once(arguments, capsys):
    with pytest.raises(SystemExit):
        rivals.parse_options([arguments])
    assert arguments.split("=")[0] in capsys.readouterr().err


def test_help_needs_none_of_the_other_sides_libraries():
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'ctranslate2']))\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "sys.argv = ['rivals.py', '--help']\n"
        "import rivals\n"
        "rivals.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "--repeats" in done.stdout, done.stderr
