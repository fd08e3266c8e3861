"""Decode tcp_info: all fields of one socket, or the fields for throughput of many sockets.

Source: struct tcp_info in include/uapi/linux/tcp.h. Kernels append fields, so that old kernels send fewer bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.array_pool import ArrayPool, GrowingTable
from tcpwatch.kernel.netlink import uapi

_PLACES = {name: (place[0].itemsize, place[1]) for name, place in (uapi.TCP_INFO.fields or {}).items()}
"""Field → (bytes, offset)."""


def info_fields(payload: bytes) -> dict[str, int]:
    """Return the fields of struct tcp_info that are completely inside `payload`, with bit fields split."""
    padded = np.frombuffer(payload.ljust(uapi.TCP_INFO.itemsize, b"\0"), uapi.TCP_INFO, 1)[0]
    info = {name.removeprefix("tcpi_"): int(padded[name]) for name in _PLACES if has_field(name, len(payload))}
    if "wscale" in info:
        wscale = info.pop("wscale")
        info["snd_wscale"], info["rcv_wscale"] = wscale & 0xF, wscale >> 4
    if "flags" in info:
        flags = info.pop("flags")
        info["delivery_rate_app_limited"], info["fastopen_client_fail"] = flags & 1, flags >> 1 & 3
    return info


def has_field(name: str, info_bytes: int) -> bool:
    """Return whether the first `info_bytes` bytes of struct tcp_info include this field."""
    size, offset = _PLACES[name]
    return offset + size <= info_bytes


@dataclass(frozen=True, slots=True, eq=False)
class TcpInfoDump:
    """tcp_info of many sockets, in the kernel's order."""

    table: NDArray[np.void]
    """uapi.FLOW_INFO; fields that were not sent are 0."""
    received_monotonic_s: NDArray[np.float64]
    """Monotonic seconds at which each row was received: a dump of many sockets takes time."""
    info_bytes: int
    """Bytes of struct tcp_info that this kernel sends (see has_field)."""


class TcpInfoCollector:
    """The tcp_info of one dump, collected while it is decoded."""

    def __init__(self, tables: ArrayPool, expected: int) -> None:
        """`tables` is a pool of uapi.FLOW_INFO, `expected` an estimate of the number of sockets."""
        self.now = 0.0
        """Monotonic seconds at which the messages for the next add() were received."""
        self._figures = GrowingTable(tables, expected)
        self._when = [np.empty(0)]
        self._info_bytes = uapi.TCP_INFO.itemsize

    def add(self, words: NDArray[np.uint32], offsets: NDArray[np.intp], layout: Mapping[int, tuple[int, int]]) -> None:
        """Add the messages at these word offsets, unless they lack tcp_info. `layout`: AttributeSpans of them all."""
        if uapi.INET_DIAG_INFO not in layout:
            return
        wanted, known = [_COOKIE_WORDS], [np.ones(len(_COOKIE_WORDS), np.bool_)]
        for attribute, attribute_words in _GATHERED.items():
            place, size = layout.get(attribute, (0, 0))
            known.append(size > 4 * attribute_words)
            wanted.append(np.where(known[-1], place + 1 + attribute_words, 0))
        rows = self._figures.reserve(len(offsets)).view(np.uint32).reshape(len(offsets), -1)
        np.take(words, offsets[:, None] + np.concatenate(wanted), out=rows, mode="clip")
        rows[:, ~np.concatenate(known)] = 0
        self._info_bytes = min(self._info_bytes, layout[uapi.INET_DIAG_INFO][1])
        self._when.append(np.full(len(offsets), self.now))

    def all(self) -> TcpInfoDump:
        """Return what was collected."""
        return TcpInfoDump(self._figures.written_rows(), np.concatenate(self._when), self._info_bytes)


_NAMES = [name for name in uapi.FLOW_INFO.names or () if name in _PLACES]


def _words_of(name: str) -> list[int]:
    size, offset = _PLACES[name]
    return list(range(offset // 4, (offset + size + 3) // 4))


_COOKIE_AT = {name: place[1] for name, place in (uapi.INET_DIAG_MSG.fields or {}).items()}["idiag_cookie"]
_COOKIE_WORDS = (uapi.NLMSG_HDRLEN + _COOKIE_AT) // 4 + np.arange(2)
"""Word offsets of the cookie in a message."""
_INFO_WORDS = np.array(list(dict.fromkeys(word for name in _NAMES for word in _words_of(name))))
"""Word offsets in tcp_info of the other fields of uapi.FLOW_INFO: they are whole words, which are copied unchanged."""
_GATHERED = {uapi.INET_DIAG_INFO: _INFO_WORDS, uapi.INET_DIAG_CONG: np.arange(uapi.TCP_CA_NAME_MAX // 4)}
"""Attribute → the words of its payload that fill uapi.FLOW_INFO after the cookie, in the order of its fields."""
REQUEST_BITS = sum(1 << (attribute - 1) for attribute in _GATHERED)
"""The bits of `idiag_ext` that request what TcpInfoCollector gathers."""
