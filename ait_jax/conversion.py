"""Parameters from one form into another, each time compared by what the model answers.

Forms in: whatever `checkpoints.find` knows. Forms out: a Hugging Face folder, an Orbax
checkpoint for T5X, one safetensors file; beside them the model's gin file and its vocabulary.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ait_jax import files
from ait_jax.errors import UserError
from ait_jax.model_gin import model_gin
from ait_jax.models import checkpoints, hugging_face, logits_check, orbax_checkpoint, weights
from ait_jax.models.layouts import match_layout
from ait_jax.models.parameters import abstract_params, config_of, num_params
from ait_jax.models.t5 import Params, T5Config, Transformer
from ait_jax.restore import check_params
from ait_jax.vocabulary import EXTRA_IDS, Vocabulary

TARGETS = {
    "hf": "a Hugging Face folder",
    "t5x": "an Orbax checkpoint for T5X",
    "safetensors": "one safetensors file",
}
# Between our logits before and after; what was written is read back, so 0 is usual.
TOLERANCE = 1e-4
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_VOCABULARIES = ("sentencepiece.model", hugging_face.VOCABULARY)


@dataclasses.dataclass(frozen=True)
class Source:
    """What was read.

    Attributes:
        place: the very folder or file; form: a key of `checkpoints.FORMS`.
        config, params: the model; parameters unscanned, in the dtypes that are stored.
        step: of a checkpoint_<step> folder, else 0.
        vocabulary: a SentencePiece model, None where there is none.
    """

    place: Path
    form: str
    config: T5Config
    params: Params
    step: int
    vocabulary: Path | None

    def describe(self) -> str:
        arrays = jax.tree.leaves(self.params)
        dtypes = ", ".join(sorted({str(array.dtype) for array in arrays}))
        return (
            f"read {self.place}: {checkpoints.FORMS[self.form]}, {num_params(self.params):,} "
            f"parameters in {len(arrays)} arrays, {dtypes}"
        )


def convert(
    source: Any,
    target: Any,
    to: str,
    *,
    dtype: str = "float32",
    vocabulary_path: Any = None,
    vocab_size: int | None = None,
    mlp_activations: Sequence[str] | None = None,
    max_shard_size: str = "5GB",
    ask_torch: bool = True,
    report: Callable[[str], None] = print,
) -> None:
    """Writes the parameters of `source` into the new folder `target`, and compares.

    Args:
        source: as in `checkpoints.find`.
        target: a folder that is not there yet or is empty.
        to: a key of TARGETS.
        dtype: "float32", "bfloat16" or "float16" on disk; "keep" leaves what the source has.
        vocabulary_path: the model's SentencePiece file; by default the one beside the source.
        vocab_size: rows of the token table afterwards: more are zeros, fewer are cut off.
        mlp_activations: where they are not T5 1.0's or 1.1's (Hugging Face's folders say so).
        max_shard_size: above it a Hugging Face folder has several files.
        ask_torch: compare with Hugging Face's torch model too, where there is one.
        report: gets the lines that say what was done.

    Raises:
        UserError: nothing fit to read, no place to write, or other answers afterwards; then
            nothing is written.
    """
    stored = None if dtype == "keep" else weights.stored_dtype(dtype)
    max_shard_bytes = _bytes(max_shard_size)
    files.check_new_folder(target)
    original = read_source(source, vocabulary_path, mlp_activations)
    report(original.describe())
    read = resized(original, vocab_size)
    # What should come back: the source, rounded to how it is stored.
    with np.errstate(over="ignore"):  # what overflows shows in the logits
        params = jax.tree.map(lambda x: x.astype(stored or x.dtype, copy=False), read.params)
    changed = dataclasses.replace(read, params=params)
    extra_ids = extra_ids_of(read.vocabulary, read.config.vocab_size)
    with files.new_folder(target) as folder:
        written = _write(folder, to, changed, max_shard_bytes)
        lines = _compare(original, changed, folder / written, dtype)
        lines += _compare_with_torch(original, changed, folder / written, to, ask_torch)
        vocabulary = _write_vocabulary(folder, to, read.vocabulary, extra_ids)
        gin = model_gin(
            read.config,
            comment=f"Made by `ait-jax convert` from {read.place}.",
            checkpoint=Path(target) / written,
            vocabulary=vocabulary and Path(target) / vocabulary,
            extra_ids=extra_ids,
        )
        files.write_text(folder / "model.gin", gin)
    report(f"wrote {Path(target) / written}: {TARGETS[to]}, {_dtype_text(dtype)}")
    for line in [*lines, *_vocabulary_lines(target, vocabulary, read, extra_ids)]:
        report(line)
    report(f"wrote {Path(target) / 'model.gin'}: the model, its checkpoint and its vocabulary")
    report(
        "use it: ait-jax score --gin_file=experiments/score.gin "
        f"--gin_file={Path(target) / 'model.gin'}"
    )


# --- reading ---


def read_source(
    source: Any, vocabulary_path: Any = None, mlp_activations: Sequence[str] | None = None
) -> Source:
    """Returns what is there; arguments and errors as in `convert`."""
    form, place = checkpoints.find(source)
    # Two names of one function; Hugging Face's folders come back with the first.
    activations = tuple("silu" if x == "swish" else x for x in mlp_activations or ())
    if form == "hugging_face":
        config, params = hugging_face.read(place, dtype=None)
        if activations not in ((), config.mlp_activations):
            raise UserError(
                f"--mlp_activations={','.join(activations)}, but {place}/config.json has "
                f"{','.join(config.mlp_activations)}; leave the flag out."
            )
    else:
        params = match_layout(checkpoints.read_params(place, dtype=None), scan_layers=False)
        try:
            config = config_of(params, activations)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        needed = map(weights.flatten, abstract_params(Transformer(config)))
        check_params(weights.flatten(params), *needed, place)
    folder = place if place.is_dir() else place.parent
    step = checkpoints.step_of(folder)
    if vocabulary_path is None and isinstance(folder, Path):
        homes = [folder] if step is None else [folder, folder.parent]
        beside = (home / name for home in homes for name in _VOCABULARIES)
        vocabulary_path = next((path for path in beside if path.is_file()), None)
    return Source(
        place=place,
        form=form,
        config=config,
        params=jax.tree.map(np.asarray, params),
        step=step or 0,
        vocabulary=None if vocabulary_path is None else Path(vocabulary_path),
    )


def extra_ids_of(vocabulary: Path | None, vocab_size: int) -> int:
    """Returns how many sentinels follow a vocabulary's pieces: T5's 100 where there is room.

    mT5's file has them among its pieces.

    Raises:
        UserError: no vocabulary of T5's kind, or one of more ids than the token table has rows.
    """
    if vocabulary is None:
        return EXTRA_IDS
    num_pieces = Vocabulary(str(vocabulary), extra_ids=0).vocab_size
    if num_pieces > vocab_size:
        raise UserError(
            f"{vocabulary} has {num_pieces:,} pieces, the token table {vocab_size:,} rows; give "
            "the model's own --vocabulary_path."
        )
    return EXTRA_IDS if num_pieces + EXTRA_IDS <= vocab_size else 0


def resized(source: Source, vocab_size: int | None) -> Source:
    """Returns the source with `vocab_size` rows in its token table and output layer.

    Raises:
        UserError: fewer rows than the vocabulary has ids.
    """
    rows = source.config.vocab_size
    if vocab_size is None or vocab_size == rows:
        return source
    needed = 1
    if source.vocabulary is not None:
        extra_ids = extra_ids_of(source.vocabulary, rows)
        needed = Vocabulary(str(source.vocabulary), extra_ids).vocab_size
    if vocab_size < needed:
        raise UserError(f"--vocab_size={vocab_size}; needed: at least the {needed:,} ids in use.")

    def change(array: np.ndarray, axis: int) -> np.ndarray:
        if vocab_size < rows:
            return np.take(array, np.arange(vocab_size), axis)
        widths = [(0, vocab_size - rows if axis == i else 0) for i in range(array.ndim)]
        return np.pad(array, widths)

    flat = weights.flatten(source.params)
    for name, axis in (("token_embedder.embedding", 0), ("decoder.logits_dense.kernel", 1)):
        if name in flat:
            flat[name] = change(flat[name], axis)
    config = dataclasses.replace(source.config, vocab_size=vocab_size)
    return dataclasses.replace(source, config=config, params=weights.unflatten(flat))


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?B)", size.upper())
    if not match or float(match[1]) == 0:
        raise UserError(f"--max_shard_size={size}; needed: a size like 5GB or 200MB.")
    return int(float(match[1]) * _UNITS[match[2]])


# --- writing ---


def _write(folder: Path, to: str, source: Source, max_shard_bytes: int) -> str:
    """Writes parameters, which have their dtype already; returns what to read, from `folder`."""
    params = source.params
    if to == "hf":
        hugging_face.write(
            folder, params, source.config, dtype=None, max_shard_bytes=max_shard_bytes
        )
        return "."
    if to == "t5x":
        return orbax_checkpoint.write(folder, params, source.step, dtype=None).name
    name = "model.safetensors"
    weights.save_weights(folder / name, params, dtype=None)
    return name


def _write_vocabulary(
    folder: Path, to: str, vocabulary: Path | None, extra_ids: int
) -> str | None:
    """Copies the vocabulary and returns its name there."""
    if vocabulary is None:
        return None
    name = hugging_face.VOCABULARY if to == "hf" else "sentencepiece.model"
    shutil.copyfile(vocabulary, folder / name)
    if to == "hf":
        hugging_face.write_tokenizer_config(folder, extra_ids)
    return name


def _vocabulary_lines(
    target: Any, vocabulary: str | None, source: Source, extra_ids: int
) -> list[str]:
    rows = source.config.vocab_size
    if vocabulary is None:
        return [
            "vocabulary: none beside the source; give VOCABULARY_PATH (--vocabulary_path copies "
            "one into the target)."
        ]
    used = Vocabulary(str(Path(target) / vocabulary), extra_ids)
    line = (
        f"VOCABULARY_PATH = {Path(target) / vocabulary}: {used.vocab_size:,} ids, {extra_ids} "
        f"sentinels among them, of {rows:,} rows"
    )
    if rows < used.padded_size:
        line += f"; --vocab_size={used.padded_size} pads as T5X does"
    return [line]


def _dtype_text(dtype: str) -> str:
    return "dtypes as they were" if dtype == "keep" else dtype


# --- comparing ---


def _compare(original: Source, changed: Source, written: Path, dtype: str) -> list[str]:
    """Reads what was written and returns how its answers compare with the source's.

    Args:
        original: what was read; changed: what was to be written.
        written: where it was written to.
        dtype: as in `convert`.

    Raises:
        UserError: the answers differ by more than TOLERANCE, or are no numbers.
    """
    config = changed.config
    asked = logits_check.prompts(min(config.vocab_size, original.config.vocab_size))
    before = ours = logits_check.our_logits(original.params, original.config, asked)
    if dtype not in ("float32", "keep"):
        ours = logits_check.our_logits(changed.params, config, asked)
    if not np.isfinite(ours).all():
        raise UserError(
            f"the logits of {original.place} with {_dtype_text(dtype)} are not finite: its values "
            "do not fit there, or are damaged; try --dtype=float32."
        )
    again = read_source(written, mlp_activations=config.mlp_activations)
    # Not every form tells the dropout rate.
    if dataclasses.replace(again.config, dropout_rate=config.dropout_rate) != config:
        raise UserError(f"what was written reads as {again.config}, not as {config}.")
    lines = [
        _judged(
            f"checked with our network: logits of {len(asked.inputs)} prompts before and after "
            "writing",
            logits_check.largest_difference(
                ours, logits_check.our_logits(again.params, config, asked)
            ),
            TOLERANCE,
        )
    ]
    if ours is not before:
        rounding = logits_check.largest_difference(before, ours)
        lines.append(f"rounding to {dtype} changed logits by {rounding:.1e} at most")
    return lines


def _compare_with_torch(
    original: Source, changed: Source, written: Path, to: str, ask_torch: bool
) -> list[str]:
    """Returns how Hugging Face's torch model of either side compares with ours."""
    sides = []
    if original.form == "hugging_face":
        sides.append(("of the source", original, original.place))
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
        asked = logits_check.prompts(side.config.vocab_size)
        ours = logits_check.our_logits(side.params, side.config, asked)
        theirs = logits_check.torch_logits(folder, asked)
        # Both compute in float32: what rounding leaves grows with the logits.
        largest = float(np.max(np.abs(theirs), initial=1.0))
        lines.append(
            _judged(
                f"checked with Hugging Face's torch model {what}: logits up to {largest:.3g}",
                logits_check.largest_difference(ours, theirs),
                TOLERANCE * largest,
            )
        )
    return lines


def _judged(what: str, difference: float, tolerance: float) -> str:
    if not difference <= tolerance:
        raise UserError(
            f"{what}, largest difference {difference:.1e}, above {tolerance:.1e}; nothing was "
            "written."
        )
    return f"{what}, largest difference {difference:.1e}"
