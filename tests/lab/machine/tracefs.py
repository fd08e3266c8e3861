"""tracefs for the lab: as the host has mounted it, or else a mount that no other process sees."""

import functools
import os
from pathlib import Path

from tests.lab.machine.syscalls import mount_detached

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


@functools.cache
def tracefs_root() -> Path:
    """Return the top folder of tracefs, which stays there until the end of this process.

    Raises OSError where the kernel has none or where this user may not mount it.
    """
    for place in _PLACES:
        if os.path.isdir(f"{place}/instances"):
            return Path(place)
    return Path(f"/proc/self/fd/{mount_detached('tracefs')}")
