"""`ait-jax convert` as tests call it, and the parameters that it must leave."""

import numpy as np

from ait_jax import cli
from ait_jax.models import parameters


def convert(capsys, *arguments):
    """Returns exit code, standard output, standard error."""
    code = cli.main(["convert", *map(str, arguments)])
    output = capsys.readouterr()
    return code, output.out, output.err


def assert_equal(params, expected):
    params, expected = parameters.flatten(params), parameters.flatten(expected)
    assert list(params) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(params[name], np.float32), value)
