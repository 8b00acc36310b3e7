"""One mesh and one table of logical-axis rules, for trainer and scorer alike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax.core.spmd import logical_axis_rules
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ait_jax.errors import UserError, nearest, shown
from ait_jax.runtime.hardware import platform_of

MESH_AXES = ("data", "model")

# Where each logical axis of a parameter or an activation lies on the mesh (T5X's names), in order
# of precedence, see `Partitioner.spec`; other tables are in gin/partitioning.
STANDARD_LOGICAL_AXIS_RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("kv", None),
    ("embed", None),
    ("length", None),
    ("relpos_buckets", None),
    ("layers", None),
    ("stack", None),
)


# What the models constrain (models/layers.py, blocks.py, t5.py): a table must place these, too.
ACTIVATION_AXES = (
    ("batch", "length", "embed"),
    ("batch", "length", "heads", "kv"),
    ("batch", "length", "mlp"),
    ("batch", "length", "vocab"),
)

_GIN_NAME = "partitioning.Partitioner"
_RULES = f"{_GIN_NAME}.logical_axis_rules"


@dataclass(frozen=True)
class Partitioner:
    """A ('data', 'model') mesh over all devices and the rules that place arrays on it.

    Args:
      num_partitions: size of the 'model' axis (T5X's name); the 'data' axis is the rest.
      logical_axis_rules: pairs (logical axis, mesh axis or None), in order of precedence.

    Raises:
      UserError: a rule to an unknown mesh axis, or one that is never reached.
    """

    num_partitions: int = 1
    logical_axis_rules: Sequence[tuple[str, str | None]] = STANDARD_LOGICAL_AXIS_RULES

    def __post_init__(self) -> None:
        _check_rules(self.logical_axis_rules)
        # Gin gives lists, which are not hashable.
        rules = tuple((axis, mesh_axis) for axis, mesh_axis in self.logical_axis_rules)
        object.__setattr__(self, "logical_axis_rules", rules)

    @property
    def devices(self) -> Sequence[Any]:
        """The devices of the mesh."""
        return jax.devices()

    @cached_property
    def mesh(self) -> Mesh:
        """The devices in rows of `num_partitions`."""
        devices = np.asarray(self.devices)
        if self.num_partitions < 1 or devices.size % self.num_partitions:
            raise UserError(
                f"{_GIN_NAME}.num_partitions = {self.num_partitions} does not divide "
                f"the {devices.size} devices; give a divisor of {devices.size}."
            )
        return make_mesh(devices.reshape(-1, self.num_partitions))

    @property
    def data_size(self) -> int:
        """The number of shards of a batch."""
        return self.mesh.shape["data"]

    @property
    def platform(self) -> str:
        """The platform of the mesh's devices: "cpu", "gpu" or "tpu"."""
        return platform_of(self.mesh.devices.flat[0].device_kind)

    @cached_property
    def replicated(self) -> NamedSharding:
        """Whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def batch_sharding(self) -> NamedSharding:
        """Rows over 'data'."""
        return NamedSharding(self.mesh, self.spec(("batch",)))

    def spec(self, logical_axes: Sequence[str | None], name: str = "array") -> PartitionSpec:
        """Translates logical axes into a PartitionSpec.

        As in T5X and Flax, rules apply from the first to the last, without those whose mesh axis
        another axis of the array has taken. With ("batch", "data"), ("embed", "data"),
        ("embed", None) parameters have "embed" over 'data', but activations, which have "batch"
        there, do not.

        Raises:
          UserError: an axis has no rule, or all of its mesh axes are taken.
        """
        taken: dict[str, str] = {}
        placed: dict[str, str | None] = {}
        for axis, mesh_axis in self.logical_axis_rules:
            if axis in logical_axes and axis not in placed and mesh_axis not in taken:
                placed[axis] = mesh_axis
                if mesh_axis is not None:
                    taken[mesh_axis] = axis
        for axis in logical_axes:
            if axis is not None and axis not in placed:
                raise UserError(f"{name}: {self._why_not_placed(axis, logical_axes, taken)}")
        return PartitionSpec(*(placed[axis] if axis else None for axis in logical_axes))

    def _why_not_placed(
        self, axis: str, logical_axes: Sequence[str | None], taken: dict[str, str]
    ) -> str:
        wanted = [mesh for known, mesh in self.logical_axis_rules if known == axis and mesh]
        if not wanted:
            known = {known for known, _ in self.logical_axis_rules}
            return f"no rule for logical axis {shown(axis)} in {_RULES}.{nearest(axis, known)}"
        clashes = " and ".join(
            f"{shown(taken[mesh_axis])} collide on mesh axis {shown(mesh_axis)}"
            for mesh_axis in wanted
        )
        return (
            f"logical axes {shown(axis)} and {clashes} in {tuple(logical_axes)}; give one of them "
            f"another mesh axis in {_RULES}, or add ({shown(axis)}, None) after its rules to leave "
            "it whole."
        )

    def param_shardings(self, abstract_params: Any, logical_axes: Any) -> Any:
        """Returns the tree of shardings for a tree of parameters.

        Args:
          abstract_params: tree of arrays or ShapeDtypeStructs.
          logical_axes: the same tree with a tuple of logical axis names at every leaf.

        Raises:
          UserError: a mesh axis does not divide a dimension.
        """

        def sharding(path: Any, leaf: Any, axes: Sequence[str | None]) -> NamedSharding:
            name = _path_name(path)
            spec = self.spec(axes, name)
            for size, logical, axis in zip(leaf.shape, axes, spec, strict=True):
                if axis is not None and size % self.mesh.shape[axis]:
                    raise UserError(
                        f"{name}: dimension {size} ({shown(logical)}) of {leaf.shape} "
                        f"{tuple(axes)} is not divisible by the mesh's {shown(axis)} axis of "
                        f"{self.mesh.shape[axis]}; "
                        + self._partitions_hint(axis, size)
                        + f" or give {shown(logical)} another rule in {_RULES}."
                    )
            return NamedSharding(self.mesh, spec)

        return jax.tree_util.tree_map_with_path(sharding, abstract_params, logical_axes)

    def _partitions_hint(self, axis: str, size: int) -> str:
        """Suggests the nearest size of the 'model' axis that fits `size`."""
        devices = self.mesh.size
        fitting = [
            n
            for n in range(1, devices + 1)
            if devices % n == 0 and size % (n if axis == "model" else devices // n) == 0
        ]
        if not fitting:
            return "no NUM_PARTITIONS fits: use fewer devices"
        closest = min(fitting, key=lambda n: abs(n - self.num_partitions))
        return (
            f"set NUM_PARTITIONS ({_GIN_NAME}.num_partitions) = {closest}, not "
            f"{self.num_partitions},"
        )

    def check_batch_size(self, rows: int, gin_name: str) -> None:
        """Refuses a number of rows that the 'data' axis does not divide."""
        if rows < 1 or rows % self.data_size:
            raise UserError(
                f"{gin_name} = {rows} is not a multiple of the mesh's 'data' axis of "
                f"{self.data_size} ({self.mesh.size} devices, num_partitions = "
                f"{self.num_partitions}); the nearest is "
                f"{max(1, round(rows / self.data_size)) * self.data_size}."
            )

    @cached_property
    def row_groups(self) -> tuple[int, int]:
        """This process's group, and the number of groups.

        A 'model' axis spans the processes of a group, which read the same rows.
        """
        local, size = jax.local_device_count(), self.num_partitions
        if jax.process_count() > 1 and local % size and size % local:
            raise UserError(
                f"{_GIN_NAME}.num_partitions (NUM_PARTITIONS) = {size} is neither a divisor nor a "
                f"multiple of the {local} devices of a process."
            )
        processes = max(1, size // local) if jax.process_count() > 1 else 1
        return jax.process_index() // processes, jax.process_count() // processes

    def own(self, items: Sequence[Any]) -> list[Any]:
        """Returns the items whose rows this process reads."""
        group, count = self.row_groups
        return list(items[group::count])

    def first_of_groups(self, by_process: Sequence[Any]) -> list[Any]:
        """Returns one value per group, whose processes have equal ones."""
        return list(by_process[:: jax.process_count() // self.row_groups[1]])

    def own_rows(self, num_rows: int) -> slice:
        """Returns the rows of a batch that lie on this process's devices."""
        indices = self.batch_sharding.addressable_devices_indices_map((num_rows,)).values()
        bounds = [index[0].indices(num_rows)[:2] for index in indices if index]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))

    def shard_batch(self, batch: Any) -> Any:
        """Puts this process's rows of a batch, host arrays, on the mesh over 'data'."""
        return jax.tree.map(lambda rows: feed(rows, self.batch_sharding), batch)

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Makes mesh and rules visible to the model's sharding constraints during tracing.

        Raises:
          UserError: the rules do not place an activation.
        """
        for axes in ACTIVATION_AXES:
            self.spec(axes, "an activation")
        rules = tuple((axis, mesh_axis) for axis, mesh_axis in self.logical_axis_rules)
        # Flax needs the mesh of jax.set_mesh; under `with mesh:` its constraints have no effect.
        with jax.set_mesh(self.mesh), logical_axis_rules(rules):
            yield


def feed(rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts this process's rows on its part of the mesh's 'data' axis."""
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    return jax.make_array_from_process_local_data(sharding, rows)


def _check_rules(rules: Sequence[tuple[str, str | None]]) -> None:
    left_whole = set()
    for axis, mesh_axis in rules:
        if mesh_axis is not None and mesh_axis not in MESH_AXES:
            raise UserError(
                f"{_RULES} has ({shown(axis)}, {shown(mesh_axis)}), but the mesh axes are "
                f"{MESH_AXES}." + nearest(str(mesh_axis), MESH_AXES)
            )
        if axis in left_whole:
            raise UserError(
                f"{_RULES} has ({shown(axis)}, {shown(mesh_axis)}) after ({shown(axis)}, None), "
                "where nothing reaches it; put it before, as the rules are in order of precedence."
            )
        if mesh_axis is None:
            left_whole.add(axis)


def make_mesh(devices: np.ndarray) -> Mesh:
    """Returns the ('data', 'model') mesh over a two-dimensional array of devices.

    XLA places arrays between the constraints (JAX's "auto" axes).
    """
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _path_name(path: Any) -> str:
    return "/".join(str(getattr(key, "key", key)) for key in path)


def model_info(abstract_params: Any, logical_axes: Any, shardings: Any) -> str:
    """Returns a table of every parameter's shape, logical axes and partition (model-info.txt)."""
    lines = []
    total = 0

    def add(path: Any, leaf: Any, axes: Sequence[str | None], sharding: NamedSharding) -> None:
        nonlocal total
        total += int(np.prod(leaf.shape))
        name = _path_name(path)
        lines.append(f"{name:64} {leaf.shape!s:18} {tuple(axes)!s:28} {tuple(sharding.spec)}")

    jax.tree_util.tree_map_with_path(add, abstract_params, logical_axes, shardings)
    return "\n".join([*lines, f"Total number of parameters: {total}", ""])
