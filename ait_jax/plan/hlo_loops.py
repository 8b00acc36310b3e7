"""How often the loops of a compiled program run, read off their conditions."""

import re

from ait_jax.plan.hlo import IN_PLACE, Instruction, Program, called


def trip_count(program: Program, computation: str, loop: Instruction) -> int | None:
    """Returns how often a loop's body runs; None where that depends on the data."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if noted:
        return int(noted[1])
    condition, body = (loop.attribute(name) for name in ("condition", "body"))
    root = next(i for i in program.computations[condition].values() if i.is_root)
    found = _bound(program, condition, root)
    if found is None:
        return None
    place, bound = found
    start = _integer(program, computation, _member(program, computation, loop.operands[0], place))
    step = _step(program, body, place)
    if start is None or not step:
        return None
    return max(0, -(-(bound - start) // step))


def _bound(program: Program, condition: str, root: Instruction) -> tuple[int, int] | None:
    """Returns (which member of the loop's tuple is compared, the number that it stays below)."""
    names = dict(enumerate(root.operands))
    inside = condition
    if root.opcode == "fusion":
        outer, inside = names, called(root)[0]
        root = next(i for i in program.computations[inside].values() if i.is_root)
        names = dict(enumerate(root.operands))
    else:
        outer = None
    if root.opcode != "compare" or root.attribute("direction") != "LT":
        return None

    def follow(name: str) -> tuple[str, str]:
        """Out of the fusion, to the condition's own instruction."""
        instruction = program.computations[inside].get(name)
        while instruction is not None and instruction.opcode in IN_PLACE:
            instruction = program.computations[inside].get(instruction.operands[0])
        if outer is not None and instruction is not None and instruction.opcode == "parameter":
            return condition, outer[int(instruction.operands[0])]
        return inside, instruction.name if instruction is not None else name

    place = _tuple_index(program, *follow(names[0]))
    bound = _integer(program, *follow(names[1]))
    return None if place is None or bound is None else (place, bound)


def _tuple_index(program: Program, computation: str, name: str) -> int | None:
    instruction = program.computations[computation].get(name)
    while instruction is not None and instruction.opcode in IN_PLACE:
        instruction = program.computations[computation].get(instruction.operands[0])
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    return int(instruction.attribute("index"))


def _member(program: Program, computation: str, name: str, place: int) -> str:
    """Returns the name of a tuple's member."""
    instruction = program.computations[computation][name]
    return instruction.operands[place] if instruction.opcode == "tuple" else name


def _integer(program: Program, computation: str, name: str) -> int | None:
    instruction = program.computations[computation].get(name)
    while instruction is not None and instruction.opcode in IN_PLACE:
        instruction = program.computations[computation].get(instruction.operands[0])
    return None if instruction is None else program.constant(computation, instruction.name)


def _step(program: Program, body: str, place: int) -> int | None:
    """Returns by how much a loop's body raises a member of its tuple."""
    instructions = program.computations[body]
    root = next(i for i in instructions.values() if i.is_root)
    if root.opcode != "tuple":
        return None
    inside, name = body, root.operands[place]
    instruction = instructions.get(name)
    while instruction is not None and instruction.opcode in IN_PLACE:
        instruction = instructions.get(instruction.operands[0])
    if instruction is None:
        return None
    outer = instruction.operands
    if instruction.opcode == "fusion":
        inside = called(instruction)[0]
        instruction = next(i for i in program.computations[inside].values() if i.is_root)
    if instruction.opcode != "add":
        return None

    def addend(name: str) -> int | None:
        value = _integer(program, inside, name)
        other = program.computations[inside].get(name)
        if value is None and inside != body and other is not None and other.opcode == "parameter":
            value = _integer(program, body, outer[int(other.operands[0])])
        return value

    values = [value for value in map(addend, instruction.operands) if value is not None]
    return values[0] if len(values) == 1 else None
