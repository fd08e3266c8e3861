"""Throughput: bytes per second of each connection, and what limits its sending, from two dumps of tcp_info.

Nothing is computed when a sample arrives. The figures are computed for the connections that are drawn.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.kernel.netlink.uapi import TCP_CA_NAME_MAX
from tcpwatch.model.sockets.payload import acked_bytes, received_bytes
from tcpwatch.model.states import State
from tcpwatch.sample import TcpInfoTable

Cookies = NDArray[np.uint64]
Floats = NDArray[np.float64]


class SendLimit(enum.IntEnum):
    """The limit of the sending of a connection; fits a uint8 column."""

    UNKNOWN = 0
    APPLICATION = 1
    """All data is sent at once."""
    RECEIVER = 2
    """The peer's receive window is full."""
    SEND_BUFFER = 3
    """The send buffer (SO_SNDBUF, tcp_wmem) is full."""
    NETWORK = 4
    """Data waits for the congestion window, for acknowledgements or for retransmits."""

    @property
    def word(self) -> str | None:
        """Return the value of the column; None where it is unknown."""
        return self.name.lower().replace("_", " ") if self else None


@dataclass(frozen=True, slots=True, eq=False)
class Throughput:
    """The last two dumps of tcp_info. A figure is NaN, or UNKNOWN, where it is not known.

    A connection that is not in the last dump is closed or in TIME_WAIT, which has no tcp_info. One that is in the last
    dump alone has no rates yet.
    """

    last: TcpInfoTable | None = None
    before: TcpInfoTable | None = None

    def after(self, infos: TcpInfoTable | None) -> Throughput:
        """Return the throughput after the next sample, which may have no dump of tcp_info."""
        return self if infos is None else Throughput(infos, self.last)

    def rx_bytes_per_s(self, cookies: Cookies) -> Floats:
        """Return bytes of data per second received in order (tcpi_bytes_received)."""
        pair = self._pair("tcpi_bytes_received", cookies)
        return _per_s(pair, pair.received(), cookies) if pair else _none(cookies)

    def tx_bytes_per_s(self, cookies: Cookies) -> Floats:
        """Return bytes of data per second acknowledged by the peer (tcpi_bytes_acked)."""
        pair = self._pair("tcpi_bytes_acked", cookies)
        return _per_s(pair, pair.acked(), cookies) if pair else _none(cookies)

    def retransmits_per_s(self, cookies: Cookies) -> Floats:
        """Return retransmitted segments per second (tcpi_total_retrans)."""
        pair = self._pair("tcpi_total_retrans", cookies)
        return _per_s(pair, pair.grown("tcpi_total_retrans"), cookies) if pair else _none(cookies)

    def retransmits(self, cookies: Cookies) -> Floats:
        """Return segments retransmitted since the connection began (tcpi_total_retrans)."""
        return self._latest("tcpi_total_retrans", cookies)

    def rtt_us(self, cookies: Cookies) -> Floats:
        """Return the smoothed round trip time (tcpi_rtt); NaN where it was not measured yet (0 in the kernel)."""
        rtt = self._latest("tcpi_rtt", cookies)
        rtt[rtt == 0] = np.nan
        return rtt

    def congestion(self, cookies: Cookies) -> NDArray[np.bytes_]:
        """Return the name of each flow's congestion control algorithm (INET_DIAG_CONG); empty where it is not known."""
        names = np.zeros(len(cookies), f"S{TCP_CA_NAME_MAX}")
        if self.last is not None:
            where, at = _found(self.last, cookies)
            names[where] = self.last.table["congestion"][at]
        return names

    def send_limits(self, cookies: Cookies) -> NDArray[np.uint8]:
        """Return for each connection that sent data the SendLimit that held for most of the time between the dumps.

        The kernel measures the time in which data is unsent or unacknowledged, in jiffies (tcp_chrono_start in
        net/ipv4/tcp_output.c, tcp_get_info_chrono_stats in net/ipv4/tcp.c): tcpi_busy_time is all of it;
        tcpi_rwnd_limited and tcpi_sndbuf_limited are the parts with a full receive window of the peer and with a full
        send buffer. The time outside tcpi_busy_time counts as APPLICATION. The rest of tcpi_busy_time counts as
        NETWORK, unless data was acknowledged, nothing was retransmitted, and the last delivery rate was limited by the
        application (tcp_rate_check_app_limited): then the sender waited a round trip with nothing more to send. The
        longest time wins. Since Linux 4.10.
        """
        limits = np.zeros(len(cookies), np.uint8)
        pair = self._pair("tcpi_sndbuf_limited", cookies)
        if pair is None:
            return limits
        busy, receiver, buffer = (pair.grown(f"tcpi_{n}") for n in ("busy_time", "rwnd_limited", "sndbuf_limited"))
        rest = busy - receiver - buffer
        acked = pair.grown("tcpi_bytes_acked") > 0
        starved = ((pair.latest("tcpi_flags") & 1) != 0) & acked & (pair.grown("tcpi_total_retrans") == 0)
        idle = 1e6 * pair.seconds - busy
        spent = np.stack((idle + rest * starved, receiver, buffer, rest * ~starved))
        limits[pair.where] = np.where(acked | (busy > 0), 1 + spent.argmax(axis=0), SendLimit.UNKNOWN)
        return limits

    def _latest(self, name: str, cookies: Cookies) -> Floats:
        values = np.full(len(cookies), np.nan)
        if self.last is not None and has_field(name, self.last.info_bytes):
            where, at = _found(self.last, cookies)
            values[where] = self.last.table[name][at]
        return values

    def _pair(self, name: str, cookies: Cookies) -> _Pair | None:
        """Return the connections that are in both dumps; None where a dump is missing or lacks the field."""
        last, before = self.last, self.before
        if last is None or before is None or not has_field(name, min(last.info_bytes, before.info_bytes)):
            return None
        where, at = _found(last, cookies)
        known, earlier = _found(before, cookies[where])
        return _Pair(where[known], last, at[known], before, earlier)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The same connections in both dumps, in the same order."""

    where: NDArray[np.intp]
    """Indices into the cookies that were asked for."""
    last: TcpInfoTable
    at: NDArray[np.intp]
    before: TcpInfoTable
    earlier: NDArray[np.intp]
    """Indices into `last` and `before`."""

    @property
    def seconds(self) -> Floats:
        """Return the time between the two dumps."""
        return self.last.received_monotonic_s[self.at] - self.before.received_monotonic_s[self.earlier]

    def latest(self, name: str) -> NDArray[Any]:
        """Return the values of a field in the last dump."""
        return self.last.table[name][self.at]

    def earliest(self, name: str) -> NDArray[Any]:
        """Return the values of a field in the dump before it."""
        return self.before.table[name][self.earlier]

    def grown(self, name: str) -> Floats:
        """Return how much a counter grew."""
        return (self.latest(name).astype(np.int64) - self.earliest(name).astype(np.int64)).astype(np.float64)

    def received(self) -> NDArray[np.int64]:
        """Return the bytes of data received."""
        before, last = (
            received_bytes(read("tcpi_bytes_received"), read("tcpi_state")) for read in (self.earliest, self.latest)
        )
        return last - before

    def acked(self) -> NDArray[np.int64]:
        """Return the bytes of data acknowledged."""
        connected = self.earliest("tcpi_state") == State.SYN_SENT  # then the last dump alone counts the SYN
        before, last = (
            acked_bytes(read("tcpi_bytes_acked"), read("tcpi_state"), connected)
            for read in (self.earliest, self.latest)
        )
        return last - before


def _none(cookies: Cookies) -> Floats:
    return np.full(len(cookies), np.nan)


def _per_s(pair: _Pair, grown: NDArray[Any], cookies: Cookies) -> Floats:
    values = _none(cookies)
    values[pair.where] = np.where(grown >= 0, grown / pair.seconds, np.nan)  # TCP_REPAIR may reset the counters
    return values


def _found(infos: TcpInfoTable, cookies: Cookies) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the cookies that are in a dump, and their indices in the dump."""
    at = find_sorted(infos.cookie, cookies)
    where = np.flatnonzero(at != NOT_FOUND)
    return where, at[where]
