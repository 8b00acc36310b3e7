"""`ait-jax plan`: its flags and what they start; imports nothing slow."""

import argparse

from ait_jax.runtime import exit_codes

_HELP = (
    "compile for devices that nobody holds: memory, FLOPs, time (experiments/mini.gin by default)"
)
_EPILOG = """\
examples:
  ait-jax plan                                      the mini experiment on this machine
  ait-jax plan --topology=v5e:16x16 --gin_file=experiments/niv2_paper.gin \\
    --gin_file=models/xxl.gin --gin_file=partitioning/fsdp_2d.gin \\
    --gin.OPTIMIZER=@optimizer.adafactor --gin.BATCH_SIZE=256
  ait-jax plan --topology=v5p:2x2x4 --gin_file=experiments/niv2_paper.gin \\
    --gin_file=models/xl.gin --quick --no_search --json=plan.json

Neither a checkpoint nor a vocabulary is needed, nor a pool: without one NIV2's sizes are assumed.
Slices: v4:4x4x8, v5e:16x16, v5p:4x4x8, v6e:8x8, ... (needs libtpu: pip install 'ait-jax[plan]').
"""


def add(commands, gin_help: str) -> None:
    """Adds the command to argparse's subcommands; `gin_help` tells of the gin flags."""
    plan = commands.add_parser(
        "plan",
        help=_HELP,
        description=_HELP,
        epilog=f"{gin_help.rpartition(chr(10) * 2)[0]}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("--topology", help="a TPU slice, v5e:16x16 (default: the devices at hand)")
    plan.add_argument("--json", metavar="FILE", help="write everything there, too")
    plan.add_argument(
        "--stages", metavar="A,B", help="compile only these of: train step, teacher forcing, decode"
    )
    plan.add_argument(
        "--quick",
        action="store_true",
        help="let the compiler try less hard: several times as fast, nearly the same figures",
    )
    plan.add_argument(
        "--no_search", action="store_true", help="do not look for the largest batches that fit"
    )
    plan.add_argument(
        "--efficiency",
        type=float,
        default=0.5,
        help="share of the roofline that chip-hours assume (default: %(default)s)",
    )
    for name, what in (
        ("tasks", "tasks of the pool"),
        ("prompt_tokens", "mean tokens of a prompt"),
        ("answer_tokens", "mean tokens of an answer"),
    ):
        plan.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{what} (default: the pool's, or NIV2's)"
        )


def run(options: argparse.Namespace, flags) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.plan import plan

    names = vars(plan.Options())
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    given["search"] = not options.no_search
    if options.stages is None:
        del given["stages"]
    else:
        given["stages"] = [stage.strip() for stage in options.stages.split(",")]
    plan.run(flags, plan.Options(**given))
    return exit_codes.OK
