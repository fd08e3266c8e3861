"""Where numbers are in a sorted column, for many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_FOUND = -1


def find_sorted(column: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    """The place of each of `wanted` in the ascending `column`, or NOWHERE."""
    if not len(column):
        return np.full(len(wanted), NOT_FOUND, np.intp)
    at = np.searchsorted(column, wanted)
    at[at == len(column)] = 0
    at[column[at] != wanted] = NOT_FOUND
    return at


def is_in_sorted(column: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of `wanted` are in the ascending `column`."""
    there: NDArray[np.bool_] = find_sorted(column, wanted) != NOT_FOUND
    return there


def ascending(*columns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """All of them in order; some may come twice. (np.unique hashes: numbers like these in ten times the time.)"""
    return np.sort(np.concatenate(columns))
