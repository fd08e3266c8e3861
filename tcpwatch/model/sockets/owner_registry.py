"""OwnerRegistry: numbers for owners that stay valid from sample to sample, for records of closed connections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.growing_tuple import GrowingTuple
from tcpwatch.kernel.proc.owner_finder import Owner

_MOST = 20_000
"""Owners that are remembered; beyond it the older half is dropped, and is shown as unknown."""


class OwnerRegistry:
    """Gives each owner a code. Codes count up and are never used twice."""

    def __init__(self) -> None:
        self._owners = GrowingTuple[Owner]()
        self.begin = 0
        """The first code of `owners`."""
        self._codes: dict[Owner, int] = {}

    @property
    def owners(self) -> tuple[Owner, ...]:
        """The owners of the codes from `begin` on."""
        return self._owners.snapshot()

    def register(self, codes: NDArray[np.int32], owners: Sequence[Owner]) -> NDArray[np.int32]:
        """Return the registered code for each code of a sample; negative codes (unknown owners) stay."""
        registered = codes.copy()
        held = codes >= 0
        distinct, inverse = np.unique(codes[held], return_inverse=True)
        registered[held] = np.array([self._code(owners[code]) for code in distinct.tolist()], np.int32)[inverse]
        return registered

    def _code(self, owner: Owner) -> int:
        code = self._codes.get(owner)
        if code is not None:
            return code
        if len(self._owners) >= _MOST:
            half = _MOST // 2
            self.begin += half
            kept, self._owners = self.owners[half:], GrowingTuple()
            for known in kept:
                self._owners.append(known)
            self._codes = {known: self.begin + at for at, known in enumerate(kept)}
        self._owners.append(owner)
        self._codes[owner] = self.begin + len(self._owners) - 1
        return self._codes[owner]
