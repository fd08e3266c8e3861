"""Texts cut to a width."""

from __future__ import annotations


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters; the middle is left out, as both ends of an address say the most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"
