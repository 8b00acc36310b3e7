"""One compiled program on one kind of chip: what it holds, computes and sends, and for how long."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ait_jax.plan import hlo, hlo_cost
from ait_jax.runtime.hardware import Chip

# XLA has two messages; the second, where far too much is needed, counts temporaries alone.
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")
_TEMPORARIES_ALONE = re.compile(
    r"required for HLO temporaries \(([\d.]+)([KMG])\) exceeds available HBM \(([\d.]+)([KMG])\)"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Memory:
    """Bytes on a chip.

    Attributes:
      weights, optimizer: the parameters and the optimizer's state.
      temporaries: everything else: activations, gradients, gathered parameters, the batch, the
        program.
      capacity: what the compiler may use, or the chip's where the program fits.
    """

    weights: float
    optimizer: float
    temporaries: float
    capacity: float

    @property
    def total(self) -> float:
        """Bytes needed."""
        return self.weights + self.optimizer + self.temporaries

    @property
    def excess(self) -> float:
        """Bytes beyond the capacity, 0 where it fits."""
        return max(0.0, self.total - self.capacity)


@dataclass(frozen=True)
class CompiledProgram:
    """A program's costs, per chip and run.

    Attributes:
      name: "train step", "teacher forcing" or "decode".
      rows, lengths: the batch of the whole mesh, and its padded lengths.
      ideal_flops: the model's own (a third of a train step's is its forward pass).
      recomputed_flops: what the remat policy adds.
      flops, bytes: of the compiled program; None where it does not fit and was not compiled.
      collectives: kind -> {"count", "bytes", "sent_bytes"}.
      seconds: what FLOPs, memory and links would each take alone at their peaks.
      settings: the gin macros behind this batch -> their values.
      compile_seconds: of this machine.
    """

    name: str
    rows: int
    lengths: tuple[int, ...]
    chips: int
    memory: Memory
    ideal_flops: float
    recomputed_flops: float = 0.0
    flops: float | None = None
    bytes: float | None = None
    collectives: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    compile_seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether a chip has the memory for it."""
        return self.flops is not None and not self.memory.excess

    @property
    def over_ideal(self) -> float:
        """FLOPs beyond the model's and the recomputed ones, as a share of them."""
        return (self.flops or 0.0) / (self.ideal_flops + self.recomputed_flops) - 1

    @property
    def bound(self) -> str:
        """What takes longest: "FLOPs", "memory" or "links"."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def roofline(self) -> float:
        """Seconds of a run at the peak of what bounds it."""
        return max(self.seconds.values())

    @property
    def rows_per_second(self) -> float:
        """Of a chip, at that peak."""
        return self.rows / self.roofline / self.chips

    def to_json(self) -> dict[str, Any]:
        """Returns its entry in the file of --json."""
        entry = {name: value for name, value in vars(self).items() if name != "memory"}
        entry |= {"fits": self.fits, "lengths": list(self.lengths)}
        entry["memory"] = vars(self.memory) | {
            "total": self.memory.total,
            "excess": self.memory.excess,
        }
        if self.flops is not None:
            entry |= {
                "over_ideal": self.over_ideal,
                "bound": self.bound,
                "roofline_seconds": self.roofline,
            }
        return entry


def bytes_per_chip(tree: Any) -> float:
    """Returns the bytes that one device holds of a tree of placed ShapeDtypeStructs."""
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def measure(
    name: str,
    compile: Callable[[], jax.stages.Compiled],
    chip: Chip,
    *,
    weights: float,
    optimizer: float = 0.0,
    unknown_trips: int = 1,
    **described: Any,
) -> CompiledProgram:
    """Compiles a program and measures it.

    Args:
      compile: lowers and compiles.
      weights, optimizer: bytes on a chip.
      unknown_trips: see `hlo_cost.cost_of`.
      described: other fields of `CompiledProgram`.
    """
    start = time.perf_counter()
    try:
        compiled = compile()
    except jax.errors.JaxRuntimeError as error:
        memory = _memory_of(str(error), weights, optimizer)
        if memory is None:
            raise
        seconds = time.perf_counter() - start
        return CompiledProgram(name, memory=memory, compile_seconds=seconds, **described)
    seconds = time.perf_counter() - start
    usage: Any = compiled.memory_analysis()
    total = usage.argument_size_in_bytes + usage.output_size_in_bytes - usage.alias_size_in_bytes
    total += usage.temp_size_in_bytes + usage.generated_code_size_in_bytes
    memory = Memory(weights, optimizer, total - weights - optimizer, chip.memory)
    cost = hlo_cost.cost_of(hlo.parse(compiled.as_text() or ""), unknown_trips)
    return CompiledProgram(
        name,
        memory=memory,
        flops=cost.flops,
        bytes=cost.bytes,
        collectives=dict(sorted(cost.collectives.items())),
        seconds={
            "FLOPs": cost.flops / chip.flops,
            "memory": cost.bytes / chip.memory_bandwidth,
            "links": sum(c["sent_bytes"] for c in cost.collectives.values()) / chip.link_bandwidth,
        },
        compile_seconds=seconds,
        **described,
    )


def _memory_of(message: str, weights: float, optimizer: float) -> Memory | None:
    """Returns what XLA's message says that a program needs; None for any other error."""
    used = _OUT_OF_MEMORY.search(message)
    found = used or _TEMPORARIES_ALONE.search(message)
    if found is None:
        return None
    needed, capacity = (float(found[i]) * _UNITS[found[i + 1]] for i in (1, 3))
    if used:
        needed = max(0.0, needed - weights - optimizer)
    return Memory(weights, optimizer, needed, capacity)
