"""How flows ended, from what is known of each: the trace's thread, the final tcp_info, and what polls saw.

What the kernel does: net/ipv4/tcp.c (tcp_close, tcp_abort, tcp_disconnect), tcp_timer.c (tcp_write_err,
tcp_keepalive_timer), tcp_input.c (tcp_reset). `bytes_acked` counts the FIN, and the SYN of connect(), as a byte each
(RFC 4898), `bytes_sent` neither: so that the last tcp_info says whether our FIN was acknowledged.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.states import Closer, Role, State

_NEVER_MS = 600_000
"""last_data_sent of a socket that never had a connection is the host's uptime; a flow that no poll saw is younger."""


@dataclass(frozen=True, slots=True, eq=False)
class EndingEvidence:
    """Aligned columns, one row a flow whose full socket has ended."""

    state: NDArray[np.uint8]
    """The last one that is known before the end, 0 for none."""
    remaining_state: NDArray[np.uint8]
    """The small socket's state: TIME_WAIT, FIN_WAIT_2; 0 for none."""
    role: NDArray[np.uint8]
    closer: NDArray[np.uint8]
    queued: NDArray[np.bool_]
    """A poll saw it in the accept queue last, and its listener has gone."""
    info_known: NDArray[np.bool_]
    """`info` is there."""
    info: NDArray[np.void]
    """uapi.TCP_INFO"""
    disconnected: NDArray[np.bool_]
    """tcp_disconnect() took its ends: a failed connect(), or a reset by us."""
    traced: NDArray[np.void]
    """traced.THREAD; all 0 where there is none."""


def classify(evidence: EndingEvidence, reset_reasons: dict[str, int]) -> NDArray[np.uint8]:
    """Ending of each; `reset_reasons` is the kernel's name → its number."""
    traced = evidence.traced["visited"] != 0
    by_trace = _by_trace(evidence, reset_reasons)
    return np.where(traced, by_trace, _by_polls(evidence)).astype(np.uint8)


def fin_acknowledged(evidence: EndingEvidence) -> NDArray[np.bool_]:
    """Our FIN was acknowledged, says the final tcp_info."""
    info = evidence.info
    data = info["tcpi_bytes_sent"] - info["tcpi_bytes_retrans"]
    extra = info["tcpi_bytes_acked"].astype(np.int64) - data.astype(np.int64) - (evidence.role == Role.CLIENT)
    acknowledged: NDArray[np.bool_] = evidence.info_known & ~evidence.disconnected & (extra >= 1)
    return acknowledged


def _unanswered(evidence: EndingEvidence) -> NDArray[np.bool_]:
    """Something was sent again, or probed, in vain."""
    info = evidence.info
    waits = (info["tcpi_retransmits"] > 0) | (info["tcpi_backoff"] > 0) | (info["tcpi_probes"] > 0)
    return evidence.info_known & waits & ~evidence.disconnected


def _by_trace(evidence: EndingEvidence, reasons: dict[str, int]) -> NDArray[np.uint8]:
    threads = evidence.traced
    last, reset_in, error = threads["last"], threads["reset_in"], threads["error"]
    calling, torn = last == State.SYN_SENT, reset_in != 0

    def because(name: str) -> NDArray[np.bool_]:
        """Reset for this reason; kernels before 6.10 tell none."""
        found: NDArray[np.bool_] = torn & (threads["reason"] == reasons.get(name, -1))
        return found

    # A reset that was sent before the change to CLOSE is no application's: tcp_abort(), or a timer.
    before = torn & (reset_in != State.CLOSED)
    repeated = threads["retransmitted"] > 0
    fin = fin_acknowledged(evidence) | ~evidence.info_known
    # close() frees at once what waits in SYN_SENT; after a timeout the application has to close it.
    freed_at_once = threads["destroyed"] - threads["closed"] < 1e-3
    vain = _unanswered(evidence) | (repeated & ~evidence.disconnected)
    return _first(
        (because("TCP_ABORT_ON_DATA"), Ending.RESET_SENT),  # the segment that it answers is told as a reset received
        (threads["reset_received"] & calling, Ending.REFUSED),
        (threads["reset_received"], Ending.RESET_RECEIVED),
        (error == errno.ECONNABORTED, Ending.KILLED),
        (error == errno.ETIMEDOUT, Ending.TIMED_OUT),
        ((error != 0) & np.isin(last, _OPENING), Ending.UNREACHABLE),
        (before & because("TCP_KEEPALIVE_TIMEOUT"), Ending.TIMED_OUT),
        (before & because("TCP_STATE"), Ending.KILLED),
        (torn & evidence.queued, Ending.NOT_ACCEPTED),
        (torn, Ending.RESET_SENT),
        (calling & freed_at_once & ~evidence.disconnected, Ending.GIVEN_UP),
        (calling & repeated, Ending.TIMED_OUT),
        (calling & evidence.disconnected, Ending.GIVEN_UP),
        ((last == State.CLOSING) & fin, Ending.AT_ONCE),
        ((last == State.LAST_ACK) & fin, Ending.BY_PEER),
        (last == State.FIN_WAIT_2, Ending.BY_US),
        (np.isin(last, _SENDING) & vain, Ending.TIMED_OUT),
    )


_SENDING = (
    State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK, State.SYN_RCVD,
)  # fmt: skip
"""States in which something waits for an answer that may never come."""

_OPENING = (State.SYN_SENT, State.SYN_RCVD)


def _by_polls(evidence: EndingEvidence) -> NDArray[np.uint8]:
    state, info, told, bare = evidence.state, evidence.info, evidence.info_known, evidence.disconnected
    fin, waits = fin_acknowledged(evidence), evidence.remaining_state != 0
    calling = state == State.SYN_SENT
    was_open = told & (((state != 0) & ~calling) | (info["tcpi_last_data_sent"] < _NEVER_MS))
    # The peer's FIN counts in bytes_received: without data it says whether that came.
    alone = told & (info["tcpi_data_segs_in"] == 0) & (info["tcpi_bytes_received"] == 0)
    return _first(
        (waits & (evidence.closer == Closer.BOTH), Ending.AT_ONCE),
        (waits, Ending.BY_US),
        (bare & evidence.queued, Ending.NOT_ACCEPTED),
        (bare & was_open, Ending.RESET_SENT),
        (bare, Ending.UNKNOWN),
        (fin & (state == State.CLOSING), Ending.AT_ONCE),
        (fin & np.isin(state, (State.CLOSE_WAIT, State.LAST_ACK)), Ending.BY_PEER),
        (fin & np.isin(state, (State.FIN_WAIT_1, State.FIN_WAIT_2)), Ending.RESET),
        (fin & alone, Ending.UNKNOWN),
        (fin, Ending.ORDERLY),
        (told & ~was_open, Ending.UNKNOWN),
        (_unanswered(evidence), Ending.TIMED_OUT),
        (told & (state == State.SYN_RCVD), Ending.UNKNOWN),  # a reset, or an ICMP error
        (told, Ending.RESET),
    )


def _first(*cases: tuple[NDArray[np.bool_], Ending]) -> NDArray[np.uint8]:
    """The ending of the first case that holds; UNKNOWN where none does."""
    conditions, endings = zip(*cases, strict=True)
    found: NDArray[np.uint8] = np.select(conditions, endings, Ending.UNKNOWN).astype(np.uint8)
    return found
