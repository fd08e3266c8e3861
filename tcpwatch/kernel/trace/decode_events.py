"""Decode payloads of one tracepoint into rows of TRACE_EVENT, by the fields of its format.

Sources: include/trace/events/{sock,tcp,skb}.h, TP_STORE_ADDR_PORTS in include/trace/events/net_probe_common.h.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.event_format import EventFormat
from tcpwatch.kernel.trace.ring_buffer import Words
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.kernel.trace.tracefs import TraceError

_SOCKADDR = 28
"""sizeof(struct sockaddr_in6): the type of both endpoints in tcp_send_reset of Linux 6.10 and later."""
_SOCKETS = ("skaddr", "sk", "rx_sk")
"""Names of the field with the socket's kernel address."""
_ENDS = ("sport", "dport", "family", "saddr", "daddr", "saddr_v6", "daddr_v6")


_ARRAYS = {"saddr": 4, "daddr": 4, "saddr_v6": 16, "daddr_v6": 16}
"""Fields that are addresses → bytes; saddr and daddr may also be a sockaddr. All others used here are numbers."""
_NUMBERS = (*_SOCKETS, "common_pid", "sock_cookie", "reason", "error", "oldstate", "newstate", "state", *_ENDS[:3])


def check_fields(form: EventFormat) -> None:
    """Raise TraceError if fields that decode_trace_events() uses have other types."""
    types = {name: place[0] for name, place in (form.dtype.fields or {}).items()}
    numbers = [name for name in _NUMBERS if name in types and types[name].shape]
    arrays = [
        name
        for name, size in _ARRAYS.items()
        if name in types and types[name] != (np.uint8, (size,)) and types[name] != (np.uint8, (_SOCKADDR,))
    ]
    mixed = form.has(*_ENDS) and any(types[name].itemsize != size for name, size in _ARRAYS.items())
    if "common_pid" not in types or numbers or arrays or mixed:
        raise TraceError(errno.EPROTO, "tracefs describes an event whose fields have unexpected types")


def payloads(words: Words, at: NDArray[np.intp], size: NDArray[np.intp], form: EventFormat) -> NDArray[np.void]:
    """Return the structs of `form` at the word offsets `at`, of `size` words. Raises TraceError if one is shorter."""
    need = form.dtype.itemsize
    if len(size) and 4 * int(size.min()) < need:
        raise TraceError(errno.EPROTO, f"the trace has an event of {4 * int(size.min())} bytes, {need} were described")
    every = np.ndarray(max(0, len(words) - (need + 3 >> 2) + 1), f"V{need}", words, 0, (4,))
    return every[at].view(form.dtype)


def decode_trace_events(
    kind: TraceEventKind, form: EventFormat, payload: NDArray[np.void], time: NDArray[np.int64]
) -> NDArray[np.void]:
    """Return TRACE_EVENT rows from payloads and their times (ns); `form` has passed check_fields()."""
    out = np.zeros(len(payload), TRACE_EVENT)
    out["kind"] = kind
    out["time"] = time * 1e-9
    out["pid"] = payload["common_pid"]
    for name in _SOCKETS:
        if form.has(name):
            out["socket"] = payload[name]
    if form.has("sock_cookie"):
        out["cookie"] = payload["sock_cookie"]
    for name in ("reason", "error"):
        if form.has(name):
            out["reason"] = payload[name]
    if form.has("oldstate", "newstate"):
        last = uapi.TCP_NEW_SYN_RECV - 1
        out["old"], out["new"] = _states(payload["oldstate"], last), _states(payload["newstate"], last)
    elif form.has("state"):
        out["old"] = out["new"] = _states(payload["state"], uapi.TCP_NEW_SYN_RECV)
    if form.has(*_ENDS):
        _fields(out, payload)
    elif form.has("saddr", "daddr") and payload.dtype["saddr"].itemsize == payload.dtype["daddr"].itemsize == _SOCKADDR:
        _sockaddrs(out, payload)
    return out


def _states(numbers: NDArray[Any], last: int) -> NDArray[Any]:
    """Return the numbers of states from 1 to `last`, and 0 for others."""
    return np.where((numbers > 0) & (numbers <= last), numbers, 0)


def _fields(out: NDArray[np.void], payload: NDArray[np.void]) -> None:
    """Copy endpoints in the usual fields. Of AF_INET the address in saddr_v6, which is IPv4-mapped, is ignored."""
    for name in ("sport", "dport"):
        out[name] = payload[name]
    out["family"] = payload["family"]
    is_v4 = payload["family"] == uapi.AF_INET
    for to, name in (("src", "saddr"), ("dst", "daddr")):
        short, long = payload[name], payload[f"{name}_v6"]
        if is_v4.all():
            out[to][:, :4] = short
        else:
            out[to] = long
            out[to][is_v4] = 0
            out[to][is_v4, :4] = short[is_v4]


def _sockaddrs(out: NDArray[np.void], payload: NDArray[np.void]) -> None:
    """Copy endpoints in struct sockaddr_in or sockaddr_in6: family in host order, port in network order."""
    for to, port, name in (("src", "sport", "saddr"), ("dst", "dport", "daddr")):
        address = np.ascontiguousarray(payload[name])
        family = address[:, :2].view("=u2")[:, 0]
        out["family"] = np.maximum(out["family"], family.astype(np.uint8))
        out[port] = address[:, 2:4].view(">u2")[:, 0]
        is_v4 = family == uapi.AF_INET
        out[to][is_v4, :4] = address[is_v4, 4:8]
        out[to][~is_v4] = address[~is_v4, 8:24]
