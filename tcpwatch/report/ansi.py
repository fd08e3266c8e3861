"""Cells and colours of text for people: widths as a terminal counts them, and the sixteen colours every theme has."""

from __future__ import annotations

import unicodedata

from tcpwatch import units
from tcpwatch.model.states import Phase

RESET = "\x1b[0m"
BOLD, DIM = "1", "2"
PHASE_COLOURS: dict[str | None, str] = {
    Phase.HANDSHAKE.value: "36",  # cyan
    Phase.OPEN.value: "32",  # green
    Phase.TEARDOWN.value: "33",  # yellow
}
"""Phase → SGR code. The state's name says the same: colour is never the only sign."""
FULL_COLOUR = "31"
"""A queue that is full."""


def coloured(words: str, code: str | None, colour: bool) -> str:
    """`words` in the colour of this SGR code, where colour is wanted."""
    return f"\x1b[{code}m{words}{RESET}" if colour and code and words else words


def cell_width(words: str) -> int:
    """How many cells of a terminal `words` fills: two for a wide East Asian character, none for a combining one."""
    if words.isascii():
        return len(words)
    return sum(_cells_of(character) for character in words)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(words: str, width: int, right: bool = False) -> str:
    """`words` in exactly `width` cells: padded, or shortened in the middle."""
    whole, length = words, width
    while cell_width(words) > width:  # of wide characters fewer than `width` fit
        words, length = units.shortened(whole, length), length - 1
    gap = " " * (width - cell_width(words))
    return gap + words if right else words + gap


_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int) -> str:
    """A bar of at most `width` cells, `share` of 1 long; whatever is above 0 shows."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
