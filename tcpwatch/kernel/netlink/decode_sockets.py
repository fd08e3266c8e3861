"""Decode inet_diag messages into rows of a socket table, through numpy views of the kernel's bytes.

A dump consists of datagrams of up to 32 KiB, each a sequence of netlink messages whose length differs by state. Every
header has the request's sequence number, so that one comparison finds all headers. Messages of equal length and equal
attribute headers are then copied with one gather. Every length is checked before it is used: no input leads to a read
outside the buffer (tests/kernel/netlink/test_decode_sockets.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.tcp_info import TcpInfoCollector

_HEADER_WORDS = uapi.NLMSG_HDRLEN >> 2
_MSG_WORDS = uapi.INET_DIAG_MSG.itemsize >> 2
_MSG = np.dtype(f"V{uapi.INET_DIAG_MSG.itemsize}")

Words = NDArray[np.uint32]
"""The receive buffer as host-order 32-bit words: netlink aligns messages and attributes to 4 bytes."""
Offsets = NDArray[np.intp]
"""Word offsets of message headers in such a buffer."""
Drops = NDArray[np.uint32]
"""sk_drops of each socket."""


class MessageError(ValueError):
    """Raised when bytes are not valid sock_diag messages; the text is the reason."""


def message_offsets(words: Words, begin: int, end: int, sequence: int) -> Offsets:
    """Return the word offsets of all messages between the word offsets `begin` and `end`.

    `sequence` is the sequence number of most of them. If the distance between its occurrences always equals the length
    in the message header, the occurrences are the headers. Raises MessageError if a length is shorter than a header or
    leads beyond `end`.
    """
    offsets = np.flatnonzero(words[begin + 2 : end] == sequence) + begin
    if len(offsets) and offsets[0] == begin:
        steps = (words[offsets] + 3) >> 2
        after = offsets + steps
        if steps.min() >= _HEADER_WORDS and after[-1] == end and bool((after[:-1] == offsets[1:]).all()):
            return offsets
    return _followed(words, begin, end)


def _followed(words: Words, begin: int, end: int) -> Offsets:
    """Return message_offsets() by following the lengths one by one, 0.1 µs per message."""
    lengths = words[begin:end].tolist()
    size, at, offsets = end - begin, 0, []
    while at < size:
        offsets.append(at)
        step = (lengths[at] + 3) >> 2
        if step < _HEADER_WORDS or at + step > size:
            raise MessageError(f"a netlink message of {lengths[at]} bytes where {4 * (size - at)} are left")
        at += step
    return np.array(offsets, np.intp) + begin


def type_and_flags(words: Words, at: int) -> tuple[int, int]:
    """Return nlmsg_type and nlmsg_flags of the message at word offset `at`."""
    kind, flags = words[at + 1 : at + 2].view(np.uint16).tolist()
    return kind, flags


def decode_sockets(
    words: Words,
    offsets: Offsets,
    table: NDArray[np.void],
    drops: Drops | None = None,
    infos: TcpInfoCollector | None = None,
) -> bool:
    """Decode the socket messages at `offsets` (from message_offsets(), so that each is inside `words`) into `table`.

    `table` (uapi.SOCKET) and `drops` (sk_drops if SKMEMINFO was requested, otherwise 0) have a row for each offset; the
    order of rows is arbitrary. `infos` collects tcp_info if a message has it. Returns whether a message has the flag
    NLM_F_DUMP_INTR: the kernel noticed a change of its table. Raises MessageError for messages of other types and for
    invalid lengths.
    """
    type_and_flags = words[offsets + 1]
    types = type_and_flags & 0xFFFF
    strange = (types != uapi.TCPDIAG_GETSOCK) & (types != uapi.SOCK_DIAG_BY_FAMILY)
    if strange.any():
        raise MessageError(f"a netlink message of type {types[strange][0]} inside a socket dump")
    rest, done = offsets, 0
    while len(rest):
        alike, rest, layout = same_layout(words, rest)
        part = slice(done, done + len(alike))
        _copy(words, alike, layout, table[part])
        if drops is not None:
            drops[part] = _drops(words, alike, layout)
        if infos is not None:
            infos.add(words, alike, layout)
        done = part.stop
    return bool((type_and_flags >> 16 & uapi.NLM_F_DUMP_INTR).any())


AttributeSpans = dict[int, tuple[int, int]]
"""Attribute type → (word offset of its header from the message's, payload bytes)."""


def same_layout(words: Words, offsets: Offsets) -> tuple[Offsets, Offsets, AttributeSpans]:
    """Split messages into those with the length and the attribute headers of the first one, and the rest."""
    layout = attribute_spans(words, int(offsets[0]))
    same = np.ones(len(offsets), bool)
    for place in (0, *(place for place, _ in layout.values())):
        # A message shorter than the first one may end before `place`; its length has already excluded it.
        headers = words[np.minimum(offsets + place, len(words) - 1)] if place else words[offsets]
        same &= headers == headers[0]
    if same.all():
        return offsets, offsets[:0], layout
    return offsets[same], offsets[~same], layout


def attribute_spans(words: Words, at: int) -> AttributeSpans:
    """Return the attributes of the message at word offset `at`. Raises MessageError if a length is invalid."""
    length, place = int(words[at]), _HEADER_WORDS + _MSG_WORDS
    if length < 4 * place:
        raise MessageError(f"a socket message of {length} bytes; inet_diag_msg alone needs {4 * place}")
    layout: AttributeSpans = {}
    while 4 * place + uapi.NLA_HDRLEN <= length:
        size, kind = words[at + place : at + place + 1].view(np.uint16).tolist()
        if size < uapi.NLA_HDRLEN or 4 * place + size > length:
            raise MessageError(f"a socket attribute of {size} bytes where {length - 4 * place} are left")
        if kind in layout:
            layout[-place] = layout[kind]  # the last one counts; this one still distinguishes layouts
        layout[kind] = (place, size - uapi.NLA_HDRLEN)
        place += (size + 3) >> 2
    return layout


def _copy(words: Words, offsets: Offsets, layout: AttributeSpans, table: NDArray[np.void]) -> None:
    """Fill `table` from messages with the same `layout`."""
    every = np.ndarray(len(words) - _MSG_WORDS + 1, _MSG, words, 0, (4,))
    np.ndarray(len(table), _MSG, table, 0, table.strides)[:] = every[offsets + _HEADER_WORDS]
    cgroup = _payload(layout, uapi.INET_DIAG_CGROUP_ID, 8)
    if cgroup:  # a u64 on a 4-byte boundary: two words, in host order
        pair = np.stack((words[offsets + cgroup], words[offsets + cgroup + 1]), axis=1)
        table["cgroup_id"] = pair.view(np.uint64)[:, 0]
    else:
        table["cgroup_id"] = 0
    shutdown = _payload(layout, uapi.INET_DIAG_SHUTDOWN, 1)
    table["shutdown"] = words.view(np.uint8)[4 * (offsets + shutdown)] if shutdown else 0
    table["has"] = bool(cgroup) * uapi.HAS_CGROUP_ID | bool(shutdown) * uapi.HAS_SHUTDOWN
    if v6only := _payload(layout, uapi.INET_DIAG_SKV6ONLY, 1):
        table["has"] |= (words.view(np.uint8)[4 * (offsets + v6only)] != 0) * np.uint8(uapi.IS_V6ONLY)
    if options := _payload(layout, uapi.INET_DIAG_SOCKOPT, 1):
        transparent = (words.view(np.uint8)[4 * (offsets + options)] & uapi.SOCKOPT_TRANSPARENT) != 0
        if transparent.any():
            table["has"] |= transparent * np.uint8(uapi.IS_TRANSPARENT)


def _drops(words: Words, offsets: Offsets, layout: AttributeSpans) -> Drops | int:
    memory = _payload(layout, uapi.INET_DIAG_SKMEMINFO, 4 * (uapi.SK_MEMINFO_DROPS + 1))
    return words[offsets + memory + uapi.SK_MEMINFO_DROPS] if memory else 0


def _payload(layout: AttributeSpans, kind: int, least: int) -> int:
    """Return the word offset of an attribute's payload in its message; 0 if it is absent or too short."""
    place, size = layout.get(kind, (0, 0))
    return place + 1 if size >= least else 0
