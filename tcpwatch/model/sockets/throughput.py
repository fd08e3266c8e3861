"""Throughput: what two answers of tcp_info tell of each flow: bytes per second, and what holds its sending back.

Nothing is computed when a sample comes: the two answers stay as they are, and whoever draws fifty flows has those
fifty compared.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink.tcp_info import has_field
from tcpwatch.kernel.netlink.uapi import TCP_CA_NAME_MAX
from tcpwatch.sample import TcpInfoTable

Cookies = NDArray[np.uint64]
Floats = NDArray[np.float64]


class SendLimit(enum.IntEnum):
    """What holds a flow's sending back; fits a uint8 column."""

    UNKNOWN = 0
    APPLICATION = 1
    """It sends what it is given, at once."""
    RECEIVER = 2
    """The peer's window is full."""
    SEND_BUFFER = 3
    """More would be on its way if SO_SNDBUF (tcp_wmem) let the application hand it over."""
    NETWORK = 4
    """Data waits for the congestion window, for acknowledgements or for repeats."""

    @property
    def word(self) -> str | None:
        """The value of the column; None where it is not known."""
        return self.name.lower().replace("_", " ") if self else None


@dataclass(frozen=True, slots=True, eq=False)
class Throughput:
    """The last answers, and those before them. Every figure is NaN, or UNKNOWN, where it was not told.

    A flow that is not among the last answers has gone, or its socket has no tcp_info any more (TIME_WAIT); one that
    came after those before has no rates yet.
    """

    last: TcpInfoTable | None = None
    before: TcpInfoTable | None = None

    def after(self, infos: TcpInfoTable | None) -> Throughput:
        """With the infos of the next sample, which may not have asked for any."""
        return self if infos is None else Throughput(infos, self.last)

    def rx_bytes_per_s(self, cookies: Cookies) -> Floats:
        """Bytes per second that came in order (tcpi_bytes_received; a FIN counts as one)."""
        return self._per_s("tcpi_bytes_received", cookies)

    def tx_bytes_per_s(self, cookies: Cookies) -> Floats:
        """Bytes per second that the peer has acknowledged (tcpi_bytes_acked; SYN and FIN count as one each)."""
        return self._per_s("tcpi_bytes_acked", cookies)

    def retransmits_per_s(self, cookies: Cookies) -> Floats:
        """Segments repeated per second (tcpi_total_retrans)."""
        return self._per_s("tcpi_total_retrans", cookies)

    def retransmits(self, cookies: Cookies) -> Floats:
        """Segments repeated since the beginning (tcpi_total_retrans)."""
        return self._latest("tcpi_total_retrans", cookies)

    def rtt_us(self, cookies: Cookies) -> Floats:
        """Smoothed round trip time (tcpi_rtt). The kernel's 0 is one that was not measured yet."""
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
        """Limit: how each flow that sent spent the greatest part of the time between the two answers.

        The kernel keeps stop-watches of the time in which there is something to send or unacknowledged, in jiffies
        (tcp_chrono_start in net/ipv4/tcp_output.c, tcp_get_info_chrono_stats in net/ipv4/tcp.c): tcpi_busy_time is all
        of it, and tcpi_rwnd_limited and tcpi_sndbuf_limited are the parts of it in which the peer's window was full
        and in which the send buffer was. Outside it the flow waits for its application. The rest of it goes to the
        network, unless data arrived, nothing was repeated, and the kernel's last measure of the delivery rate ran out
        of data (tcp_rate_check_app_limited): then a round trip was waited for with nothing more to send. No threshold
        is needed: the longest wins. Since Linux 4.10.
        """
        found = np.zeros(len(cookies), np.uint8)
        pair = self._pair("tcpi_sndbuf_limited", cookies)
        if pair is None:
            return found
        busy, receiver, buffer = (pair.grown(f"tcpi_{n}") for n in ("busy_time", "rwnd_limited", "sndbuf_limited"))
        rest = busy - receiver - buffer
        acked = pair.grown("tcpi_bytes_acked") > 0
        starved = ((pair.latest("tcpi_flags") & 1) != 0) & acked & (pair.grown("tcpi_total_retrans") == 0)
        idle = 1e6 * pair.seconds - busy
        spent = np.stack((idle + rest * starved, receiver, buffer, rest * ~starved))
        found[pair.where] = np.where(acked | (busy > 0), 1 + spent.argmax(axis=0), SendLimit.UNKNOWN)
        return found

    def _latest(self, name: str, cookies: Cookies) -> Floats:
        values = np.full(len(cookies), np.nan)
        if self.last is not None and has_field(name, self.last.info_bytes):
            where, at = _found(self.last, cookies)
            values[where] = self.last.table[name][at]
        return values

    def _per_s(self, name: str, cookies: Cookies) -> Floats:
        values = np.full(len(cookies), np.nan)
        if pair := self._pair(name, cookies):
            grown = pair.grown(name)
            values[pair.where] = np.where(grown >= 0, grown / pair.seconds, np.nan)  # TCP_REPAIR may set them back
        return values

    def _pair(self, name: str, cookies: Cookies) -> _Pair | None:
        """The flows of these that both answers have; None where the kernel does not tell a field."""
        last, before = self.last, self.before
        if last is None or before is None or not has_field(name, min(last.info_bytes, before.info_bytes)):
            return None
        where, at = _found(last, cookies)
        known, earlier = _found(before, cookies[where])
        return _Pair(where[known], last, at[known], before, earlier)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Two answers about the same flows, in the same order."""

    where: NDArray[np.intp]
    """Where they are among the cookies that were asked about."""
    last: TcpInfoTable
    at: NDArray[np.intp]
    before: TcpInfoTable
    earlier: NDArray[np.intp]
    """Where they are in the two."""

    @property
    def seconds(self) -> Floats:
        """The time between the two."""
        return self.last.received_monotonic_s[self.at] - self.before.received_monotonic_s[self.earlier]

    def latest(self, name: str) -> NDArray[Any]:
        """A field as it was told last."""
        return self.last.table[name][self.at]

    def grown(self, name: str) -> Floats:
        """By how much a counter grew."""
        before = self.before.table[name][self.earlier]
        return (self.latest(name).astype(np.int64) - before.astype(np.int64)).astype(np.float64)


def _found(infos: TcpInfoTable, cookies: Cookies) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of the cookies have infos, and where these are."""
    if not len(infos.cookie):
        none = np.empty(0, np.intp)
        return none, none
    at = np.searchsorted(infos.cookie, cookies)
    at[at == len(infos.cookie)] = 0
    where = np.flatnonzero(infos.cookie[at] == cookies)
    return where, at[where]
