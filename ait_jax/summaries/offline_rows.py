"""Which rows an offline W&B run has on the disk: W&B writes late, and a kill loses the rest.

The files (`offline-run-*/run-ID.wandb`) are logs in LevelDB's format after a header of 7 bytes, of
W&B's own protocol buffers.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

from ait_jax.runtime import files

_HEADER = 7
_BLOCK = 32768
_WHOLE, _LAST = 1, 4


def read_rows(folder: Any, id: str) -> list[dict[str, Any]]:
    """Returns the rows of a run's files, in order; names of nested values are joined by "/".

    Args:
      folder: MODEL_DIR/wandb, local or in a bucket.

    Raises:
      Exception: of many kinds, where W&B has another format by now.
    """
    from wandb.proto import wandb_internal_pb2

    rows = []
    for path in sorted(folder.glob(f"offline-run-*/run-{id}.wandb")):
        for data in _records(files.read_bytes(path)):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                rows.append(dict(map(_named, record.history.item)))
    return rows


def _named(item: Any) -> tuple[str, Any]:
    return item.key or "/".join(item.nested_key), json.loads(item.value_json)


def _records(data: bytes) -> Iterator[bytes]:
    """Yields the records of a log; one that was cut short is left out."""
    position, parts = _HEADER, []
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        position += 7
        if position + length > len(data):
            return
        parts.append(data[position : position + length])
        position += length
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts = []
