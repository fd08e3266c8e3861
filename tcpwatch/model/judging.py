"""How flows ended, from what is known of each: the trace's thread, the final tcp_info, and what polls saw.

What the kernel does: net/ipv4/tcp.c (tcp_close, tcp_abort, tcp_disconnect), tcp_timer.c (tcp_write_err,
tcp_keepalive_timer), tcp_input.c (tcp_reset). `bytes_acked` counts the FIN, and the SYN of connect(), as a byte each
(RFC 4898), `bytes_sent` neither: so that the last tcp_info says whether our FIN was acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel import uapi
from tcpwatch.model.ending import Ending
from tcpwatch.model.states import Closer, Role, State

_KEEPALIVE, _DATA, _LINGER = "TCP_KEEPALIVE_TIMEOUT", "TCP_ABORT_ON_DATA", "TCP_ABORT_ON_LINGER"
_NEVER_MS = 600_000
"""last_data_sent of a socket that never had a connection is the host's uptime; a flow that no poll saw is younger."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Aligned columns, one row a flow whose full socket has ended."""

    state: NDArray[np.uint8]
    """The last one that is known before the end, 0 for none."""
    goes_on: NDArray[np.uint8]
    """The small socket's state: TIME_WAIT, FIN_WAIT_2; 0 for none."""
    role: NDArray[np.uint8]
    closer: NDArray[np.uint8]
    queued: NDArray[np.bool_]
    """A poll saw it in the accept queue last, and its listener has gone."""
    told: NDArray[np.bool_]
    """`info` is there."""
    info: NDArray[np.void]
    """uapi.TCP_INFO"""
    disconnected: NDArray[np.bool_]
    """tcp_disconnect() took its ends: a failed connect(), or a reset by us."""
    threads: NDArray[np.void]
    """traced.THREAD; all 0 where there is none."""


def judged(evidence: Evidence, reset_reasons: dict[str, int]) -> NDArray[np.uint8]:
    """Ending of each; `reset_reasons` is the kernel's name → its number."""
    traced = evidence.threads["visited"] != 0
    by_trace = _by_trace(evidence, reset_reasons)
    return np.where(traced, by_trace, _by_polls(evidence)).astype(np.uint8)


def fin_acknowledged(evidence: Evidence) -> NDArray[np.bool_]:
    """Our FIN was acknowledged, says the final tcp_info."""
    info = evidence.info
    data = info["tcpi_bytes_sent"] - info["tcpi_bytes_retrans"]
    extra = info["tcpi_bytes_acked"].astype(np.int64) - data.astype(np.int64) - (evidence.role == Role.CLIENT)
    acknowledged: NDArray[np.bool_] = evidence.told & ~evidence.disconnected & (extra >= 1)
    return acknowledged


def _unanswered(evidence: Evidence) -> NDArray[np.bool_]:
    """Something was sent again, or probed, in vain."""
    info = evidence.info
    waits = (info["tcpi_retransmits"] > 0) | (info["tcpi_backoff"] > 0) | (info["tcpi_probes"] > 0)
    return evidence.told & waits & ~evidence.disconnected


def _by_trace(evidence: Evidence, reasons: dict[str, int]) -> NDArray[np.uint8]:
    threads = evidence.threads
    last, reset_in, reason = threads["last"], threads["reset_in"], threads["reason"]
    calling = last == State.SYN_SENT
    # A reset that was sent before the change to CLOSE is no application's: tcp_abort(), or a timer.
    before = (reset_in != 0) & (reset_in != State.CLOSED)
    repeated = threads["retransmitted"] > 0
    fin = fin_acknowledged(evidence)
    # close() frees at once what waits in SYN_SENT; after a timeout the application has to close it.
    freed_at_once = threads["destroyed"] - threads["closed"] < 1e-3
    return np.select(
        [
            (reset_in != 0) & (reason == reasons.get(_DATA, -1)),  # the segment that met a closed socket is told as
            threads["reset_received"] & calling,  # a reset received, though it was none
            threads["reset_received"],
            before & (reason == reasons.get(_KEEPALIVE, -1)),
            before & (reason != reasons.get(_LINGER, -1)),
            (reset_in != 0) & evidence.queued,
            reset_in != 0,
            calling & freed_at_once & ~evidence.disconnected,
            calling & repeated,
            calling & evidence.disconnected,
            (last == State.CLOSING) & (fin | ~evidence.told),
            (last == State.LAST_ACK) & (fin | ~evidence.told),
            last == State.FIN_WAIT_2,
            np.isin(last, _SENDING) & (_unanswered(evidence) | (repeated & ~evidence.disconnected)),
        ],
        [
            Ending.RESET_SENT, Ending.REFUSED, Ending.RESET_RECEIVED, Ending.TIMED_OUT, Ending.KILLED,
            Ending.NOT_ACCEPTED, Ending.RESET_SENT, Ending.GIVEN_UP, Ending.TIMED_OUT, Ending.GIVEN_UP,
            Ending.AT_ONCE, Ending.BY_PEER, Ending.BY_US, Ending.TIMED_OUT,
        ],
        Ending.UNKNOWN,
    )  # fmt: skip


_SENDING = (
    State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK, State.SYN_RCVD,
)  # fmt: skip
"""States in which something waits for an answer that may never come."""


def _by_polls(evidence: Evidence) -> NDArray[np.uint8]:
    state, info, told = evidence.state, evidence.info, evidence.told
    fin = fin_acknowledged(evidence)
    was_open = told & (info["tcpi_last_data_sent"] < _NEVER_MS)
    waits = evidence.goes_on != 0
    # The peer's FIN counts in bytes_received: without data it says whether that came.
    alone = told & (info["tcpi_data_segs_in"] == 0) & (info["tcpi_bytes_received"] == 0)
    torn = np.isin(state, (State.FIN_WAIT_1, State.FIN_WAIT_2))
    return np.select(
        [
            waits & (evidence.closer == Closer.BOTH),
            waits,
            evidence.disconnected & evidence.queued,
            evidence.disconnected & (state == State.SYN_SENT),
            evidence.disconnected & was_open,
            evidence.disconnected,
            fin & (state == State.CLOSING),
            fin & np.isin(state, (State.CLOSE_WAIT, State.LAST_ACK)),
            fin & torn,
            fin & alone,
            fin,
            told & ((state == State.SYN_SENT) | ~was_open),
            _unanswered(evidence),
            told,
        ],
        [
            Ending.AT_ONCE, Ending.BY_US, Ending.NOT_ACCEPTED, Ending.UNKNOWN, Ending.RESET_SENT, Ending.UNKNOWN,
            Ending.AT_ONCE, Ending.BY_PEER, Ending.RESET, Ending.UNKNOWN, Ending.ORDERLY, Ending.UNKNOWN,
            Ending.TIMED_OUT,
            Ending.RESET,
        ],
        Ending.UNKNOWN,
    )  # fmt: skip


def no_info(size: int) -> NDArray[np.void]:
    """As many rows of tcp_info that tell nothing."""
    return np.zeros(size, uapi.TCP_INFO)
