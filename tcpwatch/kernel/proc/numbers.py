"""Numbers in texts of the kernel, checked: what a container or a broken file puts in their place is no number."""

from __future__ import annotations

import errno
import re

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_LARGEST = 1 << 64


def kernel_number(word: str) -> int | None:
    """Return a decimal number of at most 64 bits; None for any other word."""
    if not _NUMBER.fullmatch(word):
        return None
    number = int(word)
    return number if -_LARGEST < number < _LARGEST else None


def unexpected_content(path: object) -> OSError:
    """Return the error for a file whose text is not what the kernel documents."""
    return OSError(errno.EPROTO, "unexpected content", str(path))
