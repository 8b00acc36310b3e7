"""What scales rotary positions, in config.json: transformers 4's fields and 5's.

The reference is transformers' modeling_rope_utils.py.
"""

from collections.abc import Mapping
from typing import Any

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.models import rotary
from ait_jax.models.checkpoints.hugging_face_folder import check_built_in, number

DEFAULT_THETA = 10000.0
FULL, SLIDING = "full_attention", "sliding_attention"


def read(
    settings: Mapping[str, Any], path: Any
) -> tuple[float, rotary.Scaling | None, float | None]:
    """Returns rope_theta, what scales the rotations, and local layers' theta if it is given.

    transformers 5 writes all into rope_parameters, of each kind of layer where they differ, 4 into
    rope_theta, rope_scaling and rope_local_base_freq.
    """
    name = "rope_parameters" if "rope_parameters" in settings else "rope_scaling"
    rope = _object(settings, name, path)
    local = settings.get("rope_local_base_freq")
    if FULL in rope or SLIDING in rope:
        of_local = _object(rope, SLIDING, path)
        rope = _object(rope, FULL, path)
        check_built_in(of_local, path, {"rope_type": "default"})
        local = of_local.get("rope_theta", local)
    theta, scaling = _theta_and_scaling(settings, rope, name, path)
    return theta, scaling, None if local is None else number({"local": local}, "local", path)


def _object(settings: Mapping[str, Any], name: str, path: Any) -> dict[str, Any]:
    found = settings.get(name) or {}
    if not isinstance(found, Mapping):
        raise UserError(f"{shown_path(path)} has {name} = {shown(found)}; it must be an object.")
    return {key: value for key, value in found.items() if value is not None}


def _theta_and_scaling(
    settings: Mapping[str, Any], rope: dict[str, Any], name: str, path: Any
) -> tuple[float, rotary.Scaling | None]:
    check_built_in(rope, path, {"partial_rotary_factor": 1.0})
    theta = number({"rope_theta": DEFAULT_THETA, **settings, **rope}, "rope_theta", path)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise UserError(
            f"{shown_path(path)} has {name} of type {shown(kind)}; ait-jax knows 'default', "
            f"{', '.join(map(repr, _SCALINGS))}."
        )
    length = "original_max_position_embeddings"
    if kind == "dynamic":
        rope[length] = settings["max_position_embeddings"]
    elif kind == "yarn":
        rope = {length: settings["max_position_embeddings"], **rope}
        rope |= {length: settings[length]} if length in settings else {}
        rope |= _yarn_magnitude(rope, path)
    scaling, names = _SCALINGS[kind]
    needed = [key for key in names if key in _NEEDED and key not in rope]
    if needed:
        raise UserError(f"{shown_path(path)} has {name} of type {shown(kind)} without {needed[0]}.")
    values: dict[str, Any] = {names[key]: number(rope, key, path) for key in names if key in rope}
    if "original_max_position" in values:
        values["original_max_position"] = int(values["original_max_position"])
    if kind == "yarn":
        values["truncate"] = rope.get("truncate") is not False
    return theta, scaling(**values)


def _yarn_magnitude(rope: Mapping[str, Any], path: Any) -> dict[str, float]:
    """Returns attention_factor where two others state it, as DeepSeek's do."""
    if "attention_factor" in rope or not (rope.get("mscale") and rope.get("mscale_all_dim")):
        return {}
    names = ("factor", "mscale", "mscale_all_dim")
    factor, above, below = (number(rope, name, path) if name in rope else 1.0 for name in names)
    ratio = rotary.yarn_magnitude(factor, above) / rotary.yarn_magnitude(factor, below)
    return {"attention_factor": ratio}


_FACTOR = {"factor": "factor"}
_LENGTH = {"original_max_position_embeddings": "original_max_position"}
# What scales rotations: by config.json's rope_type, the class, config.json's names and ours.
_SCALINGS: dict[str, tuple[Any, dict[str, str]]] = {
    "linear": (rotary.LinearScaling, _FACTOR),
    "dynamic": (rotary.DynamicScaling, _FACTOR | _LENGTH),
    "llama3": (
        rotary.Llama3Scaling,
        _FACTOR | {name: name for name in ("low_freq_factor", "high_freq_factor")} | _LENGTH,
    ),
    "yarn": (
        rotary.YarnScaling,
        _FACTOR | _LENGTH | {name: name for name in ("attention_factor", "beta_fast", "beta_slow")},
    ),
}
_NEEDED = {"factor", "low_freq_factor", "high_freq_factor", *_LENGTH}


def written(scaling: rotary.Scaling) -> dict[str, Any]:
    """Returns config.json's fields for what scales rotations."""
    kind = next(kind for kind, (known, _) in _SCALINGS.items() if isinstance(scaling, known))
    given = {key: getattr(scaling, ours) for key, ours in _SCALINGS[kind][1].items()}
    if isinstance(scaling, rotary.YarnScaling):
        given["truncate"] = scaling.truncate
    fields: dict[str, Any] = {}
    if isinstance(scaling, rotary.DynamicScaling):
        fields["max_position_embeddings"] = given.popitem()[1]
    given = {key: value for key, value in given.items() if value is not None}
    return fields | {"rope_scaling": {"rope_type": kind, **given}}
