"""What T5X can train; known without T5X."""

from ait_jax.errors import UserError, nearest

NETWORKS = ("ait_jax", "t5x")


def check_network(name: str, gin_name: str) -> None:
    """Raises UserError where T5X has no such network."""
    if name not in NETWORKS:
        near = nearest(str(name), NETWORKS)
        raise UserError(f"{gin_name} = {name!r} is none of {NETWORKS}.{near}")
