"""Texts cut to a width, and bars of text."""

from __future__ import annotations

_EIGHTHS = " ▏▎▍▌▋▊▉"


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters; the middle is left out, as both ends of an address say the most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"


def bar(share: float | None, width: int) -> str:
    """Return a bar padded to `width` cells; a share above 0 shows at least the thinnest bar."""
    if not share or share <= 0 or width <= 0:
        return " " * max(0, width)
    eighths = min(max(1, round(share * width * 8)), width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)
