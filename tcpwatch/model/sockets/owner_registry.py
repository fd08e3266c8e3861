"""OwnerCodes: owners as numbers that stay valid from sample to sample, for records that outlive them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.proc.owner_finder import Owner

_MOST = 20_000
"""Owners that are remembered; beyond it the older half is forgotten, and is shown as unknown."""


class OwnerRegistry:
    """Codes count up and are never given out again."""

    def __init__(self) -> None:
        self.owners: list[Owner] = []
        """The meaning of the codes from `begin` on. It only grows, or is another one: so that a View may hold it."""
        self.begin = 0
        self._codes: dict[Owner, int] = {}

    def register(self, codes: NDArray[np.int32], owners: Sequence[Owner]) -> NDArray[np.int32]:
        """For a sample's codes, with their meaning, ours; negative ones, which say why there is none, stay."""
        ours = codes.copy()
        held = codes >= 0
        distinct, inverse = np.unique(codes[held], return_inverse=True)
        ours[held] = np.array([self._code(owners[code]) for code in distinct.tolist()], np.int32)[inverse]
        return ours

    def _code(self, owner: Owner) -> int:
        code = self._codes.get(owner)
        if code is not None:
            return code
        if len(self.owners) >= _MOST:
            half = _MOST // 2
            self.begin += half
            self.owners = self.owners[half:]
            self._codes = {one: self.begin + at for at, one in enumerate(self.owners)}
        self.owners.append(owner)
        self._codes[owner] = self.begin + len(self.owners) - 1
        return self._codes[owner]
