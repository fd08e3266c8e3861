"""Text for a terminal: widths in cells, and colours from the 16 that every theme has."""

from __future__ import annotations

import unicodedata

from tcpwatch import units
from tcpwatch.model.states import FACTS, Phase, State

RESET = "\x1b[0m"
BOLD = "1"
_PHASE_COLOURS = {Phase.HANDSHAKE: "36", Phase.OPEN: "32", Phase.TEARDOWN: "33"}  # cyan, green, yellow
STATE_COLOURS: dict[int, str | None] = {state: _PHASE_COLOURS.get(FACTS[state].phase) for state in State}
"""State → SGR code."""
FULL_COLOUR = "31"
"""SGR code of a full queue."""


def coloured(words: str, code: str | None, colour: bool) -> str:
    """Return `words` with this SGR code if `colour` is true."""
    return f"\x1b[{code}m{words}{RESET}" if colour and code and words else words


def cell_width(words: str) -> int:
    """Return the width of `words` in cells: 2 per wide East Asian character, 0 per combining character."""
    return len(words) if words.isascii() else sum(map(_cells_of, words))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(words: str, width: int, right: bool = False) -> str:
    """Return `words` in exactly `width` cells, padded or shortened in the middle."""
    if words.isascii() and len(words) <= width:
        return words.rjust(width) if right else words.ljust(width)
    whole, length = words, width
    while cell_width(words) > width:  # fewer wide characters than `width` fit
        words, length = units.shortened(whole, length), length - 1
    gap = " " * (width - cell_width(words))
    return gap + words if right else words + gap
