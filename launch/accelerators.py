"""TPU slices by name: chips, hosts, topology, runtime image, GKE labels.

The number in a name counts chips on v5e and v6e, but TensorCores, two per chip, on v4 and v5p: v4-8
has 4 chips, v5litepod-8 has 8. A host is a TPU VM: on v5e and v6e, two hosts of 4 chips share a
machine of 8, and Google's pages count machines.

Sources: docs.cloud.google.com/tpu/docs: v4, v5e, v5p, v6e (sizes, topologies, GKE's machine types;
most of v5p's full cubes), runtimes (images); /kubernetes-engine/docs/concepts/plan-tpus (GKE's
accelerator labels).
"""

import dataclasses
import importlib.resources
import math
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from ait_jax.errors import UserError, nearest, shown

# The Cloud TPU API has no TPU7x.
GKE_ONLY = ("tpu7x", "v7x", "ironwood")


@dataclasses.dataclass(frozen=True)
class Generation:
    """What all slices of one TPU generation share: a table of assets/generations.toml.

    Attributes:
      name: of the API's accelerator types, before the dash.
      cores_per_chip: what the number in an accelerator type counts per chip.
      single_host_chips: sizes that fit one host; larger slices have 4 chips per host.
      topologies: chips along each axis, smallest slice first.
      runtime_version: the image; another generation's has no working driver.
      gke_accelerator, gke_machine_type: of GKE node pools ({} stands for chips per host).
      flex_start: whether flex-start requests are accepted.
    """

    name: str
    cores_per_chip: int
    single_host_chips: Sequence[int]
    topologies: Sequence[str]
    runtime_version: str
    gke_accelerator: str
    gke_machine_type: str
    flex_start: bool = False


_FILE = importlib.resources.files("ait_jax.launch") / "assets" / "generations.toml"
_TABLES: dict[str, dict[str, Any]] = tomllib.loads(_FILE.read_text("utf-8"))
GENERATIONS = {name: Generation(name, **values) for name, values in _TABLES.items()}
ALIASES = {"v5e": "v5litepod", "v5lite": "v5litepod"}


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One slice; `parse` finds it by name."""

    generation: Generation
    topology: str

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(int(length) for length in self.topology.split("x"))

    @property
    def chips_per_host(self) -> int:
        """JAX devices of one host; on all these generations a device is a chip."""
        return self.chips if self.chips in self.generation.single_host_chips else 4

    @property
    def hosts(self) -> int:
        """TPU VMs of the slice."""
        return self.chips // self.chips_per_host

    @property
    def name(self) -> str:
        """The Cloud TPU API's accelerator type, `v5litepod-256`."""
        return f"{self.generation.name}-{self.chips * self.generation.cores_per_chip}"

    @property
    def gke_machine_type(self) -> str:
        """The machine type of GKE node pools."""
        return self.generation.gke_machine_type.format(self.chips_per_host)

    def describe(self) -> str:
        """Returns name, chips, topology and hosts in words."""
        hosts = f"{self.hosts} host{'s' if self.hosts > 1 else ''}"
        return f"{self.name}: {self.chips} chips ({self.topology}) on {hosts}"


def parse(name: str) -> Accelerator:
    """Returns the slice called `name`: `v5e-256`, `v5litepod-256`, `v4-8`, `v5p-128`, `v6e-16`.

    Raises:
      UserError: an unknown generation or size; names the nearest one.
    """
    matched = re.fullmatch(r"([a-z0-9]+)-([0-9]{1,6})", name)
    kind = ALIASES.get(matched[1], matched[1]) if matched else name.partition("-")[0]
    if kind in GKE_ONLY:
        raise UserError(
            f"--accelerator={name}: the Cloud TPU API has no TPU7x, only GKE has. Nearest: v6e-256."
        )
    known = (*GENERATIONS, *ALIASES)
    if not matched or kind not in GENERATIONS:
        raise UserError(
            f"--accelerator={shown(name)} is not a TPU slice.{nearest(kind, known)} Give "
            f"GENERATION-SIZE, such as v5e-256; generations: {', '.join(known)}."
        )
    generation, size = GENERATIONS[kind], int(matched[2])
    slices = [Accelerator(generation, topology) for topology in generation.topologies]
    sizes = [accelerator.chips * generation.cores_per_chip for accelerator in slices]
    if size in sizes:
        return slices[sizes.index(size)]
    closest = min(sizes, key=lambda other: abs(other - size))
    counted = "TensorCores, two per chip" if generation.cores_per_chip == 2 else "chips"
    raise UserError(
        f"--accelerator={name}: {generation.name} has no slice of that size. Did you mean "
        f"'{generation.name}-{closest}'? The number counts {counted}; sizes: "
        f"{', '.join(map(str, sizes))}."
    )
