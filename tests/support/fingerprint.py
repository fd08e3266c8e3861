"""Everything that a View holds, as one value: to see whether it changes afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass

import numpy as np

from tcpwatch.model.lifecycle.transitions import TransitionIndex

Leaf = tuple[str, object]


def leaves(value: object, path: str = "view") -> Iterator[Leaf]:
    """Yield the path and the content of everything that can be reached from `value`."""
    if isinstance(value, np.ndarray):
        yield path, (value.dtype, value.tobytes())
    elif is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, Mapping):
        yield path, list(value)
        for key, part in value.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield path, len(value)
        for at, part in enumerate(value):
            yield from leaves(part, f"{path}[{at}]")
    elif isinstance(value, Set):
        yield path, sorted(map(repr, value))
    elif not isinstance(value, TransitionIndex):  # a cache, which is replaced as a whole
        yield path, repr(value)
