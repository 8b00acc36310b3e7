"""Strangers' tokenizers, tried in a process of their own first.

On some input the `tokenizers` library panics, ends the process or never returns: damaged
normalizers, regular expressions, sizes. A JSON file of a kilobyte is enough.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ait_jax.errors import UserError, shown, shown_path

_SECONDS = 60
# What a tokenizer may take beside its file, and for each byte of it; the largest takes 20.
_ROOM, _ROOM_PER_BYTE = 4 * 2**30, 64
_PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
texts = json.loads(sys.stdin.buffer.readline())
from tokenizers import Tokenizer
try:
    tokenizer = Tokenizer.from_str(sys.stdin.buffer.read().decode())
    for special in (True, False):
        tokenizer.encode_special_tokens = special
        for text in texts:
            ids = tokenizer.encode(text).ids
            tokenizer.decode(ids, skip_special_tokens=False)
except BaseException as error:
    print(f"{error}"[:400].encode("ascii", "backslashreplace").decode())
    sys.exit(3)
"""
# Most ways through a normalizer and a splitter: scripts, controls, runs of blanks, a long word.
_TEXTS = (
    "",
    "Is it 12,345 or 1e-5? It's (no) \u00fcber \u0130\u0131 na\u00efve!\r\n\n\ttwo  blanks   ",
    "\u6771\u4eac \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 e\u0301 "
    "\ufb01 "
    "\u212b \ud55c\u1112\u1161 \U0001f468\u200d\U0001f469 \ufeff\x00\x7f\u2581",
    "a" * 2000 + " " * 2000 + "ab " * 500,
)
_ADDED = {"content": str, "id": int, "special": bool}
_passed: set[bytes] = set()


def load(
    text: str, source: object, more_texts: Iterable[str] = (), *, is_ours: bool = False
) -> Any:
    """Returns `tokenizers.Tokenizer` of a tokenizer.json's content, after a trial.

    Args:
        text: the content.
        source: where it is from, for errors.
        more_texts: that are encoded in the trial, too.
        is_ours: the content is of a kind that was written here, of a stranger's words: no trial.

    Raises:
        UserError: the library refuses it, panics or ends; or the package is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(
            f"The vocabulary {shown_path(source)} needs the package tokenizers: "
            "pip install 'ait-jax[llama]'."
        ) from error
    data = text.encode()
    digest = hashlib.sha256(data).digest()
    if not is_ours and digest not in _passed:
        _try(data, source, [*_TEXTS, *more_texts])
        _passed.add(digest)
    with panics(source):
        tokenizer = Tokenizer.from_str(text)
        if getattr(tokenizer.model, "dropout", None):
            # It draws at random in how many parts a word is read.
            tokenizer.model.dropout = None
        return tokenizer


def added_tokens(content: Mapping[str, Any], path: object) -> list[dict[str, Any]]:
    """Returns the `added_tokens` of a tokenizer.json's content: text, id, and whether special.

    Raises:
        UserError: they are something else.
    """
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(one, dict) and all(type(one.get(name)) is kind for name, kind in _ADDED.items())
        for one in added
    ):
        raise UserError(f"{shown_path(path)} is damaged: its added_tokens are not tokens.")
    return added


def _try(data: bytes, source: object, texts: list[str]) -> None:
    import subprocess  # imported late: most tokenizers are known, or SentencePiece's

    paths = os.pathsep.join(path for path in sys.path if path)
    # Threads would have room set apart for each of them.
    plain = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    room = _ROOM + _ROOM_PER_BYTE * len(data)
    try:
        # -P: not from the working folder, which may be the stranger's.
        tried = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, str(room), str(_SECONDS // 2)],
            input=json.dumps(texts).encode() + b"\n" + data,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env={**os.environ, **plain, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(source, f"it takes more than {_SECONDS} s on a short text") from error
    if tried.returncode == 3:
        said = tried.stdout.decode("ascii", "replace").strip().split("\n")[0]
        raise _refused(source, said or "without a reason")
    if tried.returncode != 0:
        raise _refused(source, f"the library ends with code {tried.returncode}")


def _refused(source: object, problem: str) -> UserError:
    return UserError(
        f"{shown_path(source)}: tokenizers cannot read its tokenizer ({problem}); copy it again."
    )


@contextlib.contextmanager
def panics(source: object, text: str = "") -> Iterator[None]:
    """Turns what the library raises, its panics included, into UserError.

    Args:
        source: where the tokenizer is from.
        text: what it reads.
    """
    try:
        yield
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise _refused(source, f"{error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        on = f" on {shown(text)}" if text else ""
        raise _refused(source, f"it panics{on}: {error}") from error
