"""Return freed memory to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return the free pages of all threads' heaps to the system: malloc_trim(3), which only glibc has.

    glibc keeps them for later use otherwise, also where the next step needs much less.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
