"""`ait-jax judge`: its flags and what they start; imports nothing slow."""

import argparse

from ait_jax.endpoint import endpoint_flags
from ait_jax.runtime import distributed, exit_codes

_HELP = "compare two files of answers: ROUGE-L, and which one a judge prefers"
_EPILOG = """\
examples:
  ait-jax judge a.jsonl b.jsonl --offline
  ait-jax judge a.jsonl b.jsonl --instructions=user_oriented_instructions.jsonl \\
    --model=gpt-4o-mini --prices=0.15,0.60 --budget=1
  ait-jax judge a.jsonl b.jsonl --model=local --base_url=http://localhost:8000/v1

Every pair is judged in both orders; a wins where it wins in both. Exit code 3: the endpoint failed
or the budget ended; what was paid for is kept, and the same command continues.
"""


def add(commands) -> None:
    """Adds the command to argparse's subcommands."""
    judge = commands.add_parser(
        "judge",
        help=_HELP,
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    judge.add_argument("a", metavar="A", help="JSON lines of instruction, input, response, target")
    judge.add_argument("b", metavar="B", help="the same of another model")
    judge.add_argument(
        "--instructions", metavar="FILE", help="which instructions there are, with references"
    )
    judge.add_argument(
        "--out", default="judgement.json", help="everything, as JSON (default: %(default)s)"
    )
    judge.add_argument("--offline", action="store_true", help="ROUGE-L alone, no endpoint")
    judge.add_argument(
        "--on_mismatch",
        choices=("error", "intersect"),
        default="error",
        help="what to do if the files answer different instructions (default: %(default)s)",
    )
    judge.add_argument(
        "--seed", type=int, default=0, help="of the order of asking and the bootstrap"
    )
    judge.add_argument(
        "--max_tokens", type=int, default=16, help="of a verdict (default: %(default)s)"
    )
    endpoint_flags.add(judge)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.evaluation.judging import Comparison

    endpoint = None if options.offline else endpoint_flags.build(options)
    Comparison(
        paths=(options.a, options.b),
        instructions=options.instructions,
        out=options.out,
        intersect=options.on_mismatch == "intersect",
        seed=options.seed,
        max_tokens=options.max_tokens,
    ).run(endpoint)
    if endpoint is not None and endpoint.stopped:
        distributed.say(f"{endpoint.stopped}; what is there is kept, the same command continues.")
        return exit_codes.UNFINISHED
    return exit_codes.OK
