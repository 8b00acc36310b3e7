"""`ait-jax convert`: its flags and what they start; imports nothing slow."""

import argparse

from ait_jax.runtime import exit_codes


def add(commands) -> None:
    """Adds the command to argparse's subcommands."""
    description = "parameters from T5X, Hugging Face or a run into another of these forms"
    convert = commands.add_parser(
        "convert",
        help=description,
        description=f"{description}; logits before and after are compared",
    )
    convert.add_argument(
        "source",
        metavar="SOURCE",
        help="a checkpoint of T5X, Orbax or a run, a Hugging Face folder, GGUF, safetensors",
    )
    convert.add_argument("target", metavar="TARGET", help="a folder that is not there yet")
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
        help="of the parameters on disk; keep leaves the source's (default: %(default)s)",
    )
    convert.add_argument(
        "--vocabulary_path",
        help="SentencePiece model or LLaMA's tokenizer (default: the one beside SOURCE)",
    )
    convert.add_argument(
        "--vocab_size",
        type=int,
        help="rows of the token table (default: as in SOURCE; more are zeros, fewer are cut)",
    )
    convert.add_argument(
        "--mlp_activations",
        metavar="A[,linear]",
        help="of SOURCE (default: relu; where the feed-forward layer is gated gelu,linear)",
    )
    convert.add_argument(
        "--like",
        metavar="MODEL",
        help="of a LLaMA trained here: the GGUF file or Hugging Face folder it began with",
    )
    convert.add_argument(
        "--max_shard_size",
        default="5GB",
        help="above it --to=hf writes several files (default: %(default)s)",
    )
    convert.add_argument(
        "--skip_torch_check",
        action="store_true",
        help="do not compare with Hugging Face's torch model, which needs as much memory again",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns the exit code."""
    from ait_jax.models.checkpoints import conversion

    activations = options.mlp_activations
    conversion.convert(
        options.source,
        options.target,
        options.to,
        dtype=options.dtype,
        vocabulary_path=options.vocabulary_path,
        vocab_size=options.vocab_size,
        mlp_activations=activations.split(",") if activations else None,
        max_shard_size=options.max_shard_size,
        like=options.like,
        ask_torch=not options.skip_torch_check,
    )
    return exit_codes.OK
