"""Which local addresses and ports are listened on, and what a listener takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel import uapi
from tcpwatch.model.states import State

Key = tuple[int, int, int]
"""Local port, then the address as two 64-bit halves, IPv4 in its IPv4-mapped form: what a SYN is looked up by."""
_MAPPED = 0xFFFF << 32
ANY4, ANY6 = (0, _MAPPED), (0, 0)
_MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"


@dataclass(frozen=True, slots=True, eq=False)
class Listening:
    """The listeners of one sample."""

    keys: frozenset[Key]
    ports: NDArray[np.bool_]
    """Table of 65,536: whether some socket listens on the port."""

    @classmethod
    def of(cls, table: NDArray[np.void], state: NDArray[np.uint8]) -> Listening:
        """From a sample's columns."""
        keys = frozenset(keys_of(table[np.flatnonzero(state == State.LISTEN)]))
        ports = np.zeros(65_536, np.bool_)
        ports[[port for port, *_ in keys]] = True
        return cls(keys, ports)

    def serves(self, table: NDArray[np.void], where: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether the local end of each of these rows is a listener's.

        The port alone does not tell: the same number may be a client's on another address.
        """
        port = table["idiag_sport"][where]
        served: NDArray[np.bool_] = self.ports[port]
        rivals: dict[int, list[Key]] = {}
        for key in self.keys:
            rivals.setdefault(key[0], []).append(key)
        for number in np.flatnonzero(np.bincount(port[served], minlength=1)).tolist():
            if not any(key[1:] == ANY6 for key in rivals[number]):
                there = np.flatnonzero(port == number)
                raw = np.ascontiguousarray(table["idiag_src"][where[there]])
                v4 = table["idiag_family"][where[there]] == uapi.AF_INET
                served[there] = np.logical_or.reduce([takes(key, raw, v4) for key in rivals[number]])
        return served


def keys_of(listening: NDArray[np.void]) -> list[Key]:
    """The key of each of these rows of listeners."""
    high, low = _halves(listening)
    return list(zip(listening["idiag_sport"].tolist(), high.tolist(), low.tolist(), strict=True))


def takes(key: Key, raw: NDArray[np.uint8], v4: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a listener takes what comes for these local addresses, shape (rows, 16)."""
    if key[1:] == ANY6:
        return np.ones(len(raw), np.bool_)
    address = key[1].to_bytes(8, "big") + key[2].to_bytes(8, "big")
    if key[1:] == ANY4:
        return np.asarray(v4 | (raw[:, :12] == np.frombuffer(address[:12], np.uint8)).all(axis=1))
    same = ~v4 & _equal(raw, address)
    if address.startswith(_MAPPED_PREFIX):
        same |= v4 & _equal(raw, address[12:].ljust(16, b"\0"))
    return same


def _equal(raw: NDArray[np.uint8], address: bytes) -> NDArray[np.bool_]:
    halves, (high, low) = raw.view(np.uint64), np.frombuffer(address, np.uint64)
    return np.asarray((halves[:, 0] == high) & (halves[:, 1] == low))


def _halves(table: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Local addresses as two host-order halves, IPv4 as IPv4-mapped."""
    halves = np.ascontiguousarray(table["idiag_src"]).view(">u8").astype(np.uint64)
    v4 = table["idiag_family"] == uapi.AF_INET
    mapped = (halves[:, 0] >> np.uint64(32)) | np.uint64(_MAPPED)
    return np.where(v4, np.uint64(0), halves[:, 0]), np.where(v4, mapped, halves[:, 1])
