"""What the subcommands share: how one is added, the help on gin flags, and starting JAX."""

import argparse
import logging
import os
from typing import TypeAlias

from ait_jax.runtime import distributed, files, preemption

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

GIN_FLAGS = """\
gin flags (run, compare, score, pretrain, plan, tasks):
  --gin_file=FILE          a configuration, from the working folder or the shipped ones
                           (experiments/mini.gin, experiments/niv2.gin, ...); may be repeated,
                           later files win
  --gin.NAME=VALUE         overrides one value: --gin.ROUNDS=5, --gin.MODEL_DIR=runs/a,
                           --gin.scorer.Scorer.num_instances=5
  --gin_search_paths=A,B   more folders to search for gin files and the modules they import
"""
GIN_HELP = f"{GIN_FLAGS}\nThe same command continues an interrupted run.\n"


def add(
    subparsers: Subparsers, name: str, summary: str, epilog: str = "", description: str = ""
) -> argparse.ArgumentParser:
    """Adds a subcommand whose epilog is printed as it is written.

    Args:
      summary: the line in the list of subcommands.
      description: the first lines of its own help; by default the summary.
    """
    return subparsers.add_parser(
        name,
        help=summary,
        description=description or summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def start_jax(*, joins: bool = False) -> None:
    """Sets what must be set before JAX starts.

    Args:
      joins: become one of several processes if the environment says so, and heed SIGTERM.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    # Orbax and Grain log every save and read through absl, and Orbax warns at every checkpoint
    # between two evaluations that it has no dev metric.
    logging.getLogger("absl").setLevel(logging.ERROR)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or files.user_cache("xla")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if joins:
        distributed.initialize()
        preemption.heed()
