"""How connections ended, judged by the trace, the final tcp_info, and polls.

Kernel sources: net/ipv4/tcp.c (tcp_close, tcp_abort, tcp_disconnect), tcp_timer.c (tcp_write_err, tcp_keepalive_timer),
tcp_input.c (tcp_reset). `bytes_acked` counts the FIN, and the SYN of connect(), as one byte each (RFC 4898), and
`bytes_sent` counts neither: the final tcp_info shows whether our FIN was acknowledged.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.states import Closer, Role, State

_NEVER_MS = 600_000
"""last_data_sent of a socket that was never connected is the time since tick 0; that of an unpolled connection is less
than this."""
_TICK_0_S, _NEAR_S = 300.0, 5.0
"""The kernel's ticks begin at -300 s (INITIAL_JIFFIES in include/linux/jiffies.h): the time since tick 0 is the uptime
less that, on a host that has just booted less than _NEVER_MS."""


@dataclass(frozen=True, slots=True, eq=False)
class EndingEvidence:
    """Aligned columns, one row per connection whose full socket ended."""

    state: NDArray[np.uint8]
    """The last known state before the end; 0 for unknown."""
    remaining_state: NDArray[np.uint8]
    """State of the small socket that continues, TIME_WAIT or FIN_WAIT_2; 0 for none."""
    role: NDArray[np.uint8]
    closer: NDArray[np.uint8]
    queued: NDArray[np.bool_]
    """The last poll saw it in an accept queue, and the listener has closed."""
    info_known: NDArray[np.bool_]
    """Which rows of `info` are filled."""
    info: NDArray[np.void]
    """uapi.TCP_INFO"""
    when: NDArray[np.float64]
    """Monotonic seconds at which `info` was received."""
    disconnected: NDArray[np.bool_]
    """tcp_disconnect() removed its endpoints: a failed connect(), or a reset by us."""
    traced: NDArray[np.void]
    """TRACED_SOCKET; all 0 for none."""


def classify(evidence: EndingEvidence, reset_reasons: dict[str, int]) -> NDArray[np.uint8]:
    """Return the Ending of each connection; `reset_reasons` maps the kernel's names to its numbers."""
    traced = evidence.traced["visited"] != 0
    by_trace = _by_trace(evidence, reset_reasons)
    return np.where(traced, by_trace, _by_polls(evidence)).astype(np.uint8)


def fin_acknowledged(evidence: EndingEvidence) -> NDArray[np.bool_]:
    """Return where the final tcp_info shows that our FIN was acknowledged."""
    info = evidence.info
    data = info["tcpi_bytes_sent"] - info["tcpi_bytes_retrans"]
    extra = info["tcpi_bytes_acked"].astype(np.int64) - data.astype(np.int64) - (evidence.role == Role.CLIENT)
    acknowledged: NDArray[np.bool_] = evidence.info_known & ~evidence.disconnected & (extra >= 1)
    return acknowledged


def _was_connected(evidence: EndingEvidence) -> NDArray[np.bool_]:
    """Return where last_data_sent, which begins with the connection, shows that there was one."""
    last_sent_ms = evidence.info["tcpi_last_data_sent"]
    near = np.abs(last_sent_ms / 1000.0 - (evidence.when - _TICK_0_S)) < _NEAR_S
    connected: NDArray[np.bool_] = (last_sent_ms < _NEVER_MS) & ~near
    return connected


def _unanswered(evidence: EndingEvidence) -> NDArray[np.bool_]:
    """Return where a retransmission or a probe got no answer."""
    info = evidence.info
    unanswered = (info["tcpi_retransmits"] > 0) | (info["tcpi_backoff"] > 0) | (info["tcpi_probes"] > 0)
    return evidence.info_known & unanswered & ~evidence.disconnected


def _by_trace(evidence: EndingEvidence, reasons: dict[str, int]) -> NDArray[np.uint8]:
    traced = evidence.traced
    last, reset_state, error = traced["last_state"], traced["reset_in_state"], traced["error"]
    connecting, reset_sent = last == State.SYN_SENT, reset_state != 0

    def reset_because(name: str) -> NDArray[np.bool_]:
        """Return which were reset for this reason; kernels before 6.10 do not report one."""
        matches: NDArray[np.bool_] = reset_sent & (traced["reset_reason"] == reasons.get(name, -1))
        return matches

    # A reset that was sent before the change to CLOSE came from tcp_abort() or a timer, not from the application.
    before_close = reset_sent & (reset_state != State.CLOSED)
    retransmitted = traced["retransmitted"] > 0
    fin = fin_acknowledged(evidence) | ~evidence.info_known
    # close() frees a socket in SYN_SENT immediately; after a timeout the application has to close it.
    freed_at_once = traced["destroyed"] - traced["closed"] < 1e-3
    unanswered = _unanswered(evidence) | (retransmitted & ~evidence.disconnected)
    return _first(
        (reset_because("TCP_ABORT_ON_DATA"), Ending.RESET_SENT),  # the trace reports the answered segment as a reset
        (traced["no_port"], Ending.NO_PORT),
        (traced["reset_received"] & connecting, Ending.REFUSED),
        (traced["reset_received"], Ending.RESET_RECEIVED),
        (error == errno.ECONNABORTED, Ending.KILLED),
        (error == errno.ETIMEDOUT, Ending.TIMED_OUT),
        ((error != 0) & np.isin(last, _OPENING), Ending.UNREACHABLE),
        (before_close & reset_because("TCP_KEEPALIVE_TIMEOUT"), Ending.TIMED_OUT),
        (before_close & reset_because("TCP_STATE"), Ending.KILLED),
        (reset_sent & evidence.queued, Ending.NOT_ACCEPTED),
        (reset_sent, Ending.RESET_SENT),
        (connecting & freed_at_once & ~evidence.disconnected, Ending.GIVEN_UP),
        (connecting & retransmitted, Ending.TIMED_OUT),
        (connecting & evidence.disconnected, Ending.GIVEN_UP),
        ((last == State.CLOSING) & fin, Ending.AT_ONCE),
        ((last == State.LAST_ACK) & fin, Ending.BY_PEER),
        (last == State.FIN_WAIT_2, Ending.BY_US),
        (np.isin(last, _SENDING) & unanswered, Ending.TIMED_OUT),
    )


_SENDING = (
    State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK, State.SYN_RCVD,
)  # fmt: skip
"""States in which a segment may wait for an acknowledgement."""

_OPENING = (State.SYN_SENT, State.SYN_RCVD)


def _by_polls(evidence: EndingEvidence) -> NDArray[np.uint8]:
    state, info, known, disconnected = evidence.state, evidence.info, evidence.info_known, evidence.disconnected
    fin, continues = fin_acknowledged(evidence), evidence.remaining_state != 0
    connecting = state == State.SYN_SENT
    was_open = known & (((state != 0) & ~connecting) | _was_connected(evidence))
    # bytes_received counts the peer's FIN: without received data it shows whether the FIN came.
    no_peer_fin = known & (info["tcpi_data_segs_in"] == 0) & (info["tcpi_bytes_received"] == 0)
    return _first(
        (continues & (evidence.closer == Closer.BOTH), Ending.AT_ONCE),
        (continues, Ending.BY_US),
        (disconnected & evidence.queued, Ending.NOT_ACCEPTED),
        (disconnected & was_open, Ending.RESET_SENT),
        (disconnected, Ending.UNKNOWN),
        (fin & (state == State.CLOSING), Ending.AT_ONCE),
        (fin & np.isin(state, (State.CLOSE_WAIT, State.LAST_ACK)), Ending.BY_PEER),
        (fin & np.isin(state, (State.FIN_WAIT_1, State.FIN_WAIT_2)), Ending.RESET),
        (fin & no_peer_fin, Ending.UNKNOWN),
        (fin, Ending.ORDERLY),
        (known & ~was_open, Ending.UNKNOWN),
        (_unanswered(evidence), Ending.TIMED_OUT),
        (known & (state == State.SYN_RCVD), Ending.UNKNOWN),  # a reset, or an ICMP error
        (known, Ending.RESET),
    )


def _first(*cases: tuple[NDArray[np.bool_], Ending]) -> NDArray[np.uint8]:
    """Return the ending of the first condition that is true, or UNKNOWN."""
    conditions, endings = zip(*cases, strict=True)
    chosen: NDArray[np.uint8] = np.select(conditions, endings, Ending.UNKNOWN).astype(np.uint8)
    return chosen
