"""XLA's text of a compiled program as data: computations, instructions, shapes, loops.

`jax.stages.Compiled.as_text()` is the program of one device after partitioning, fusion and
scheduling. Only what determines its costs (`hlo_cost`) is read.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

_BYTES = {
    "pred": 1, "s2": 0.25, "u2": 0.25, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2,
    "s32": 4, "u32": 4, "s64": 8, "u64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "c64": 8,
    "c128": 16, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip
# A shape may have a layout behind it, with tiles in parentheses: bf16[8,128]{1,0:T(8,128)S(1)}.
_SHAPE = re.compile(r"([a-z]+[a-z0-9]*)\[([\d,<=]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALLS = re.compile(
    r"(?:calls|to_apply|body|called_computations|branch_computations|true_computation|"
    r"false_computation)=\{?(%?[\w.\-]+(?:, ?%[\w.\-]+)*)\}?"
)
# Instructions whose result is their operand's values, in the same order.
IN_PLACE = ("bitcast", "reshape", "copy", "convert")
_NAME = re.compile(r"%([\w.\-]+)")


class Shape(NamedTuple):
    """An array: its dimensions and bytes, and whether it lies outside main memory.

    Attributes:
      on_chip: in a memory space of its own, on TPUs the vector memory beside the cores.
    """

    dtype: str
    dimensions: tuple[int, ...]
    on_chip: bool

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> float:
        """Bytes, wherever they lie."""
        return self.elements * _BYTES.get(self.dtype, 0)

    @property
    def memory_bytes(self) -> float:
        """Bytes in main memory."""
        return 0.0 if self.on_chip else self.bytes


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      shapes: the arrays of its result, several where that is a tuple.
      operands: names of instructions of the same computation, or a parameter's number.
      attributes: the text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """Returns the value of `name=`, without braces or a %."""
        match = re.search(rf"\b{name}=(?:\{{([^{{}}]*)\}}|%?([\w.\-]+))", self.attributes)
        return None if match is None else match[1] if match[1] is not None else match[2]

    def computation(self, name: str) -> str:
        """Returns the computation that `name=` gives, as a loop's body and condition.

        Raises:
          ValueError: there is no such attribute.
        """
        value = self.attribute(name)
        if value is None:
            raise ValueError(f"{self.opcode} {self.name} has no {name}=")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns `name={1,2}` as integers."""
        value = self.attribute(name)
        return tuple(int(number) for number in value.split(",")) if value else ()

    @property
    def memory_bytes(self) -> float:
        """Bytes of its results in main memory."""
        return sum(shape.memory_bytes for shape in self.shapes)

    @property
    def bytes(self) -> float:
        """Bytes of its results, wherever they lie."""
        return sum(shape.bytes for shape in self.shapes)


class Program(NamedTuple):
    """A compiled program: its computations by name, instructions by name within each."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def root(self, computation: str) -> Instruction:
        """Returns the instruction whose result is the computation's."""
        return next(i for i in self.computations[computation].values() if i.is_root)

    def origin(self, computation: str, name: str) -> Instruction | None:
        """Returns the instruction that made a value, past those that hand it on unchanged."""
        instruction = self.computations[computation].get(name)
        while instruction is not None and instruction.opcode in IN_PLACE:
            instruction = self.computations[computation].get(instruction.operands[0])
        return instruction

    def integer(self, computation: str, name: str) -> int | None:
        """Returns a value that is an integer constant; None for any other."""
        made = self.origin(computation, name)
        if made is None or made.opcode != "constant":
            return None
        value = made.operands[0] if made.operands else ""
        return int(value) if value.lstrip("-").isdigit() else None


def parse(text: str) -> Program:
    """Reads what `Compiled.as_text()` returns.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = None
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            match = _INSTRUCTION.match(line)
            if match is not None:
                instruction = _instruction(match[2], match[3], match[1] is not None)
                current[instruction.name] = instruction
            continue
        match = _COMPUTATION.match(line)
        if match is not None:
            current = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
    if entry is None:
        raise ValueError("not the text of a compiled program: it has no ENTRY computation")
    return Program(computations, entry)


def called(instruction: Instruction) -> list[str]:
    """Returns the computations that an instruction runs, except a loop's condition."""
    return [
        name.strip().lstrip("%")
        for match in _CALLS.finditer(instruction.attributes)
        for name in match[1].split(",")
    ]


def _instruction(name: str, rest: str, is_root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    opcode, inside, attributes = rest[:opening], rest[opening + 1 : closing], rest[closing + 1 :]
    operands = tuple(_NAME.findall(inside)) or ((inside,) if inside else ())
    return Instruction(name, opcode, shapes_in(shape), operands, attributes, is_root)


def _closing(text: str, opening: int) -> int:
    """Returns where the parenthesis at `opening` closes."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return len(text) - 1


def shapes_in(text: str) -> tuple[Shape, ...]:
    """Returns the arrays of a shape's text, those of a tuple in order."""
    found = []
    for dtype, dimensions, layout in _SHAPE.findall(text):
        if dtype in _BYTES:
            sizes = tuple(int(size.lstrip("<=")) for size in dimensions.split(",") if size)
            found.append(Shape(dtype, sizes, re.search(r"S\([1-9]\d*\)", layout) is not None))
    return tuple(found)


# How often loops run, from their conditions


def trip_count(program: Program, computation: str, loop: Instruction) -> int | None:
    """Returns how often a loop's body runs; None where that depends on the data."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if noted:
        return int(noted[1])
    found = _bound(program, loop.computation("condition"))
    if found is None:
        return None
    place, bound = found
    begin = program.computations[computation][loop.operands[0]]
    name = begin.operands[place] if begin.opcode == "tuple" else begin.name
    start = program.integer(computation, name)
    step = _step(program, loop.computation("body"), place)
    if start is None or not step:
        return None
    return max(0, -(-(bound - start) // step))


def _bound(program: Program, condition: str) -> tuple[int, int] | None:
    """Returns (which member of the loop's tuple is compared, the number that it stays below)."""
    root, place_of = _within(program, condition, program.root(condition))
    if root.opcode != "compare" or root.attribute("direction") != "LT":
        return None
    compared = program.origin(*place_of(root.operands[0]))
    bound = program.integer(*place_of(root.operands[1]))
    if compared is None or compared.opcode != "get-tuple-element" or bound is None:
        return None
    return compared.numbers("index")[0], bound


def _step(program: Program, body: str, place: int) -> int | None:
    """Returns by how much a loop's body raises a member of its tuple."""
    root = program.root(body)
    made = program.origin(body, root.operands[place]) if root.opcode == "tuple" else None
    if made is None:
        return None
    made, place_of = _within(program, body, made)
    if made.opcode != "add":
        return None
    values = [program.integer(*place_of(name)) for name in made.operands]
    known = [value for value in values if value is not None]
    return known[0] if len(known) == 1 else None


def _within(
    program: Program, computation: str, instruction: Instruction
) -> tuple[Instruction, Callable[[str], tuple[str, str]]]:
    """Returns what makes an instruction's result, for a fusion its root, and where operands are.

    The latter maps an operand's name to (computation, name), for a fusion's parameter outside it.
    """
    if instruction.opcode != "fusion":
        return instruction, lambda name: (computation, name)
    inside = called(instruction)[0]

    def place_of(name: str) -> tuple[str, str]:
        made = program.origin(inside, name)
        if made is not None and made.opcode == "parameter":
            return computation, instruction.operands[int(made.operands[0])]
        return inside, name

    return program.root(inside), place_of
