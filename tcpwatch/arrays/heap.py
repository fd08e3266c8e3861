"""Return memory of arrays to the system, as far as the C library can do it: glibc.

glibc takes small blocks from heaps and gives larger ones a mapping of their own, which goes back when it is freed. The
size that counts as large grows with what was freed, up to 32 MiB: that saves page faults in each poll of many sockets.
During a load it would leave a heap full of holes instead, twice as large as what is in use (mallopt(3)).
"""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of mallopt(3)"""
_LARGE, _LARGE_DURING_LOAD = 32 * 1024 * 1024, 256 * 1024


class Heap:
    """Switches the C library between few page faults and little memory."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._is_glibc = hasattr(self._libc, "mallopt") and hasattr(self._libc, "malloc_trim")
        self._loaded = False

    def after_step(self, loaded: bool) -> None:
        """Give freed memory back after a step with many arrays (`loaded`), and after the first one without."""
        if not self._is_glibc or not (loaded or self._loaded):
            return
        if loaded != self._loaded:
            self._loaded = loaded
            self._libc.mallopt(_MMAP_THRESHOLD, _LARGE_DURING_LOAD if loaded else _LARGE)
        self._libc.malloc_trim(0)
