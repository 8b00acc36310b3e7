"""Time and cost: timings.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from ait_jax.report.run_files import RunFiles

_RENAMED = {"padding_fraction": "padding"}


def timings(run: RunFiles) -> list[dict[str, Any]]:
    """Returns the payload's `timings`, in the order in which stages ended."""
    lines = run.lines(run.path / "timings.jsonl")
    return [
        {"tokens_per_second": None, "padding": None, "mfu": None}
        | {_RENAMED.get(name, name): value for name, value in line.items()}
        for line in lines
        if isinstance(line.get("seconds"), (int, float)) and isinstance(line.get("stage"), str)
    ]


def cost(lines: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, Any]:
    """Returns the payload's `cost`.

    Device-hours are each stage's seconds times the devices that it held, also those that waited for
    the host. Lines of versions that did not note devices count as one device; `devices` and
    `device_kind` are None where no line has them.

    Args:
      lines: from `timings`.
      price: of one device for one hour, in any currency.
    """
    hours = sum(line["seconds"] * (line.get("devices") or 1) for line in lines) / 3600
    devices = [line["devices"] for line in lines if line.get("devices")]
    kinds = list(dict.fromkeys(line["device_kind"] for line in lines if line.get("device_kind")))
    return {
        "devices": max(devices, default=None),
        "device_kind": ", ".join(kinds) or None,
        "hours": round(sum(line["seconds"] for line in lines) / 3600, 6),
        "device_hours": round(hours, 6),
        "price_per_device_hour": price,
        "total": None if price is None else round(hours * price, 4),
    }
