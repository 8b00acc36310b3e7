"""Text of tasks and models on a terminal, with control characters shown as escapes."""

import unicodedata

# Joiners that some scripts and emoji need.
_HARMLESS_FORMATS = "\u200c\u200d"
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Returns `text` with escapes (`\x1b`, `\u202e`) for control and direction characters.

    Args:
      text: from anywhere.
      keep_lines: keep line ends, and make tabs four spaces; otherwise both are escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep_lines) for character in text)


def _shown(character: str, keep_lines: bool) -> str:
    if keep_lines and character in "\n\t":
        return "    " if character == "\t" else character
    if unicodedata.category(character) in _UNSAFE and character not in _HARMLESS_FORMATS:
        return character.encode("unicode_escape").decode()
    return character


def duration(seconds: float) -> str:
    """Returns a time as "45 s", "3 min 20 s", "2 h 05 min" or "3 d 4 h"."""
    seconds = round(seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"
