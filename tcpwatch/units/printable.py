"""printable(): make text from outside (process names, command lines, users) safe to draw.

A process chooses its own name: prctl(2) PR_SET_NAME and argv[0] accept every byte except NUL. ESC and CSI would control
the terminal, a newline would break the table, a bidirectional override would reverse the text of the next column. All
of these become visible escapes. Markup is left unchanged: it is harmless where nothing parses it.
"""

from __future__ import annotations

LIMIT = 4096

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, range(0xE0100, 0xE01F0))
)
"""Characters that are invisible although str.isprintable() accepts them (most of Default_Ignorable_Code_Point).
The emoji variation selector U+FE0F is not among them."""

_BYTES_AS_SURROGATES = range(0xDC80, 0xDD00)
"""os.fsdecode() decodes the bytes 0x80 to 0xff that are not UTF-8 to these (PEP 383)."""


def printable(text: str, limit: int = LIMIT) -> str:
    r"""Return `text` with escapes for unprintable characters, in at most `limit` (≥ 1) characters.

    Escapes are `\x1b`, `\u202e` and `\U000e0001`; an undecodable byte is shown as `\x` and its value. Escaped are the
    characters that str.isprintable() rejects (control, format, surrogate, private-use and unassigned characters,
    separators other than the space) and invisible letters. A backslash is not escaped: the escapes are for reading and
    cannot be undone. Text that is too long ends with `…`, and never within an escape. The function is idempotent.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    pieces = [_visible(character) for character in text[: limit + 1]]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    return _cut(pieces, limit - 1) + "…"


def _visible(character: str) -> str:
    """Return the character, or its escape."""
    if character.isprintable() and character not in _INVISIBLE:
        return character
    code = ord(character)
    if code in _BYTES_AS_SURROGATES:
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _cut(pieces: list[str], limit: int) -> str:
    """Return as many whole pieces as fit into `limit` characters."""
    length = 0
    for count, piece in enumerate(pieces):
        length += len(piece)
        if length > limit:
            return "".join(pieces[:count])
    return "".join(pieces)
