"""What `ait-jax convert` reads: a checkpoint of any form, its model's sizes and its vocabulary."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ait_jax.errors import UserError, first_line, shown_path
from ait_jax.models.checkpoints import checkpoints, logits_check
from ait_jax.models.checkpoints.restore import check_params
from ait_jax.models.interface import Params
from ait_jax.models.llama import LlamaConfig
from ait_jax.models.parameters import (
    abstract_params,
    flatten,
    match_layout,
    num_params,
    unflatten,
)
from ait_jax.models.t5 import T5Config
from ait_jax.prompts import t5_tokenizer, tokenizer_files
from ait_jax.prompts.token_order import TokenOrder
from ait_jax.prompts.tokenizers_vocabulary import TokenizersVocabulary
from ait_jax.prompts.vocabulary import EXTRA_IDS, Vocabulary
from ait_jax.runtime import files


@dataclasses.dataclass(frozen=True)
class Hints:
    """What a checkpoint may not say itself.

    Attributes:
        vocabulary_path: the model's SentencePiece file, a LLaMA's tokenizer; by default the one
            beside the checkpoint, or `like`'s.
        mlp_activations: where they are not T5 1.0's or 1.1's (Hugging Face's folders say so).
        like: the GGUF file or Hugging Face folder of the LLaMA with which the training of this
            checkpoint began; its sizes and its tokenizer.
    """

    vocabulary_path: Any = None
    mlp_activations: Sequence[str] | None = None
    like: Any = None


NO_HINTS = Hints()


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A checkpoint with its model's sizes and its vocabulary.

    Attributes:
        place: the very folder or file; form: a key of `checkpoints.FORMS`.
        config, params: the model; parameters unscanned, in the dtypes that are stored.
        step: of a checkpoint_<step> folder, else 0.
        vocabulary: T5's SentencePiece model or tokenizer.json, LLaMA's tokenizer
            (`tokenizer_files`), None if there is none.
    """

    place: Path
    form: str
    config: T5Config | LlamaConfig
    params: Params
    step: int
    vocabulary: Path | None

    @property
    def token_order(self) -> TokenOrder | None:
        """How a LLaMA's own files order its tokens; None for T5."""
        return _order(self.vocabulary) if isinstance(self.config, LlamaConfig) else None

    @property
    def extra_ids(self) -> int:
        """How many sentinels follow a vocabulary's pieces: T5's 100 where there is room.

        mT5's file has them among its pieces.

        Raises:
            UserError: no vocabulary of T5's kind, or one of more ids than the token table has rows.
        """
        if self.vocabulary is None:
            return EXTRA_IDS
        words = Vocabulary(str(self.vocabulary), 0)
        rows, num_pieces = self.config.vocab_size, words.vocab_size
        if num_pieces > rows:
            raise UserError(
                f"{shown_path(self.vocabulary)} has {num_pieces:,} pieces, the token table only "
                f"{rows:,} rows; give the model's own --vocabulary_path."
            )
        if words.own_sentinels:
            return words.own_sentinels
        return EXTRA_IDS if num_pieces + EXTRA_IDS <= rows else 0

    def words(self) -> Vocabulary | TokenizersVocabulary | None:
        """Returns the vocabulary, read; UserError for a broken one or one that does not fit."""
        if self.vocabulary is None:
            return None
        if isinstance(self.config, LlamaConfig):
            words = TokenizersVocabulary(str(self.vocabulary))
        else:
            words = Vocabulary(str(self.vocabulary), self.extra_ids)
        words.encode("")
        if words.vocab_size > self.config.vocab_size:
            raise UserError(
                f"{shown_path(self.vocabulary)} has {words.vocab_size:,} tokens, the token table "
                f"of {shown_path(self.place)} only {self.config.vocab_size:,} rows; give the "
                "model's own --vocabulary_path."
            )
        return words

    def describe(self) -> str:
        """Returns a line: what was read, from where, how large it is."""
        arrays = jax.tree.leaves(self.params)
        dtypes = ", ".join(sorted({str(array.dtype) for array in arrays}))
        return (
            f"read {self.place}: {checkpoints.FORMS[self.form]}, {num_params(self.params):,} "
            f"parameters in {len(arrays)} arrays, {dtypes}"
        )


def load_model(path: Any, hints: Hints = NO_HINTS) -> LoadedModel:
    """Returns what is there; `path` as in `checkpoints.find`, errors as in `conversion.convert`."""
    checkpoint = checkpoints.open_checkpoint(path)
    config, place, like = checkpoint.config, checkpoint.place, hints.like
    vocabulary = hints.vocabulary_path
    # Two names of one function; Hugging Face's folders come back with the first.
    activations = tuple("silu" if x == "swish" else x for x in hints.mlp_activations or ())
    if isinstance(config, LlamaConfig):
        vocabulary = vocabulary or place
        _check_llama_hints(place, vocabulary, like)
    elif config is not None and activations not in ((), config.mlp_activations):
        raise UserError(
            f"--mlp_activations={','.join(activations)}, but {place}/config.json has "
            f"{','.join(config.mlp_activations)}; leave the flag out."
        )
    params = _layers_apart(checkpoint)
    if config is None:
        if "token_embedder" in params.get("decoder", {}):
            config = _config_like(params, place, like)
            vocabulary = vocabulary or like
        else:
            config = t5_config(params, activations, place)
        shapes, axes = abstract_params(logits_check.model_of(config))
        check_params(flatten(params), flatten(shapes), flatten(axes), place, type(config))
    if isinstance(config, T5Config):
        vocabulary = t5_tokenizer.file_of(vocabulary) if vocabulary else _beside(place)
        if like is not None:
            raise UserError(
                f"--like={shown_path(like)} is for LLaMA models, but {place} is a T5; leave it out."
            )
    return LoadedModel(
        place=place,
        form=checkpoint.form,
        config=config,
        params=jax.tree.map(np.asarray, params),
        step=checkpoint.step or 0,
        vocabulary=None if vocabulary is None else Path(vocabulary),
    )


def _layers_apart(checkpoint: checkpoints.Checkpoint) -> Params:
    """Returns a checkpoint's parameters, layers one by one, whose names only are known to fit."""
    params = checkpoint.load(dtype=None)
    try:
        return match_layout(params, scan_layers=False)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{shown_path(checkpoint.place)} has layers of no T5 and no LLaMA: the arrays of "
            f"'layers' are not stacked alike ({first_line(error)})."
        ) from error


def _check_llama_hints(place: Any, vocabulary: Any, like: Any) -> None:
    """Checks the hints for a LLaMA whose files state its sizes and hold its tokenizer."""
    if like is not None:
        raise UserError(
            f"{shown_path(place)} states its sizes itself; leave --like={shown_path(like)} out."
        )
    if tokenizer_files.special_tokens(place).order != _order(vocabulary):
        raise UserError(
            f"--vocabulary_path={shown_path(vocabulary)} has other padding or end-of-sequence "
            f"tokens than {place}; give the same model's."
        )


def _order(vocabulary: Any) -> TokenOrder:
    path = files.as_path(vocabulary)
    if path.name == tokenizer_files.TOKENIZER:
        path = path.parent
    return tokenizer_files.special_tokens(path).order


def _config_like(params: Params, place: Any, like: Any) -> LlamaConfig:
    """Returns the configuration of a LLaMA whose own files do not state it.

    Raises:
        UserError: no `like`, or one that is not a LLaMA with its configuration.
    """
    if like is None:
        raise UserError(
            f"{shown_path(place)} holds a LLaMA's parameters, which do not show its heads, "
            "rotations and tokens: add --like=MODEL, the GGUF file or Hugging Face folder that "
            "the training began with."
        )
    config = checkpoints.open_checkpoint(like).config
    if not isinstance(config, LlamaConfig):
        raise UserError(
            f"--like={shown_path(like)} does not state a LLaMA's sizes; give a GGUF file or a "
            "Hugging Face folder of one."
        )
    # Rows may have been added so that the table divides among devices.
    rows = params["decoder"]["token_embedder"]["embedding"].shape[0]
    return dataclasses.replace(config, vocab_size=rows)


def t5_config(params: Params, activations: Sequence[str] = (), place: Any = "it") -> T5Config:
    """Returns the T5Config that unscanned parameters fit, read off their names and shapes.

    Args:
        activations: which shapes do not show; by default as in T5 1.1 where the feed-forward
            layer is gated, ("gelu", "linear"), and as in T5 1.0 where it is not, ("relu",).
        place: where the parameters came from, for the message.

    Raises:
        UserError: names that no T5 of ours has.
    """
    shapes = {name: tuple(array.shape) for name, array in flatten(params).items()}

    def shape(name: str) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != 2 or not all(shapes[name]):
            raise UserError(
                f"{shown_path(place)} is not a T5 1.0 or 1.1 under T5X's names: it lacks the "
                f"matrix {name}."
            )
        return shapes[name]

    def num_layers(stack: str) -> int:
        found = (re.match(rf"{stack}\.layers_(\d{{1,9}})\.", name) for name in shapes)
        number = 1 + max((int(match[1]) for match in found if match), default=-1)
        if number > len(shapes):
            raise UserError(
                f"{shown_path(place)} has a layer {number - 1:,} of the {stack}, but only "
                f"{len(shapes):,} arrays."
            )
        return number

    gated = "encoder.layers_0.mlp.wi_0.kernel" in shapes
    vocab_size, emb_dim = shape("token_embedder.embedding")
    num_heads = shape("encoder.relpos_bias.rel_embedding")[0]
    joined_kv = shape("encoder.layers_0.attention.query.kernel")[1]
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers("encoder"),
        num_decoder_layers=num_layers("decoder"),
        head_dim=joined_kv // num_heads,
        mlp_dim=shape("encoder.layers_0.mlp.wo.kernel")[0],
        mlp_activations=activations or (("gelu", "linear") if gated else ("relu",)),
        logits_via_embedding="decoder.logits_dense.kernel" not in shapes,
    )


def _beside(place: Any) -> Path | None:
    """Returns T5's vocabulary beside a checkpoint, or beside its run's steps."""
    folder = place if place.is_dir() else place.parent
    if not isinstance(folder, Path):
        return None
    homes = [folder] if checkpoints.step_of(folder) is None else [folder, folder.parent]
    candidates = (home / name for home in homes for name in t5_tokenizer.FILES)
    return next((path for path in candidates if path.is_file()), None)


def resized(model: LoadedModel, vocab_size: int | None) -> LoadedModel:
    """Returns the model with `vocab_size` rows in its token table and output layer.

    Raises:
        UserError: fewer rows than the vocabulary has ids.
    """
    rows = model.config.vocab_size
    if vocab_size is None or vocab_size == rows:
        return model
    words = model.words()
    needed = words.vocab_size if words else 1
    if vocab_size < needed:
        raise UserError(f"--vocab_size={vocab_size} is less than the {needed:,} ids in use.")

    def change(array: np.ndarray, axis: int) -> np.ndarray:
        if vocab_size < rows:
            return np.take(array, np.arange(vocab_size), axis)
        widths = [(0, vocab_size - rows if axis == i else 0) for i in range(array.ndim)]
        return np.pad(array, widths)

    flat = flatten(model.params)
    for name, axis in (
        ("token_embedder.embedding", 0),
        ("decoder.token_embedder.embedding", 0),
        ("decoder.logits_dense.kernel", 1),
    ):
        if name in flat:
            flat[name] = change(flat[name], axis)
    config = dataclasses.replace(model.config, vocab_size=vocab_size)
    return dataclasses.replace(model, config=config, params=unflatten(flat))
