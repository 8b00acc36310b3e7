"""What the subcommands share: how one is added, and starting JAX."""

import argparse
import logging
import os
from dataclasses import replace
from typing import TypeAlias

from ait_jax.assets import help_text
from ait_jax.config.gin_flags import GinFlags
from ait_jax.runtime import distributed, files, preemption

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(
    subparsers: Subparsers, name: str, summary: str, *texts: str, description: str = ""
) -> argparse.ArgumentParser:
    """Adds a subcommand.

    Args:
      summary: the line in the list of subcommands.
      texts: the end of its own help, as `assets.help_text` takes them.
      description: the first lines of its own help; by default the summary.
    """
    return subparsers.add_parser(
        name,
        help=summary,
        description=description or summary,
        epilog=help_text(*texts),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds `--columns`."""
    parser.add_argument(
        "--columns",
        metavar="PART=COLUMN,...",
        default=argparse.SUPPRESS,
        help="where rows have their instruction, input, output, system, history or messages, if "
        "not under usual names: instruction=question,output=answer",
    )


def with_columns(flags: GinFlags, options: argparse.Namespace) -> GinFlags:
    """Returns `flags` with the gin name COLUMNS set to `--columns`, if that is given."""
    if "columns" not in options:
        return flags
    return replace(flags, bindings=(*flags.bindings, f"COLUMNS = {options.columns!r}"))


def start_jax(*, joins: bool = False) -> None:
    """Sets what must be set before JAX starts.

    Args:
      joins: become one of several processes if the environment says so, and heed SIGTERM and
        Ctrl-C.
    """
    if joins:
        preemption.heed_interrupts()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    # Orbax and Grain log every save and read through absl, and Orbax warns at every checkpoint
    # between two evaluations that it has no dev metric. What it logs as an error it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or files.user_cache("xla")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if joins:
        distributed.initialize()
        preemption.heed()
