"""TPU slices by name: devices to compile for that nobody has to hold."""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ait_jax.errors import UserError, first_line, nearest, shown
from ait_jax.runtime.partitioning import Partitioner
from ait_jax.runtime.terminal import quiet_stderr

# By generation; v4 and v5p are tori in three dimensions.
_EXAMPLES = {"v4": "v4:4x4x8", "v5e": "v5e:16x16", "v5p": "v5p:4x4x8", "v6e": "v6e:8x8"}


@dataclass(frozen=True)
class PlannedPartitioner(Partitioner):
    """A partitioner on given devices."""

    given_devices: Sequence[Any] = ()

    @property
    def devices(self) -> Sequence[Any]:
        """The given ones."""
        return self.given_devices


def check_name(name: str) -> str:
    """Returns the generation of a topology's name, as in "v5e:16x16".

    Raises:
      UserError: an unknown generation or shape.
    """
    generation, _, shape = name.partition(":")
    if generation not in _EXAMPLES:
        raise UserError(
            f"--topology={name}: {shown(generation)} must be one of {', '.join(_EXAMPLES)}."
            + (nearest(generation, _EXAMPLES) or f" Give one as in {_EXAMPLES['v5e']}.")
        )
    axes = _EXAMPLES[generation].count("x") + 1
    if not re.fullmatch(rf"[1-9]\d*(x[1-9]\d*){{{axes - 1}}}", shape):
        raise UserError(
            f"--topology={name}: a slice of {generation} chips has {axes} sizes, as in "
            f"{_EXAMPLES[generation]}."
        )
    return generation


def devices_of(name: str) -> list[Any]:
    """Returns the (absent) devices of a TPU slice.

    Raises:
      UserError: a malformed name, a slice that does not exist, or no libtpu.
    """
    generation = check_name(name)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={name} needs the TPU compiler, which is not installed: "
            "pip install 'ait-jax[plan]' (libtpu; no TPU is needed)."
        )
    # libtpu otherwise looks for a TPU machine's metadata, and writes logs.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It otherwise allows one process at a time; no TPU is used here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_LOG_DIR", "disabled")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    from jax.experimental import topologies

    sizes = [int(size) for size in name.partition(":")[2].split("x")]
    options: dict[str, Any] = {}
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on a TPU VM
    if min(sizes[:2]) < 2:
        options["chips_per_host_bounds"] = (min(sizes[0], 2), min(sizes[1], 2), 1)
    try:
        with quiet_stderr():
            found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
        return list(found.devices)
    except Exception as error:  # XLA's own kinds of errors
        raise UserError(
            f"--topology={name} is not a slice that libtpu knows ({first_line(error)}); "
            f"{_EXAMPLES[generation]} is one."
        ) from error
