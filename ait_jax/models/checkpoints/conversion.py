"""Parameters from one form into another, each time compared by what the model answers.

Forms in: whatever `checkpoints.find` knows. Forms out: a Hugging Face folder, an Orbax
checkpoint for T5X, one safetensors file; beside them the model's gin file and its vocabulary.
"""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ait_jax.errors import UserError, shown_path
from ait_jax.models.checkpoints import (
    hugging_face,
    llama_weights,
    logits_check,
    orbax_checkpoint,
    weights,
)
from ait_jax.models.checkpoints.loaded_model import (
    NO_HINTS,
    Hints,
    LoadedModel,
    load_model,
    resized,
)
from ait_jax.models.checkpoints.model_gin import llama_gin, t5_gin
from ait_jax.models.llama import LlamaConfig
from ait_jax.prompts import tokenizer_files
from ait_jax.prompts.vocabulary import Vocabulary
from ait_jax.runtime import files, reporter

TARGETS = {
    "hf": "a Hugging Face folder",
    "t5x": "an Orbax checkpoint for T5X",
    "safetensors": "one safetensors file",
}
# Between our logits before and after; what was written is read back, so 0 is usual.
TOLERANCE = 1e-4
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def convert(
    checkpoint: Any,
    target: Any,
    to: str,
    hints: Hints = NO_HINTS,
    *,
    dtype: str = "float32",
    vocab_size: int | None = None,
    max_shard_size: str = "5GB",
    ask_torch: bool = True,
) -> None:
    """Writes the parameters of a checkpoint into the new folder `target`, and compares.

    Args:
        checkpoint: as in `checkpoints.find`.
        target: a folder that does not exist yet or is empty.
        to: a key of TARGETS.
        hints: what the checkpoint does not say itself.
        dtype: "float32", "bfloat16" or "float16" on disk; "keep" keeps the checkpoint's.
        vocab_size: rows of the token table afterwards: more are zeros, fewer are cut off.
        max_shard_size: above it a Hugging Face folder has several files.
        ask_torch: compare with Hugging Face's torch model too, where there is one.

    Raises:
        UserError: nothing fit to read, no place to write, or other answers afterwards; then
            nothing is written.
    """
    stored = None if dtype == "keep" else weights.stored_dtype(dtype)
    max_shard_bytes = _bytes(max_shard_size)
    files.check_new_folder(target)
    original = load_model(checkpoint, hints)
    reporter.say(original.describe())
    read = resized(original, vocab_size)
    # What should be read back: the original, rounded to how it is stored.
    with np.errstate(over="ignore"):  # what overflows shows in the logits
        params = jax.tree.map(lambda x: x.astype(stored or x.dtype, copy=False), read.params)
    changed = dataclasses.replace(read, params=params)
    words = read.words()  # a broken or too large one is refused before anything is written
    with files.new_folder(target) as folder:
        written = _write(folder, to, changed, max_shard_bytes)
        lines = _compare(original, changed, folder / written, dtype, hints.like)
        lines += _compare_with_torch(original, changed, folder / written, to, ask_torch)
        name = _write_vocabulary(folder, to, read)
        vocabulary = None if name is None else Path(target) / name
        lines.append(_vocabulary_line(vocabulary, read, words))
        files.write_text(folder / "model.gin", _gin(read, Path(target) / written, vocabulary))
    reporter.say(f"wrote {Path(target) / written}: {TARGETS[to]}, {_dtype_text(dtype)}")
    for line in lines:
        reporter.say(line)
    gin = Path(target) / "model.gin"
    reporter.say(f"wrote {gin}: the model, its checkpoint and its vocabulary")
    reporter.say(f"use it: ait-jax score --gin_file=experiments/score.gin --gin_file={gin}")


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?B)", size.upper())
    if not match or float(match[1]) == 0:
        raise UserError(
            f"--max_shard_size={shown_path(size)} is not a size; write it like 5GB or 200MB."
        )
    return int(float(match[1]) * _UNITS[match[2]])


# --- writing ---


def _write(folder: Path, to: str, model: LoadedModel, max_shard_bytes: int) -> str:
    """Writes parameters, which have their dtype already; returns what to read in `folder`."""
    params, config = model.params, model.config
    if to == "hf":
        if isinstance(config, LlamaConfig):
            tokenizer = tokenizer_files.read(model.vocabulary)
            llama_weights.write(folder, params, config, tokenizer, max_shard_bytes)
        else:
            hugging_face.write(folder, params, config, max_shard_bytes)
        return "."
    if to == "t5x":
        return orbax_checkpoint.write(folder, params, model.step).name
    name = "model.safetensors"
    weights.save_weights(folder / name, params)
    return name


def _write_vocabulary(folder: Path, to: str, model: LoadedModel) -> str | None:
    """Copies the vocabulary and returns its name there."""
    vocabulary = model.vocabulary
    if isinstance(model.config, LlamaConfig):
        if to != "hf":
            tokenizer_files.write(folder, tokenizer_files.read(vocabulary))
        return "."
    if vocabulary is None:
        return None
    if vocabulary.name == tokenizer_files.TOKENIZER:
        tokenizer_files.copy(vocabulary.parent, folder)
        return vocabulary.name
    name = hugging_face.VOCABULARY if to == "hf" else "sentencepiece.model"
    shutil.copyfile(vocabulary, folder / name)
    if to == "hf":
        hugging_face.write_tokenizer_config(folder, model.extra_ids)
    return name


def _gin(model: LoadedModel, checkpoint: Path, vocabulary: Path | None) -> str:
    """Returns the model's gin file."""
    comment, config = f"Made by `ait-jax convert` from {model.place}.", model.config
    if isinstance(config, LlamaConfig):
        special = tokenizer_files.read(model.vocabulary).special
        return llama_gin(config, comment, checkpoint, vocabulary, special)
    return t5_gin(config, comment, checkpoint, vocabulary, model.extra_ids)


def _vocabulary_line(path: Path | None, model: LoadedModel, words: Vocabulary | None) -> str:
    rows = model.config.vocab_size
    if words is None:
        return (
            "vocabulary: none beside the checkpoint; give VOCABULARY_PATH (--vocabulary_path "
            "copies one into the target)."
        )
    is_llama = isinstance(model.config, LlamaConfig)
    sentinels = "" if is_llama else f"{model.extra_ids} sentinels among them, "
    line = f"VOCABULARY_PATH = {path}: {words.vocab_size:,} ids, {sentinels}of {rows:,} rows"
    if rows < words.padded_size:
        line += f"; --vocab_size={words.padded_size} pads as T5X does"
    return line


def _dtype_text(dtype: str) -> str:
    return "dtypes as they were" if dtype == "keep" else dtype


# --- comparing ---


def _compare(
    original: LoadedModel, changed: LoadedModel, written: Path, dtype: str, like: Any
) -> list[str]:
    """Reads what was written and returns how its answers compare with the original's.

    Raises:
        UserError: the answers differ by more than TOLERANCE, or are not finite.
    """
    config = changed.config
    rows = min(config.vocab_size, original.config.vocab_size)
    asked = logits_check.prompts(rows, getattr(config, "max_position", None))
    before = ours = logits_check.our_logits(original.params, original.config, asked)
    if dtype not in ("float32", "keep"):
        ours = logits_check.our_logits(changed.params, config, asked)
    if not np.isfinite(ours).all():
        raise UserError(
            f"the logits of {shown_path(original.place)} with {_dtype_text(dtype)} are not finite: "
            "its values do not fit or are damaged; try --dtype=float32."
        )
    again = _read_again(changed, written, like)
    # Not every form states the dropout rate.
    if dataclasses.replace(again.config, dropout_rate=config.dropout_rate) != config:
        raise UserError(f"what was written reads as {again.config}, not as {config}.")
    afterwards = logits_check.our_logits(again.params, config, asked)
    what = (
        f"checked with our network: logits of {len(asked.inputs)} prompts before and after writing"
    )
    lines = [_judged(what, logits_check.largest_difference(ours, afterwards), TOLERANCE)]
    if ours is not before:
        rounding = logits_check.largest_difference(before, ours)
        lines.append(f"rounding to {dtype} changed logits by {rounding:.1e} at most")
    return lines


def _read_again(changed: LoadedModel, written: Path, like: Any) -> LoadedModel:
    if not isinstance(changed.config, LlamaConfig):
        return load_model(written, Hints(mlp_activations=changed.config.mlp_activations))
    if (written / "config.json").is_file():
        return load_model(written)
    return load_model(written, Hints(changed.vocabulary, like=like or changed.place))


def _compare_with_torch(
    original: LoadedModel, changed: LoadedModel, written: Path, to: str, ask_torch: bool
) -> list[str]:
    """Returns how Hugging Face's torch model of either side compares with ours."""
    sides = []
    if original.form == "hugging_face":
        sides.append(("of the original", original, original.place))
    if to == "hf":
        sides.append(("of what was written", changed, written))
    unchecked = "not checked with Hugging Face's torch model: "
    if not sides:
        return [unchecked + "neither side is a Hugging Face folder"]
    if not ask_torch:
        return [unchecked + "--skip_torch_check"]
    if not logits_check.has_torch():
        return [unchecked + "torch and transformers are not installed"]
    lines = []
    for what, side, folder in sides:
        longest = getattr(side.config, "max_position", None)
        asked = logits_check.prompts(side.config.vocab_size, longest)
        ours = logits_check.our_logits(side.params, side.config, asked)
        theirs = logits_check.torch_logits(folder, asked, side.token_order)
        # Both compute in float32: rounding errors grow with the logits.
        largest = float(np.max(np.abs(theirs), initial=1.0))
        checked = f"checked with Hugging Face's torch model {what}: logits up to {largest:.3g}"
        difference = logits_check.largest_difference(ours, theirs)
        lines.append(_judged(checked, difference, TOLERANCE * largest))
    return lines


def _judged(what: str, difference: float, tolerance: float) -> str:
    if not difference <= tolerance:
        raise UserError(
            f"{what}, largest difference {difference:.1e}, above {tolerance:.1e}; nothing was "
            "written."
        )
    return f"{what}, largest difference {difference:.1e}"
