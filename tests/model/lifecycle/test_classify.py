"""How flows ended, judged from the evidence: one piece of evidence and its ending in each scenario."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.lifecycle.classify import EndingEvidence, classify, fin_acknowledged
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace.traced_sockets import TRACED_SOCKET
from tcpwatch.model.states import Closer, Role, State

REASONS = {"TCP_ABORT_ON_DATA": 1, "TCP_KEEPALIVE_TIMEOUT": 2, "TCP_STATE": 3}
IN_VAIN = ({"retransmits": 1}, {"backoff": 1}, {"probes": 1})
CLIENT_FIN = {"bytes_sent": 150, "bytes_retrans": 50, "bytes_acked": 102}
"""100 bytes of data, the SYN and the FIN were acknowledged."""
SERVER_FIN = {**CLIENT_FIN, "bytes_acked": 101}


def evidence(
    state: State | None = None,
    goes_on: State | None = None,
    role: Role = Role.SERVER,
    closer: Closer = Closer.UNKNOWN,
    info: Mapping[str, int] | None = None,
    queued: bool = False,
    disconnected: bool = False,
    when: float = 10_000.0,
    **trace: Any,
) -> EndingEvidence:
    """One connection: `info` is tcp_info without `tcpi_`, None without an event; `trace` are TRACED_SOCKET fields."""
    socket, figures = np.zeros(1, TRACED_SOCKET), np.zeros(1, uapi.TCP_INFO)
    socket["begin"] = socket["closed"] = socket["destroyed"] = math.nan
    for name, value in trace.items():
        socket[name] = value
    for name, value in (info or {}).items():
        figures[f"tcpi_{name}"] = value

    def number(value: int | None) -> NDArray[np.uint8]:
        return np.array([value or 0], np.uint8)

    return EndingEvidence(
        state=number(state),
        remaining_state=number(goes_on),
        role=number(role),
        closer=number(closer),
        queued=np.array([queued]),
        info_known=np.array([info is not None]),
        info=figures,
        when=np.array([when]),
        disconnected=np.array([disconnected]),
        traced=socket,
    )


def traced(last: State, reset_in: State | None = None, reason: str = "", **facts: Any) -> EndingEvidence:
    number = REASONS.get(reason, 9)
    return evidence(
        visited=1 << last, last_state=last, reset_in_state=reset_in or 0,
        reset_reason=number if reset_in else 0, **facts,
    )  # fmt: skip


SYN_SENT, SYN_RCVD, OPEN, CLOSED = State.SYN_SENT, State.SYN_RCVD, State.ESTABLISHED, State.CLOSED

BY_TRACE = {
    "nothing special": (traced(OPEN, info={}), Ending.UNKNOWN),
    "closed with unread data": (traced(OPEN, OPEN, "TCP_ABORT_ON_DATA", reset_received=True), Ending.RESET_SENT),
    "a reset sent, and one received": (traced(OPEN, OPEN, reset_received=True), Ending.RESET_RECEIVED),
    "that reason of no reset": (traced(OPEN, reset_received=True), Ending.RESET_RECEIVED),
    "connect() met a reset": (traced(SYN_SENT, reset_received=True), Ending.REFUSED),
    "the peer reset it": (traced(OPEN, reset_received=True), Ending.RESET_RECEIVED),
    "ss -K": (traced(OPEN, error=errno.ECONNABORTED), Ending.KILLED),
    "ETIMEDOUT": (traced(OPEN, error=errno.ETIMEDOUT), Ending.TIMED_OUT),
    "connect(): no route": (traced(SYN_SENT, error=errno.EHOSTUNREACH), Ending.UNREACHABLE),
    "the last ACK: no route": (traced(SYN_RCVD, error=errno.EHOSTUNREACH), Ending.UNREACHABLE),
    "an ICMP error of an open connection": (traced(OPEN, info={}, error=errno.EHOSTUNREACH), Ending.UNKNOWN),
    "keepalive": (traced(OPEN, OPEN, "TCP_KEEPALIVE_TIMEOUT"), Ending.TIMED_OUT),
    "keepalive's reset after the end": (traced(OPEN, CLOSED, "TCP_KEEPALIVE_TIMEOUT"), Ending.RESET_SENT),
    "tcp_abort()": (traced(OPEN, OPEN, "TCP_STATE"), Ending.KILLED),
    "tcp_abort()'s reason after the end": (traced(OPEN, CLOSED, "TCP_STATE"), Ending.RESET_SENT),
    "in the accept queue": (traced(OPEN, OPEN, queued=True), Ending.NOT_ACCEPTED),
    "in the accept queue, without a reset": (traced(OPEN, info={}, queued=True), Ending.UNKNOWN),
    "SO_LINGER 0": (traced(OPEN, OPEN), Ending.RESET_SENT),
    "closed while connecting": (traced(SYN_SENT, closed=5.0, destroyed=5.0005), Ending.GIVEN_UP),
    "closed while connecting, after SYNs": (
        traced(SYN_SENT, closed=5.0, destroyed=5.0005, retransmitted=2), Ending.GIVEN_UP,
    ),
    "no answer to SYNs": (traced(SYN_SENT, closed=5.0, destroyed=5.5, retransmitted=1), Ending.TIMED_OUT),
    "no answer to SYNs, still held": (traced(SYN_SENT, closed=5.0, retransmitted=1), Ending.TIMED_OUT),
    "disconnected after SYNs": (
        traced(SYN_SENT, closed=5.0, destroyed=5.0, retransmitted=1, disconnected=True), Ending.TIMED_OUT,
    ),
    "disconnected while connecting": (traced(SYN_SENT, disconnected=True), Ending.GIVEN_UP),
    "held after it stopped connecting": (traced(SYN_SENT, info={}, closed=5.0, destroyed=5.002), Ending.UNKNOWN),
    "connect() found no port": (traced(SYN_SENT, info={}, disconnected=True, no_port=True), Ending.NO_PORT),
    "FINs crossed": (traced(State.CLOSING, info=SERVER_FIN), Ending.AT_ONCE),
    "FINs crossed, no event": (traced(State.CLOSING), Ending.AT_ONCE),
    "FINs crossed, not acknowledged": (traced(State.CLOSING, info={}), Ending.UNKNOWN),
    "the peer closed first": (traced(State.LAST_ACK, info=SERVER_FIN), Ending.BY_PEER),
    "the peer closed first, no event": (traced(State.LAST_ACK), Ending.BY_PEER),
    "the last ACK never came": (traced(State.LAST_ACK, info={"retransmits": 3}), Ending.TIMED_OUT),
    "this end closed first": (traced(State.FIN_WAIT_2, info={}), Ending.BY_US),
    "a FIN without an answer": (traced(State.FIN_WAIT_1, info={}, retransmitted=1), Ending.TIMED_OUT),
    "data without an answer": (traced(OPEN, retransmitted=1), Ending.TIMED_OUT),
    "data without an answer, then disconnected": (traced(OPEN, retransmitted=1, disconnected=True), Ending.UNKNOWN),
    **{f"in vain: {info}": (traced(OPEN, info=info), Ending.TIMED_OUT) for info in IN_VAIN},
    **{f"in vain, disconnected: {info}": (traced(OPEN, info=info, disconnected=True), Ending.UNKNOWN)
       for info in IN_VAIN},
    "in CLOSE_WAIT": (traced(State.CLOSE_WAIT, info={"probes": 1}), Ending.TIMED_OUT),
    "in SYN_RCVD": (traced(SYN_RCVD, info={"retransmits": 1}), Ending.TIMED_OUT),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_TRACE)
def test_by_the_trace(name: str) -> None:
    one, ending = BY_TRACE[name]
    assert classify(one, REASONS).tolist() == [ending]


def test_kernels_before_6_10_give_no_reasons() -> None:
    for reason in REASONS:
        assert classify(traced(OPEN, OPEN, reason), {}).tolist() == [Ending.RESET_SENT]


def polled(state: State | None = None, info: Mapping[str, int] | None = None, **facts: Any) -> EndingEvidence:
    return evidence(state, info=info, **facts)


OLD = {"last_data_sent": 600_000}
"""What a socket that never had a connection says; a flow that no poll saw is younger than that."""
READ = {"data_segs_in": 1, "bytes_received": 2}

BY_POLLS = {
    "it goes on in TIME_WAIT": (polled(OPEN, goes_on=State.TIME_WAIT), Ending.BY_US),
    "it goes on in TIME_WAIT, FINs crossed": (
        polled(OPEN, goes_on=State.TIME_WAIT, closer=Closer.BOTH), Ending.AT_ONCE,
    ),
    "FINs crossed, and nothing is left": (polled(OPEN, closer=Closer.BOTH), Ending.UNKNOWN),
    "disconnected in the accept queue": (polled(OPEN, {}, disconnected=True, queued=True), Ending.NOT_ACCEPTED),
    "in the accept queue, not disconnected": (polled(OPEN, {}, queued=True), Ending.RESET),
    "disconnected while open": (polled(OPEN, OLD, disconnected=True), Ending.RESET_SENT),
    "disconnected, no poll saw it, it sent": (
        polled(None, {"last_data_sent": 599_999}, disconnected=True), Ending.RESET_SENT,
    ),
    "disconnected, it never had a connection": (polled(None, OLD, disconnected=True), Ending.UNKNOWN),
    "disconnected while connecting": (polled(SYN_SENT, OLD, disconnected=True), Ending.UNKNOWN),
    "disconnected, no event": (polled(OPEN, disconnected=True), Ending.UNKNOWN),
    "FINs crossed": (polled(State.CLOSING, SERVER_FIN), Ending.AT_ONCE),
    "FINs crossed, ours was not acknowledged": (polled(State.CLOSING, {}), Ending.RESET),
    "the peer's FIN first": (polled(State.CLOSE_WAIT, SERVER_FIN), Ending.BY_PEER),
    "the peer's FIN first, in LAST_ACK": (polled(State.LAST_ACK, SERVER_FIN), Ending.BY_PEER),
    "in CLOSE_WAIT without our FIN": (polled(State.CLOSE_WAIT, {}), Ending.RESET),
    "our FIN first, and then no TIME_WAIT": (polled(State.FIN_WAIT_2, SERVER_FIN), Ending.RESET),
    "our FIN first, seen in FIN_WAIT_1": (polled(State.FIN_WAIT_1, SERVER_FIN), Ending.RESET),
    "our FIN, nothing came": (polled(OPEN, SERVER_FIN), Ending.UNKNOWN),
    "our FIN, the peer's FIN came": (polled(OPEN, {**SERVER_FIN, "bytes_received": 1}), Ending.ORDERLY),
    "our FIN, data came": (polled(OPEN, {**SERVER_FIN, "data_segs_in": 1}), Ending.ORDERLY),
    "our FIN and data": (polled(OPEN, {**SERVER_FIN, **READ}), Ending.ORDERLY),
    "a client's FIN and data": (polled(OPEN, {**CLIENT_FIN, **READ}, role=Role.CLIENT), Ending.ORDERLY),
    "a client's SYN alone": (polled(OPEN, {**SERVER_FIN, **READ}, role=Role.CLIENT), Ending.RESET),
    "never connected": (polled(None, OLD), Ending.UNKNOWN),
    "connecting": (polled(SYN_SENT, OLD), Ending.UNKNOWN),
    "connecting, and it had a connection": (polled(SYN_SENT, {"last_data_sent": 5}), Ending.RESET),
    "no poll saw it": (polled(None, {"last_data_sent": 599_999}), Ending.RESET),
    "no poll saw it, 8 minutes after the boot": (polled(None, {"last_data_sent": 3_000}, when=480.0), Ending.RESET),
    "never connected, 8 min after the boot": (polled(None, {"last_data_sent": 180_400}, when=480.0), Ending.UNKNOWN),
    "never connected, 8 min after boot, disconnected": (
        polled(None, {"last_data_sent": 180_400}, when=480.0, disconnected=True), Ending.UNKNOWN,
    ),
    **{f"in vain: {info}": (polled(OPEN, info), Ending.TIMED_OUT) for info in IN_VAIN},
    "no event, nothing is known": (polled(OPEN), Ending.UNKNOWN),
    "a half-open one, the SYN+ACK repeated": (polled(SYN_RCVD, {"retransmits": 1}), Ending.TIMED_OUT),
    "a half-open one": (polled(SYN_RCVD, {}), Ending.UNKNOWN),
    "open, no FIN": (polled(OPEN, {}), Ending.RESET),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_POLLS)
def test_by_polls(name: str) -> None:
    one, ending = BY_POLLS[name]
    assert classify(one, REASONS).tolist() == [ending]


@pytest.mark.parametrize(
    ("role", "info", "expected"),
    [
        (Role.SERVER, SERVER_FIN, True),
        (Role.SERVER, {**SERVER_FIN, "bytes_acked": 100}, False),
        (Role.SERVER, {"bytes_acked": 3}, True),
        (Role.CLIENT, CLIENT_FIN, True),
        (Role.CLIENT, {**CLIENT_FIN, "bytes_acked": 101}, False),
        (Role.CLIENT, {}, False),
        (Role.SERVER, None, False),
    ],
)
def test_whether_our_fin_was_acknowledged(role: Role, info: Mapping[str, int] | None, expected: bool) -> None:
    assert fin_acknowledged(evidence(role=role, info=info)).tolist() == [expected]
    assert fin_acknowledged(evidence(role=role, info=info, disconnected=True)).tolist() == [False]
