"""`ait-jax convert`: parameters from one checkpoint format to another."""

import argparse

from ait_jax.commands import subcommand
from ait_jax.config.gin_flags import GinFlags
from ait_jax.errors import ExitCode


def add(subparsers: subcommand.Subparsers) -> None:
    """Adds the command and its flags."""
    summary = "convert parameters between T5X, Hugging Face and runs"
    convert = subcommand.add(
        subparsers, "convert", summary, description=f"{summary}; compares logits before and after"
    )
    convert.add_argument(
        "source",
        metavar="SOURCE",
        help="a checkpoint of T5X, Orbax or a run, a Hugging Face folder, GGUF, safetensors",
    )
    convert.add_argument("target", metavar="TARGET", help="a new folder")
    convert.add_argument(
        "--to",
        required=True,
        choices=("hf", "t5x", "safetensors"),
        help="a Hugging Face folder, an Orbax checkpoint for T5X, or one safetensors file",
    )
    convert.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "keep"),
        default="float32",
        help="of the parameters on disk; keep: as in SOURCE (default: %(default)s)",
    )
    convert.add_argument(
        "--vocabulary_path",
        help="a SentencePiece model or a LLaMA tokenizer (default: the one beside SOURCE)",
    )
    convert.add_argument(
        "--vocab_size",
        type=int,
        help="rows of the token table (default: as in SOURCE; padded with zeros, or cut)",
    )
    convert.add_argument(
        "--mlp_activations",
        metavar="A[,linear]",
        help="of SOURCE (default: relu, or gelu,linear where the feed-forward layer is gated)",
    )
    convert.add_argument(
        "--like",
        metavar="MODEL",
        help="for a LLaMA trained here: the GGUF file or Hugging Face folder it started from",
    )
    convert.add_argument(
        "--max_shard_size",
        default="5GB",
        help="--to=hf splits larger files (default: %(default)s)",
    )
    convert.add_argument(
        "--skip_torch_check",
        action="store_true",
        help="skip the comparison with Hugging Face's torch model, which doubles the memory needed",
    )


def run(options: argparse.Namespace, flags: GinFlags) -> int:
    """Runs the command and returns the exit code."""
    subcommand.start_jax()
    from ait_jax.models.checkpoints import conversion
    from ait_jax.models.checkpoints.loaded_model import Hints

    activations = options.mlp_activations
    conversion.convert(
        options.source,
        options.target,
        options.to,
        Hints(
            vocabulary_path=options.vocabulary_path,
            mlp_activations=activations.split(",") if activations else None,
            like=options.like,
        ),
        dtype=options.dtype,
        vocab_size=options.vocab_size,
        max_shard_size=options.max_shard_size,
        ask_torch=not options.skip_torch_check,
    )
    return ExitCode.OK
