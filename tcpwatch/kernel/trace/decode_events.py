"""Payloads of one tracepoint in, rows of TRACE_EVENT out, by what its format says that they have.

Sources: include/trace/events/{sock,tcp,skb}.h, TP_STORE_ADDR_PORTS in include/trace/events/net_probe_common.h.
"""

from __future__ import annotations

import errno

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.event_format import EventFormat
from tcpwatch.kernel.trace.ring_buffer import Words
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind
from tcpwatch.kernel.trace.tracefs import TraceError

_SOCKADDR = 28
"""sizeof(struct sockaddr_in6): tcp_send_reset of Linux 6.10 and later has its ends so."""
_SOCKETS = ("skaddr", "sk", "rx_sk")
"""What a tracepoint calls the socket's kernel address."""
_ENDS = ("sport", "dport", "family", "saddr", "daddr", "saddr_v6", "daddr_v6")


def payloads(words: Words, at: NDArray[np.intp], size: NDArray[np.intp], form: EventFormat) -> NDArray[np.void]:
    """The structs of `form` at the word offsets `at`, of `size` words; raises TraceError where they are shorter."""
    need = form.dtype.itemsize
    if len(size) and 4 * int(size.min()) < need:
        raise TraceError(errno.EPROTO, f"the trace has an event of {4 * int(size.min())} bytes, {need} were described")
    every = np.ndarray(max(0, len(words) - (need + 3 >> 2) + 1), f"V{need}", words, 0, (4,))
    return every[at].view(form.dtype)


def decode_trace_events(
    kind: TraceEventKind, form: EventFormat, told: NDArray[np.void], time: NDArray[np.int64]
) -> NDArray[np.void]:
    """TRACE_EVENT of payloads and their times (ns)."""
    out = np.zeros(len(told), TRACE_EVENT)
    out["kind"] = kind
    out["time"] = time * 1e-9
    out["pid"] = told["common_pid"]
    for name in _SOCKETS:
        if form.has(name):
            out["socket"] = told[name]
    if form.has("sock_cookie"):
        out["cookie"] = told["sock_cookie"]
    for name in ("reason", "error"):
        if form.has(name):
            out["reason"] = told[name]
    if form.has("oldstate", "newstate"):
        out["old"], out["new"] = told["oldstate"], told["newstate"]
    elif form.has("state"):
        out["old"] = out["new"] = told["state"]
    if form.has(*_ENDS):
        _fields(out, told)
    elif form.has("saddr", "daddr") and told.dtype["saddr"].itemsize >= _SOCKADDR:
        _sockaddrs(out, told)
    return out


def _fields(out: NDArray[np.void], told: NDArray[np.void]) -> None:
    """Ends as most tracepoints have them. The saddr_v6 of AF_INET, which is its address mapped, is not taken."""
    for name in ("sport", "dport"):
        out[name] = told[name]
    out["family"] = told["family"]
    is_v4 = told["family"] == uapi.AF_INET
    for to, name in (("src", "saddr"), ("dst", "daddr")):
        short, long = told[name], told[f"{name}_v6"]
        if is_v4.all():
            out[to][:, :4] = short
        else:
            out[to] = long
            out[to][is_v4] = 0
            out[to][is_v4, :4] = short[is_v4]


def _sockaddrs(out: NDArray[np.void], told: NDArray[np.void]) -> None:
    """Ends as struct sockaddr_in or sockaddr_in6: the family in the host's order, the port in the network's."""
    for to, port, name in (("src", "sport", "saddr"), ("dst", "dport", "daddr")):
        address = np.ascontiguousarray(told[name])
        family = address[:, :2].view("=u2")[:, 0]
        out["family"] = np.maximum(out["family"], family.astype(np.uint8))
        out[port] = address[:, 2:4].view(">u2")[:, 0]
        is_v4 = family == uapi.AF_INET
        out[to][is_v4, :4] = address[is_v4, 4:8]
        out[to][~is_v4] = address[~is_v4, 8:24]
