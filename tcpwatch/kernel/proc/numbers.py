"""Texts of the kernel, and numbers in them, checked: what a container or a broken file puts there is no number."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_NUMBERS = re.compile(r"(?:-?[0-9]{1,20} )*")
_LARGEST = 1 << 64
_BLOCK = 1 << 16


def kernel_number(word: str) -> int | None:
    """Return a decimal number of at most 64 bits; None for any other word."""
    if not _NUMBER.fullmatch(word):
        return None
    number = int(word)
    return number if -_LARGEST < number < _LARGEST else None


def kernel_numbers(words: Sequence[str]) -> list[int] | None:
    """Return all of these numbers; None if one of them is no number as in kernel_number()."""
    if not _NUMBERS.fullmatch(" ".join((*words, ""))):
        return None
    numbers = list(map(int, words))
    return numbers if min(numbers, default=0) > -_LARGEST and max(numbers, default=0) < _LARGEST else None


def kernel_text(path: str) -> str:
    """Return a file of /proc; this takes a fifth of the time of Path.read_text(). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        blocks = [os.read(descriptor, _BLOCK)]
        while blocks[-1]:
            blocks.append(os.read(descriptor, _BLOCK))
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)
    return b"".join(blocks).decode("utf-8", errors="replace")


def unexpected_content(path: object) -> OSError:
    """Return the error for a file whose text is not what the kernel documents."""
    return OSError(errno.EPROTO, "unexpected content", str(path))
