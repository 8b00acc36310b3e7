"""How near this process is to the number of memory maps that Linux allows it.

XLA's CPU backend maps every function of a compiled program by itself, 200 to 1,500 maps a program,
and beyond `vm.max_map_count` (65,530 by default) the next compilation ends the process.
"""

from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MOST = Path("/proc/sys/vm/max_map_count")

# The rest is for what is being compiled, and for the trainer's programs.
_SHARE = 0.5


def scarce() -> bool:
    """Says whether half of the maps are taken; False on systems that do not say."""
    try:
        most = int(_MOST.read_text())
        with _MAPS.open("rb") as maps:
            taken = sum(1 for _ in maps)
    except (OSError, ValueError):
        return False
    return taken > _SHARE * most
