"""The release of the running kernel."""

from __future__ import annotations

import os
import re


def is_since(version: tuple[int, int], release: str | None = None) -> bool:
    """Return whether a release of Linux (default: the running one) is this version or a later one.

    A release that is not understood is taken for a new one.
    """
    found = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", os.uname().release if release is None else release)
    return found is None or (int(found[1]), int(found[2])) >= version
