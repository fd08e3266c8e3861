"""Variants of the states that have another meaning for a monitor.

The socket options are described in tcp(7), the queues in include/net/sock.h and net/ipv4/tcp_ipv4.c.
"""

import socket

from tests.lab.stage import Ends, Stage
from tests.lab.states import SCENARIOS, STATES, scenario
from tests.lab.wire.connection import Policy

DATA = b"x" * 1000  # less than one segment
MUCH = b"x" * 100_000  # more than the peer's window of 64 KiB


@scenario("LISTEN/accept-queue-full", lambda row: row.receive_queue == 3)
def _accept_queue_full(stage: Stage) -> Ends:
    """A backlog of 2 holds 3 connections (sk_acceptq_is_full: greater than, not equal)."""
    listener = stage.listen(backlog=2)
    for _ in range(3):
        stage.open(listener)
    return listener, None


@scenario("SYN_RCVD/simultaneous", lambda row: row.inode > 0)
def _simultaneous(stage: Stage) -> Ends:
    """The kernel's connect() crossed a SYN of the peer: a full socket with an owner."""
    return stage.connect(Policy.SIMULTANEOUS_HALF_OPEN)


@scenario("SYN_RCVD/accept-queue-full")
def _last_ack_dropped(stage: Stage) -> Ends:
    """The kernel has dropped the last ACK of an honest client, as the accept queue was full."""
    listener = stage.listen(backlog=2)
    connection = stage.half_open(listener)
    for _ in range(3):
        stage.open(listener)
    connection.complete()
    return None, connection


@scenario("SYN_RCVD/deferred")
def _deferred(stage: Stage) -> Ends:
    """TCP_DEFER_ACCEPT: the handshake is complete, the listener waits for data."""
    listener = stage.listen()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    return None, stage.open(listener)


@scenario("ESTABLISHED/connected")
def _connected(stage: Stage) -> Ends:
    """Opened by the kernel's connect()."""
    return stage.connect(Policy.ACCEPT)


@scenario("ESTABLISHED/simultaneous")
def _crossed(stage: Stage) -> Ends:
    """Opened from both sides at once."""
    return stage.connect(Policy.SIMULTANEOUS_OPEN)


@scenario("ESTABLISHED/not-accepted", lambda row: row.inode == 0)
def _not_accepted(stage: Stage) -> Ends:
    """In the accept queue: the application has not called accept()."""
    return None, stage.open(stage.listen())


@scenario("ESTABLISHED/v4-mapped", families=(6,))
def _v4_mapped(stage: Stage) -> Ends:
    return stage.accept_mapped()


@scenario("ESTABLISHED/unread", lambda row: row.receive_queue == len(DATA))
def _unread(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.send(DATA)
    return kernel, connection


@scenario("ESTABLISHED/unacknowledged", lambda row: row.transmit_queue == len(DATA))
def _unacknowledged(stage: Stage) -> Ends:
    """Data was sent and not acknowledged: retransmission timer."""
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    kernel.send(DATA)
    return kernel, connection


@scenario("ESTABLISHED/zero-window", lambda row: row.timer == "persist")
def _zero_window(stage: Stage) -> Ends:
    """Data is not sent, as the peer's window is closed: persist timer."""
    kernel, connection = stage.accept()
    connection.window(0)
    kernel.send(DATA)
    return kernel, connection


@scenario("ESTABLISHED/unsent", lambda row: row.transmit_queue == len(MUCH))
def _unsent(stage: Stage) -> Ends:
    """Data up to the congestion window is sent and not acknowledged; the rest waits."""
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(MUCH))
    kernel.sendall(MUCH)
    return kernel, connection


@scenario("ESTABLISHED/keepalive", lambda row: row.timer == "keepalive")
def _keepalive(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return kernel, connection


@scenario("ESTABLISHED/shutdown-read")
def _shutdown_read(stage: Stage) -> Ends:
    """shutdown(SHUT_RD) does not change the state; the SHUTDOWN attribute of sock_diag shows it."""
    kernel, connection = stage.accept()
    kernel.shutdown(socket.SHUT_RD)
    return kernel, connection


@scenario("FIN_WAIT_1/orphan", lambda row: row.inode == 0)
def _fin_wait_1_orphan(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    kernel.close()
    return None, connection


@scenario("FIN_WAIT_2/orphan", lambda row: row.inode == 0 and row.timer == "timewait")
def _fin_wait_2_orphan(stage: Stage) -> Ends:
    """The application has closed, the peer has not: a small socket like one in TIME_WAIT."""
    kernel, connection = stage.accept()
    # An ACK that arrives during close() (sock_owned_by_user in tcp_rcv_state_process) would leave a full socket with a
    # keepalive timer instead, so the ACK is sent later.
    connection.acknowledge(False)
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")
    connection.acknowledge()
    return None, connection


@scenario("CLOSE_WAIT/not-accepted", lambda row: row.inode == 0)
def _close_wait_not_accepted(stage: Stage) -> Ends:
    """The client closed before accept()."""
    connection = stage.open(stage.listen())
    connection.fin()
    return None, connection


@scenario("CLOSE_WAIT/eof-unread", lambda row: row.receive_queue == 1)
def _eof_unread(stage: Stage) -> Ends:
    """The unread FIN counts as one byte."""
    kernel, connection = stage.accept()
    connection.fin()
    return kernel, connection


@scenario("CLOSE_WAIT/eof-read", lambda row: row.receive_queue == 0)
def _eof_read(stage: Stage) -> Ends:
    """The application has read the EOF and does not close: the classic leak."""
    kernel, connection = stage.accept()
    connection.fin()
    assert kernel.recv(1) == b""
    return kernel, connection


@scenario("CLOSE_WAIT/data-unread", lambda row: row.receive_queue == len(DATA) + 1)
def _data_unread(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.send(DATA)
    connection.fin()
    return kernel, connection


@scenario("LAST_ACK/held", lambda row: row.inode > 0)
def _last_ack_held(stage: Stage) -> Ends:
    """shutdown(SHUT_WR) instead of close(): the socket still has its owner."""
    kernel, connection = stage.accept()
    connection.acknowledge(False)
    connection.fin()
    kernel.shutdown(socket.SHUT_WR)
    return kernel, connection


@scenario("CLOSING/orphan", lambda row: row.inode == 0)
def _closing_orphan(stage: Stage) -> Ends:
    kernel, connection = stage.accept()
    connection.acknowledge(fin=False)
    kernel.close()
    connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")
    connection.fin()
    return None, connection


VARIANTS = tuple(name for name in SCENARIOS if name not in STATES)
