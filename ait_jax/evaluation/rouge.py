"""ROUGE-1 and ROUGE-L, and how texts are split into tokens for them.

Tk-Instruct (`compute_metrics.py`) splits answers of its English track into stemmed words of a-z and
0-9, so that a right answer in another script scores 0, and answers of its cross-lingual track into
the tokens of GPT-2. GPT-2's vocabulary does not ship with this package; without a folder that has
it, other scripts are split by Unicode's classes of characters, which for ASCII text is the English
way to the token.
"""

import functools
import types
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ait_jax.errors import UserError, shown, shown_path
from ait_jax.runtime import files

ROUGE_1, ROUGE_L = "rouge1", "rougeL"
# Values of ROUGE_TOKENIZER; any other is a folder.
AUTO, ENGLISH, UNICODE = "auto", "english", "unicode"
# Share of a task's letters beyond a-z and 0-9 from which its references are in another script: in
# English tasks of NIV2 it is 2% at most, in Vietnamese or Czech more than 10%.
_OTHER_SCRIPT = 0.1
# First words of the Unicode names of letters that stand alone, because nothing divides words.
_WITHOUT_SPACES = frozenset(
    "CJK IDEOGRAPHIC HIRAGANA KATAKANA THAI LAO KHMER MYANMAR JAVANESE BALINESE TAI YI".split()
)
_TOKENIZER = "tokenizer.json"
_MOST_BYTES = 1 << 28  # GPT-2's has 1 MB, the largest known 35


@dataclass(frozen=True)
class Rouge:
    """ROUGE with one way to split texts.

    Attributes:
      name: of that way, as eval.json has it: "english", "unicode", or a folder's name with the
        beginning of its tokenizer's SHA-256.
      tokenize: text -> tokens.
    """

    name: str
    tokenize: Callable[[str], list[str]]

    @functools.cached_property
    def _of_pair(self) -> Callable[[str, str], tuple[float, float]]:
        from rouge_score import rouge_scorer  # imported late: loads NLTK

        # The slow part, and answers of classification tasks repeat thousands of times.
        tokens = functools.lru_cache(maxsize=1 << 14)(self.tokenize)
        scorer = rouge_scorer.RougeScorer(
            [ROUGE_1, ROUGE_L], tokenizer=types.SimpleNamespace(tokenize=tokens)
        )

        @functools.lru_cache(maxsize=1 << 16)
        def of_pair(prediction: str, reference: str) -> tuple[float, float]:
            scores = scorer.score(target=reference, prediction=prediction)
            return scores[ROUGE_1].fmeasure, scores[ROUGE_L].fmeasure

        return of_pair

    def scores(self, prediction: str, references: Sequence[str]) -> dict[str, float]:
        """Returns the best ROUGE-1 and the best ROUGE-L F measure over references, in [0, 1]."""
        pairs = [self._of_pair(prediction, reference) for reference in references]
        best_1, best_l = (max(figures) for figures in zip(*pairs, strict=True))
        return {ROUGE_1: best_1, ROUGE_L: best_l}


def rouge(choice: str) -> Rouge:
    """Returns the ROUGE of a ROUGE_TOKENIZER that is not "auto".

    Args:
      choice: "english", "unicode", or a folder with a tokenizer.json (GPT-2's), or that file.

    Raises:
      UserError: it is none of them, or the tokenizer cannot be read.
    """
    if choice in _BUILT_IN:
        return _BUILT_IN[choice]
    return _of_folder(choice)


def check_choice(choice: str) -> None:
    """Raises UserError unless `choice` is a ROUGE_TOKENIZER."""
    if choice != AUTO:
        rouge(choice)


def other_scripts(references: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns the tasks whose references are in another script than English's.

    Args:
      references: task -> its references, or some of them.
    """
    return [task for task, texts in references.items() if _share_lost(texts) >= _OTHER_SCRIPT]


def chosen(choice: str, references: Mapping[str, Iterable[str]]) -> Rouge:
    """Returns `rouge(choice)`; "auto" is "unicode" with a task in another script, or "english"."""
    if choice == AUTO:
        choice = UNICODE if other_scripts(references) else ENGLISH
    return rouge(choice)


def describe(measure: Rouge, references: Mapping[str, Iterable[str]], what: str = "tasks") -> str:
    """Returns a line for the terminal on how other scripts are measured, "" without such tasks."""
    found = other_scripts(references)
    if not found:
        return ""
    how = {
        ENGLISH: "by a-z and 0-9 alone, so that right answers can have ROUGE-L 0",
        UNICODE: "by Unicode's words and characters; ROUGE_TOKENIZER = a folder with GPT-2's "
        "tokenizer.json gives Tk-Instruct's cross-lingual ROUGE",
    }.get(measure.name, f"by {measure.name}, as in Tk-Instruct's cross-lingual track")
    return (
        f"{len(found):,} of {len(references):,} {what} have references in other scripts, such as "
        f"{found[0]}: ROUGE splits texts {how}"
    )


def _share_lost(texts: Iterable[str]) -> float:
    """Returns the share of letters, digits and symbols that English tokens leave out."""
    lost = total = 0
    for text in texts:
        letters = [c for c in _folded(text) if c.isalnum() or _is_symbol(c)]
        total += len(letters)
        lost += sum(not c.isascii() for c in letters)
    return lost / total if total else 0.0


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Turkish: the folded capital dotted i is two characters.
    return unicodedata.normalize("NFKC", folded).replace("i\u0307", "i")


@functools.cache
def _is_symbol(character: str) -> bool:
    # Those of ASCII (+, $) are no tokens in the English way.
    return not character.isascii() and unicodedata.category(character).startswith("S")


@functools.cache
def _stands_alone(character: str) -> bool:
    name = unicodedata.name(character, "").replace("-", " ")
    has_no_spaces = name.partition(" ")[0] in _WITHOUT_SPACES
    return _is_symbol(character) or (has_no_spaces and character.isalnum())


@functools.cache
def _stem() -> Callable[[str], str]:
    from nltk.stem import porter

    return functools.lru_cache(maxsize=1 << 17)(porter.PorterStemmer().stem)


def _english(text: str) -> list[str]:
    from rouge_score import tokenize

    return tokenize.tokenize(text, types.SimpleNamespace(stem=_stem()))


def _unicode(text: str) -> list[str]:
    """Returns words, and the letters of scripts without spaces and symbols one by one."""
    tokens: list[str] = []
    may_grow = False  # the last token, by a letter
    for character in _folded(text):
        kind = unicodedata.category(character)
        if kind == "Cf":  # joiners, and marks of direction
            continue
        if kind.startswith("M"):  # vowel signs and accents
            if tokens:
                tokens[-1] += character
        elif _stands_alone(character):
            tokens.append(character)
            may_grow = False
        elif not character.isalnum():
            may_grow = False
        elif may_grow:
            tokens[-1] += character
        else:
            tokens.append(character)
            may_grow = True
    # As the English way does with its words.
    return [_stem()(token) if token.isascii() and len(token) > 3 else token for token in tokens]


_BUILT_IN = {ENGLISH: Rouge(ENGLISH, _english), UNICODE: Rouge(UNICODE, _unicode)}


@functools.lru_cache(maxsize=2)
def _of_folder(folder: str) -> Rouge:
    import hashlib  # imported late, as few choose a folder

    from ait_jax.prompts import tokenizer_trial

    path = files.as_path(folder)
    path = path if path.name == _TOKENIZER else path / _TOKENIZER
    if not path.is_file():
        raise UserError(
            f"ROUGE_TOKENIZER = {shown(folder)} is not {shown(AUTO)}, {shown(ENGLISH)}, "
            f"{shown(UNICODE)}, or a folder with {_TOKENIZER}: there is no {shown_path(path)}."
        )
    data = files.read_given_bytes(path, "the tokenizer", _MOST_BYTES)
    tokenizer = tokenizer_trial.load(data.decode("utf-8", "replace"), path)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokenize(text: str) -> list[str]:
        # Tokens that begin a word say so, but for the first of a text: Tk-Instruct drops that.
        with tokenizer_trial.panics(path, text):
            tokens = tokenizer.encode(text, add_special_tokens=False).tokens
        return [token.lstrip("\u0120\u2581") for token in tokens]

    return Rouge(f"{path.parent.name} ({hashlib.sha256(data).hexdigest()[:12]})", tokenize)
