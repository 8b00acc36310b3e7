"""What a compiled program costs one device: matrix FLOPs, traffic to memory, collectives.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as it runs
(`hlo.trip_count`), and a loop whose end depends on the data (decoding) `unknown_trips` times. What
a kernel of our own computes (Pallas) is what it says itself; it reads its operands and writes its
results once.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ait_jax.plan.hlo import IN_PLACE, Instruction, Program, Shape, called, trip_count

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
    "ragged-all-to-all",
)  # fmt: skip
# Collectives whose results are larger than what goes into them, or as large.
_GROWING = ("all-gather", "collective-permute", "ragged-all-to-all")
# Of a kernel (Pallas' CostEstimate).
_ESTIMATED_FLOPS = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')
# Instructions that move nothing, or whose work is counted in the computation they run.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "while", "call", "conditional", "opt-barrier", "domain", "add-dependency",
}  # fmt: skip


@dataclass
class Cost:
    """What one run of a program, or of a part of it, costs one device.

    Attributes:
      flops: of matrix products and convolutions, two per multiply-add.
      bytes: read from and written to main memory.
      collectives: by kind, "count", "bytes" of their results (operands where these are larger),
        and "sent_bytes" that a device sends in a ring.
    """

    flops: float = 0.0
    bytes: float = 0.0
    collectives: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, other: "Cost", times: float = 1.0) -> None:
        """Adds what `times` runs of another part cost."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        for kind, figures in other.collectives.items():
            mine = self.collectives.setdefault(kind, dict.fromkeys(figures, 0.0))
            for name, value in figures.items():
                mine[name] += times * value


def cost_of(program: Program, unknown_trips: int = 1) -> Cost:
    """Returns the cost of one run of a program.

    Args:
      unknown_trips: how often the most expensive of the loops without a known end runs; the
        others, which take over what that one leaves, do not run.
    """
    costs, total = _Costs(program), Cost()
    total.add(costs.computation(program.entry, False))
    if costs.unknown:
        total.add(max(costs.unknown, key=_size), unknown_trips)
    return total


def _size(cost: Cost) -> tuple[float, float]:
    return cost.flops, cost.bytes


class _Costs:
    """Costs of a program's computations; `unknown` are bodies of loops without a known end."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.unknown: list[Cost] = []
        self._known: dict[tuple[str, bool], Cost] = {}

    def computation(self, name: str, fused: bool) -> Cost:
        """Returns a computation's cost; inside a fusion nothing goes to memory."""
        if (name, fused) not in self._known:
            cost = self._known[name, fused] = Cost()
            for instruction in self.program.computations[name].values():
                self._add(cost, name, instruction, fused)
        return self._known[name, fused]

    def _add(self, cost: Cost, computation: str, instruction: Instruction, fused: bool) -> None:
        opcode, body = instruction.opcode, self.program.computations[computation]
        if opcode == "while":
            looped = self.computation(instruction.computation("body"), fused)
            trips = trip_count(self.program, computation, instruction)
            if trips is None:
                self.unknown.append(looped)
            else:
                cost.add(looped, trips)
        elif opcode == "conditional":
            cost.add(max((self.computation(n, fused) for n in called(instruction)), key=_size))
        elif opcode in ("call", "fusion", "async-start"):
            for name in called(instruction):
                cost.add(self.computation(name, fused or opcode != "call"))
        elif opcode in ("convolution", "dot") or "__cublas$" in instruction.attributes:
            cost.flops += _product_flops(body, instruction)
        elif opcode == "custom-call":
            estimated = _ESTIMATED_FLOPS.search(instruction.attributes)
            cost.flops += float(estimated[1]) if estimated else 0.0
        elif opcode.removesuffix("-start") in COLLECTIVES:
            _add_collective(cost, computation, body, instruction)
        if not fused and opcode not in _FREE and not opcode.endswith(("-done", "-update")):
            cost.bytes += self._traffic(body, instruction)

    # Memory

    def _traffic(self, body: Mapping[str, Instruction], instruction: Instruction) -> float:
        """Returns the bytes that a top-level instruction reads from and writes to main memory."""
        opcode = instruction.opcode
        if opcode in ("dynamic-slice", "slice", "gather"):
            return 2.0 * instruction.memory_bytes
        reads = [
            sum(shape.memory_bytes for shape in _shapes(body, name))
            for name in instruction.operands
        ]
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2.0 * reads[-1 if opcode == "scatter" else 1]
        if opcode in ("copy-start", "slice-start", "dynamic-slice-start"):
            # Its result is a tuple of source and target, in either order.
            source, target = instruction.shapes[:2]
            size = min(source.bytes, target.bytes)
            return size * ((not source.on_chip) + (not target.on_chip))
        writes = instruction.memory_bytes
        if opcode == "fusion":
            reads, writes = self._fusion_traffic(instruction, reads, writes)
        elif opcode.endswith("-start"):
            writes = max(0.0, writes - sum(reads))
        return sum(reads) + writes

    def _fusion_traffic(
        self, instruction: Instruction, reads: list[float], writes: float
    ) -> tuple[list[float], float]:
        """Corrects a fusion's traffic where it reads or writes a slice of a large array only."""
        names = called(instruction)
        body = self.program.computations.get(names[0], {}) if names else {}
        parameters = {int(i.operands[0]): i.name for i in body.values() if i.opcode == "parameter"}
        reads = list(reads)
        for place, name in parameters.items():
            if place < len(reads) and reads[place]:
                reads[place] = min(reads[place], self._used(body, name, set()))
        writes -= self._passed_through(body, instruction)
        for other in body.values():
            if other.opcode == "dynamic-update-slice" and len(other.operands) > 1:
                update = sum(shape.bytes for shape in _shapes(body, other.operands[1]))
                if self._is_output(body, other) and writes >= other.bytes:
                    writes -= other.bytes - update
        return reads, writes

    def _passed_through(self, body: dict[str, Instruction], instruction: Instruction) -> float:
        """Returns the bytes of results that a fusion hands on or that arrive in the background.

        The latter are a collective's buffers, which count where it starts.
        """
        root = next((i for i in body.values() if i.is_root), None)
        if root is None or root.opcode != "tuple":
            return 0.0
        return sum(
            shape.memory_bytes
            for name, shape in zip(root.operands, instruction.shapes, strict=False)  # nested tuples
            if name in body and (body[name].opcode == "parameter" or _in_background(body[name]))
        )

    def _used(
        self, body: dict[str, Instruction], name: str, seen: set[str], nested: bool = False
    ) -> float:
        """Returns how many bytes of a value the instructions of a fusion look at.

        Args:
          seen: instructions that were followed already.
          nested: whether the fusion is part of another one, in which its result is followed.
        """
        used = 0.0
        for user in body.values():
            if name not in user.operands or user.opcode == "parameter":
                continue
            if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
                used += user.bytes
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                continue
            elif _in_background(user) or (user.opcode == "tuple" and user.is_root):
                if body[name].opcode in ("copy", "convert"):
                    return math.inf
            elif user.name in seen:
                continue
            elif user.opcode in IN_PLACE:
                used += self._used_of_result(body, user, seen, nested)
            elif user.opcode == "fusion":
                inner = self.program.computations[called(user)[0]]
                number = user.operands.index(name)
                for parameter in inner.values():
                    if parameter.opcode == "parameter" and int(parameter.operands[0]) == number:
                        used += self._used(inner, parameter.name, set(), nested=True)
                        if self._is_output(inner, parameter):
                            used += self._used_of_result(body, user, seen, nested)
            else:
                return math.inf
        return used

    def _used_of_result(
        self, body: dict[str, Instruction], user: Instruction, seen: set[str], nested: bool
    ) -> float:
        """As `_used`, of an instruction that hands a value on: all, if that is what is written."""
        if user.is_root and not nested:
            return math.inf
        return self._used(body, user.name, seen | {user.name}, nested)

    def _is_output(self, body: dict[str, Instruction], instruction: Instruction) -> bool:
        """Returns whether an instruction's result is (part of) its computation's."""
        if instruction.is_root:
            return True
        return any(
            instruction.name in user.operands
            and user.opcode in (*IN_PLACE, "tuple")
            and self._is_output(body, user)
            for user in body.values()
        )


def _in_background(instruction: Instruction) -> bool:
    """Returns whether this is one of the places over which TPUs spread a collective."""
    kind = instruction.opcode.removesuffix("-start")
    return kind in COLLECTIVES and "chain_id=" in instruction.attributes


def _shapes(body: Mapping[str, Instruction], name: str) -> tuple[Shape, ...]:
    return body[name].shapes if name in body else ()


# FLOPs


def _product_flops(body: Mapping[str, Instruction], instruction: Instruction) -> float:
    """Returns the FLOPs of a product, also of one that XLA gives to cuBLAS."""
    left = body[instruction.operands[0]].shapes[0]
    if instruction.opcode == "convolution":
        return convolution_flops(left, body[instruction.operands[1]].shapes[0], instruction)
    axes = instruction.numbers("lhs_contracting_dims")
    listed = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    if listed:
        axes = tuple(map(int, re.findall(r"\d+", listed[1])))
    return 2.0 * instruction.shapes[0].elements * math.prod(left.dimensions[axis] for axis in axes)


def convolution_flops(left: Shape, right: Shape, instruction: Instruction) -> float:
    """Returns the FLOPs of XLA's general convolution, which is every product on TPUs.

    Positions where the kernel meets padding or the gaps of a dilation do not count.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0.0
    of_left, of_right, of_output = labels.groups()
    output = instruction.shapes[0]
    window = dict(o.split("=") for o in (instruction.attribute("window") or "").split())
    total = 2.0 * output.dimensions[of_output.index("b")] * output.dimensions[of_output.index("f")]
    total *= right.dimensions[of_right.index("i")]
    for number in sorted(label for label in of_output if label.isdigit()):

        def option(name: str, default: int, axis: int = int(number)) -> int:
            return int(window[name].split("x")[axis].split("_")[0]) if name in window else default

        total *= _valid_positions(
            left.dimensions[of_left.index(number)],
            right.dimensions[of_right.index(number)],
            output.dimensions[of_output.index(number)],
            stride=option("stride", 1),
            padding=option("pad", 0),
            left_dilation=option("lhs_dilate", 1),
            right_dilation=option("rhs_dilate", 1),
        )
    return total / int(instruction.attribute("batch_group_count") or 1)


def _valid_positions(
    size: int, kernel: int, outputs: int, *, stride: int, padding: int, left_dilation: int,
    right_dilation: int,
) -> int:  # fmt: skip
    """Counts pairs of an output position and a kernel position that meet an input element."""
    count = 0
    last = (size - 1) * left_dilation
    for k in range(kernel):
        offset = k * right_dilation - padding
        if left_dilation == 1 and stride == 1:
            count += max(0, min(outputs - 1, last - offset) - max(0, -offset) + 1)
            continue
        positions = (output * stride + offset for output in range(outputs))
        count += sum(0 <= at <= last and at % left_dilation == 0 for at in positions)
    return count


# Collectives


def _add_collective(
    cost: Cost, computation: str, body: Mapping[str, Instruction], instruction: Instruction
) -> None:
    # TPUs spread a collective over several fusions, all of which repeat it: only the first, where
    # it starts, counts.
    if _in_background(instruction) and not any(
        "AsyncCollectiveStart" in other.attributes for other in body.values()
    ):
        return
    kind = instruction.opcode.removesuffix("-start")
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    sent = sum(shape.bytes for name in instruction.operands for shape in _shapes(body, name))
    results = instruction.bytes - (sent if instruction.opcode.endswith("-start") else 0.0)
    size = max(results, sent) if kind in _GROWING else sent
    sent_bytes = size * sent_share(kind, group_size(instruction.attributes))
    cost.add(Cost(collectives={kind: {"count": 1, "bytes": size, "sent_bytes": sent_bytes}}))


def sent_share(kind: str, members: int | None) -> float:
    """Returns how many times a collective's bytes each device of a ring sends.

    The parts of an all-gather or a reduce-scatter, except a device's own, go around once, those of
    an all-reduce twice. In an all-to-all devices pass on what is for others: in a ring with two
    directions a part travels a quarter of it on average. (jax-ml.github.io/scaling-book/sharding)
    An unknown number of members is taken to be large.
    """
    if kind == "collective-permute":
        return 1.0
    if members and kind in ("all-to-all", "ragged-all-to-all"):
        return (members**2 // 4) / members
    share = (members - 1) / members if members else 1.0
    return 2 * share if kind == "all-reduce" else share


def group_size(attributes: str) -> int | None:
    """Returns how many devices take part in a collective; None where it is not given."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return listed[1].count(",") + 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes)
    if iota:
        return int(iota[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", named[2]))
    return None
