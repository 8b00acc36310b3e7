"""Reads summaries back: TensorBoard's event files and W&B's files of offline runs."""

import struct
from pathlib import Path

from ait_jax.summaries import weights_and_biases

PNG = b"\x89PNG"


def read_events(folder: Path) -> dict[str, list[tuple[int, object]]]:
    """Returns tag -> [(step, value)] as TensorBoard shows them: what was purged is left out.

    A value is a float, a text, or a picture's bytes.
    """
    import tensorflow as tf

    points: list[tuple[str, int, object]] = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.WhichOneof("what") == "session_log":
                points = [point for point in points if point[1] < event.step]
            for value in event.summary.value:
                points.append((value.tag, event.step, _value(value)))
    found: dict[str, list[tuple[int, object]]] = {}
    for tag, step, value in points:
        found.setdefault(tag, []).append((step, value))
    return found


def _value(value) -> object:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind == "image":
        image = value.image
        assert image.encoded_image_string[:4] == PNG
        assert struct.unpack(">II", image.encoded_image_string[16:24]) == (
            image.width,
            image.height,
        )
        return image.encoded_image_string
    return value.tensor.string_val[0].decode() if value.tensor.string_val else None


def assert_no_doubles(events: dict[str, list[tuple[int, object]]]) -> None:
    for tag, points in events.items():
        steps = [step for step, _ in points]
        assert len(steps) == len(set(steps)), (tag, steps)


def read_offline_rows(model_dir: Path) -> tuple[list[dict], set[str]]:
    """Returns the rows of all offline W&B runs below a folder in order, and the runs' ids."""
    paths = model_dir.glob("wandb/offline-run-*/run-*.wandb")
    ids = {path.stem.removeprefix("run-") for path in paths}
    return [
        row for id in ids for row in weights_and_biases.read_offline_rows(model_dir / "wandb", id)
    ], ids
