"""Task names -> names that TFDS and SeqIO allow for splits and tasks."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

# With the dataset's name, suffix and shard numbers around it, a file name stays below the 255
# bytes of common file systems.
_MAX_LENGTH = 180
_HASH_LENGTH = 8
# "all" is TFDS's name for all splits together.
_RESERVED = {"all"}


def word_names(names: Iterable[str]) -> dict[str, str]:
    """Maps each name to a distinct one of ASCII letters, digits and underscores.

    TFDS splits and SeqIO tasks allow little more, while real NIV2 names have dots
    (task1530_scitail1.1_sentence_generation). Other characters become underscores. If two names
    would become the same, or one empty, too long or reserved, a hash of the original is appended.
    The result does not depend on the order of `names`.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_]", "_", name) for name in sorted(set(names))}
    # Files are named after splits, and some file systems ignore case.
    owners = Counter(word.lower() for word in plain.values())

    def free(name: str, word: str) -> bool:
        # TFDS refuses splits without a letter or digit.
        fits = word.strip("_") and len(word) <= _MAX_LENGTH and word.lower() not in _RESERVED
        return bool(fits) and owners[word.lower()] == 1

    return {name: word if free(name, word) else _hashed(name, word) for name, word in plain.items()}


def _hashed(name: str, word: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    return f"{word[: _MAX_LENGTH - _HASH_LENGTH - 2]}__{digest}"
