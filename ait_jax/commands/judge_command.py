"""`ait-jax judge`: two files of answers compared."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.endpoint import endpoint_flags
from ait_jax.errors import ExitCode
from ait_jax.runtime import distributed

_HELP = "compare two files of answers: ROUGE, and which one a judge prefers"


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    judge = subcommand.add(subparsers, "judge", _HELP, "judge")
    judge.add_argument("a", metavar="A", help="JSON lines of instruction, input, response, target")
    judge.add_argument("b", metavar="B", help="the same from another model")
    judge.add_argument(
        "--instructions", metavar="FILE", help="the instructions to compare on, with references"
    )
    judge.add_argument(
        "--out", default="judgement.json", help="all results, as JSON (default: %(default)s)"
    )
    judge.add_argument("--offline", action="store_true", help="ROUGE only, no endpoint")
    judge.add_argument(
        "--on_mismatch",
        choices=("error", "intersect"),
        default="error",
        help="if the files answer different instructions (default: %(default)s)",
    )
    judge.add_argument(
        "--seed", type=int, default=0, help="of the order of questions and the bootstrap"
    )
    judge.add_argument(
        "--max_tokens", type=int, default=16, help="of a verdict (default: %(default)s)"
    )
    judge.add_argument(
        "--rouge_tokenizer",
        default="auto",
        metavar="WHICH",
        help="english, unicode, or a folder with GPT-2's tokenizer.json; auto, the default, takes "
        "unicode if references are in other scripts",
    )
    endpoint_flags.add(judge)


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.evaluation import judging
    from ait_jax.evaluation.answers import Files
    from ait_jax.pool.columns import columns_of

    columns = columns_of(getattr(options, "columns", None))
    endpoint = None if options.offline else endpoint_flags.build(options)
    result = judging.compare(
        Files(options.a, options.b, options.instructions, columns),
        endpoint,
        options.out,
        intersect=options.on_mismatch == "intersect",
        seed=options.seed,
        max_tokens=options.max_tokens,
        rouge_tokenizer=options.rouge_tokenizer,
    )
    if endpoint is None:
        return ExitCode.OK
    stopped = endpoint.stopped or ("" if judging.any_answered(result) else "no request succeeded")
    if stopped:
        distributed.say(f"{stopped}; the results so far are kept, and the same command continues.")
        return ExitCode.UNFINISHED
    return ExitCode.OK
