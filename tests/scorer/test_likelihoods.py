"""The tables on disk: round trips, errors that name the file, and memory that stays flat."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from selecting import table_of
from shared_data import SUPPORT

from ait_jax.errors import UserError
from ait_jax.scorer import likelihoods
from ait_jax.selection import uncertainty
from ait_jax.selection.uncertainty import task_scores


def columns(num_tasks: int, n: int, k: int, seed: int = 0) -> dict[str, list]:
    """Returns the columns of a table as the scorer writes it."""
    places = [
        (f"task{t:05d}", f"{t}-{i}", j)
        for t in range(num_tasks)
        for i in range(n)
        for j in range(k + 1)
    ]
    values = -np.random.default_rng(seed).exponential(0.5, len(places)).astype(np.float32)
    task, instance, prompt = map(list, zip(*places, strict=True))
    return {
        "task": task,
        "instance_id": instance,
        "prompt": prompt,
        "answer": [f"answer {i}" for i in instance],
        "num_answer_tokens": [3] * len(places),
        "num_prompt_tokens": [70] * len(places),
        "num_tokens_cut": [0] * len(places),
        "log_likelihood": values.tolist(),
        "generated_log_likelihood": [-0.5 if j == 0 else None for j in prompt],
    }


def cut(table: dict[str, list], rows) -> dict[str, list]:
    return {name: [values[i] for i in rows] for name, values in table.items()}


@pytest.fixture
def parts(tmp_path):
    """A table in three files, and its columns."""
    table = columns(7, 2, 3)
    paths = []
    for number, rows in enumerate((range(0, 8), range(8, 40), range(40, 56))):
        paths.append(tmp_path / f"part{number}.parquet")
        likelihoods.write_rows(paths[-1], cut(table, rows))
    return table, paths


def test_parts_make_one_table_in_their_order(parts, tmp_path):
    table, paths = parts
    likelihoods.concatenate(paths, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == table
    rows = likelihoods.read_rows(tmp_path / "a.parquet")
    assert rows == {name: table[name] for name in likelihoods.COLUMNS}
    likelihoods.concatenate([], tmp_path / "none.parquet")
    assert likelihoods.read_rows(tmp_path / "none.parquet")["task"] == []
    assert len(task_scores(likelihoods.read_likelihoods(tmp_path / "none.parquet"))) == 0


def test_scores_do_not_depend_on_parts_or_the_order_of_rows(parts, tmp_path):
    table, paths = parts
    likelihoods.concatenate(paths[::-1], tmp_path / "backwards.parquet")
    rows = np.random.default_rng(1).permutation(len(table["task"]))
    likelihoods.write_rows(tmp_path / "shuffled.parquet", cut(table, rows))
    likelihoods.write_rows(tmp_path / "plain.parquet", table)
    tables = [
        likelihoods.read_likelihoods(tmp_path / f"{name}.parquet")
        for name in ("plain", "backwards", "shuffled")
    ]
    names = ("task", "instance_id", "prompt", "log_likelihood")
    tables.append(table_of(zip(*(table[name] for name in names), strict=True)))
    for other in tables:
        assert other.tasks == tables[0].tasks == tuple(f"task{t:05d}" for t in range(7))
        for one, same in zip(other.log_likelihoods, tables[0].log_likelihoods, strict=True):
            assert one.tobytes() == same.tobytes()
    expected = np.reshape(table["log_likelihood"], (7, 2, 4))
    np.testing.assert_array_equal(tables[0].log_likelihoods, expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: cut(t, [*range(56), 9]), r"'task00001', instance '1-0', prompt 1 occurs twice"),
        (
            lambda t: cut(t, [*range(20), *range(21, 56)]),
            r"'task00002', instance '2-1' has no .* prompt\(s\) \[0\] of 0\.\.3",
        ),
        (
            lambda t: t | {"log_likelihood": [*t["log_likelihood"][:-1], float("nan")]},
            r"1 of 56 .* nan \(task 'task00006', instance '6-1', prompt 3\)",
        ),
    ],
    ids=["double", "missing", "not finite"],
)
def test_what_is_wrong_in_a_file_is_named(parts, tmp_path, spoil, message):
    path = tmp_path / "spoilt.parquet"
    likelihoods.write_rows(path, spoil(parts[0]))
    with pytest.raises(UserError, match=message) as caught:
        likelihoods.read_likelihoods(path)
    assert str(path) in str(caught.value)


def test_a_damaged_part_is_named_and_leaves_no_table(parts, tmp_path):
    _, paths = parts
    data = paths[1].read_bytes()
    for damage in (data[:-40], b"PAR1", b"not parquet"):
        paths[1].write_bytes(damage)
        with pytest.raises(UserError, match="part1.parquet cannot be read as parquet"):
            likelihoods.concatenate(paths, tmp_path / "a.parquet")
        assert not (tmp_path / "a.parquet").exists() and not list(tmp_path.glob(".tmp-*"))


def test_another_layout_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"task": ["a"]}), path)
    for read in (likelihoods.read_rows, likelihoods.read_likelihoods, likelihoods.read_answers):
        with pytest.raises(UserError, match=r"other.parquet lacks the column\(s\)"):
            read(path)
    with pytest.raises(UserError, match="other.parquet lacks"):
        likelihoods.concatenate([path], tmp_path / "a.parquet")


def test_answers_are_those_of_the_original_prompts(parts, tmp_path):
    table, paths = parts
    answers = likelihoods.read_answers(paths[0])
    assert answers == {
        ("task00000", "0-0"): ("answer 0-0", table["log_likelihood"][0]),
        ("task00000", "0-1"): ("answer 0-1", table["log_likelihood"][4]),
    }


def test_rows_of_a_chunk_are_checked_by_task_and_prompt(parts):
    _, (path, *_) = parts

    def has_rows(planned):
        rows = [(name, j) for name, prompts in planned.items() for j in prompts]
        return likelihoods.has_rows(path, rows)

    assert has_rows({"task00000": [0, 1, 2, 3] * 2})
    for planned in (
        {"task00000": [0, 1, 2, 3]},
        {"task00001": [0, 1, 2, 3] * 2},
        {"task00000": [1, 2, 3, 4] * 2},
        {"task00000": [0, 1] * 4},
        {"task00000": [0, 1, 2, 3] * 2, "task00001": [0, 1, 2, 3] * 2},
    ):
        assert not has_rows(planned)


def test_a_stack_of_tasks_is_measured_as_each_alone(tmp_path):
    generator = np.random.default_rng(3)
    shapes = [(1, 11), (10, 11), (10, 11), (3, 4), (1, 1), (2, 1), (1, 11)] * 9
    rows = [
        (f"t{t:03d}", str(i), j, -float(generator.exponential()))
        for t, (n, prompts) in enumerate(shapes)
        for i in range(n)
        for j in range(prompts)
    ]
    table = table_of(rows)
    scores = task_scores(table)
    assert scores.num_instances.tolist() == [n for n, _ in shapes]
    assert scores.num_prompts.tolist() == [prompts for _, prompts in shapes]
    for name, measure in uncertainty.MEASURES.items():
        alone = np.array([measure(matrix) for matrix in table.log_likelihoods])
        assert alone.tobytes() == getattr(scores, name).tobytes(), name


def test_fifty_thousand_tasks_take_seconds(tmp_path):
    table = columns(50_000, 1, 4)
    path = tmp_path / "a.parquet"
    likelihoods.write_rows(path, table)
    start = time.process_time()
    scores = task_scores(likelihoods.read_likelihoods(path))
    assert time.process_time() - start < 10, "usually under 1"
    probability = np.exp(np.reshape(table["log_likelihood"], (-1, 5)).astype(np.float64))
    expected = np.abs(probability[:, :1] - probability[:, 1:]).mean(axis=1)
    np.testing.assert_allclose(scores.prompt_uncertainty, expected, rtol=1e-13)


def test_concatenation_holds_one_part_at_a_time(tmp_path):
    """In a process of its own: what pyarrow has allocated at most is known per process."""
    program = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(SUPPORT)!r}, {str(Path(__file__).parent)!r}]
import pyarrow as pa
from ait_jax.scorer import likelihoods
from test_likelihoods import columns
table = columns(500, 1, 3)
table["answer"] = [f"{{i}}" * 200 for i in range(2000)]
parts = [Path({str(tmp_path)!r}) / f"{{i}}.parquet" for i in range(20)]
for part in parts:
    likelihoods.write_rows(part, table)
pool = pa.default_memory_pool()
one = pool.max_memory()
likelihoods.concatenate(parts, parts[0].parent / "all.parquet")
print(one, pool.max_memory())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, most = map(int, done.stdout.split())
    assert one > 1e6 and most < 5 * one


def test_a_table_of_an_earlier_version_is_read(tmp_path):
    """Without the decoded tokens' own log-likelihoods, perplexity is that of prompt 0."""
    table = columns(3, 2, 3)
    path = tmp_path / "likelihoods.parquet"
    likelihoods.write_rows(path, table)
    new = task_scores(likelihoods.read_likelihoods(path))
    assert new.perplexity.tolist() == [pytest.approx(np.exp(0.5))] * 3
    pq.write_table(pq.read_table(path).drop_columns(["generated_log_likelihood"]), path)
    old = task_scores(likelihoods.read_likelihoods(path))
    of_original = np.reshape(table["log_likelihood"], (3, 2, 4))[:, :, 0]
    np.testing.assert_allclose(old.perplexity, np.exp(-of_original.astype(float)).mean(axis=1))
    assert old.prompt_uncertainty.tobytes() == new.prompt_uncertainty.tobytes()
