"""Search for text in numbers as they are written, by arithmetic, for all numbers below a limit."""

from __future__ import annotations

import functools
import re

import numpy as np
from numpy.typing import NDArray

_DIGITS = {10: re.compile("[0-9]+"), 16: re.compile("[0-9a-f]+")}


@functools.lru_cache(128)
def numbers_with(piece: str, size: int, base: int, start: bool = False, end: bool = False) -> NDArray[np.bool_] | None:
    """Return a mask over 0 … size - 1: whether the number's text contains `piece`. None if no number does.

    With `start` or `end` the text has to begin or end with it. The text is in base 10 or 16, lower case, without
    leading zeros.
    """
    if piece == "":
        return None if start and end else np.ones(size, np.bool_)
    if not _DIGITS[base].fullmatch(piece) or base ** (len(piece) - 1) >= size:
        return None
    numbers, wanted = np.arange(size), int(piece, base)
    hits = np.zeros(size, np.bool_)
    right_of_it = 0
    while (length := right_of_it + len(piece)) == 1 or base ** (length - 1) < size:
        matches = numbers // base**right_of_it % base ** len(piece) == wanted
        if length > 1:  # 0 has one digit, and every number has at least one
            matches &= numbers >= base ** (length - 1)
        if start:
            matches &= numbers < base**length
        hits |= matches
        right_of_it += 1
        if end:
            break
    hits.flags.writeable = False
    return hits if hits.any() else None
