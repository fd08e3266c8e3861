"""Look up many numbers at once in a sorted column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_FOUND = -1


def find_sorted(column: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index of each of `wanted` in the ascending `column`, or NOT_FOUND."""
    if not len(column):
        return np.full(len(wanted), NOT_FOUND, np.intp)
    at = np.searchsorted(column, wanted)
    at[at == len(column)] = 0
    at[column[at] != wanted] = NOT_FOUND
    return at


def is_in_sorted(column: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of `wanted` are in the ascending `column` (np.isin would sort both again)."""
    mask: NDArray[np.bool_] = find_sorted(column, wanted) != NOT_FOUND
    return mask


def ascending(*columns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return all values in ascending order, duplicates included (np.unique would take ten times as long)."""
    return np.sort(np.concatenate(columns))
