"""Several processes with their own devices: scores as in one process, parameters in parts."""

import json

import numpy as np
import processes
import pytest
import tiny_processes

from ait_jax.scorer.likelihoods import read_rows


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    tiny_processes.score(folder)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder that two processes with two devices each have written."""
    folder = tmp_path_factory.mktemp("together")
    script = tiny_processes.__file__
    processes.run(lambda index, address: [script, str(index), "2", address, str(folder)])
    return folder


@pytest.mark.parametrize("table", ["likelihoods.parquet", "raced/likelihoods.parquet"])
def test_two_processes_write_what_one_does(alone, together, table):
    ours, reference = (read_rows(folder / table) for folder in (together, alone))
    values, expected = (np.array(rows.pop("log_likelihood")) for rows in (ours, reference))
    # All else is equal, the order of the rows too.
    assert ours == reference and len(set(ours["task"])) == tiny_processes.NUM_TASKS
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_nothing_else_is_left(together):
    files = {str(path.relative_to(together)) for path in together.rglob("*") if path.is_file()}
    scored = {"likelihoods.parquet", "raced/likelihoods.parquet", "raced/race.json"}
    assert files == scored | {"restored_0.json", "restored_1.json"}


def test_a_process_reads_only_the_parameters_of_its_devices(together):
    figures = [json.loads((together / f"restored_{i}.json").read_text()) for i in range(2)]
    for process in figures:
        # Half of what is partitioned; norms and biases of positions are whole everywhere.
        assert process["total"] / 2 < process["read"] < process["total"] * 0.51
