"""Every state and variant of the lab, compared field by field with ss(8) at a moment without changes."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import numpy as np
import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tcpwatch.model.columns.columns import BY_KEY
from tcpwatch.monitor import Monitor
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.support.kernel import ss

SO_COOKIE = 57  # asm-generic/socket.h
CASES = [case for case in lab.CASES if case[0] != "CLOSED"]  # this ss does not show bound, inactive sockets
ARROWS = {"<->": None, "-->": "receive", "<--": "send", "---": "both", None: None}

S, C, L = "server", "client", "listener"
FIRST_LOOK: dict[str, tuple[str | None, str | None, str]] = {
    # What the first sample shows of each: role, who sent the first FIN, phase.
    "LISTEN": (L, None, "handshake"),
    "LISTEN/accept-queue-full": (L, None, "handshake"),
    "SYN_SENT": (C, None, "handshake"),
    "SYN_RCVD": (S, None, "handshake"),
    "SYN_RCVD/simultaneous": (C, None, "handshake"),
    "SYN_RCVD/accept-queue-full": (S, None, "handshake"),
    "SYN_RCVD/deferred": (S, None, "handshake"),
    "ESTABLISHED": (S, None, "open"),
    "ESTABLISHED/connected": (C, None, "open"),
    "ESTABLISHED/simultaneous": (C, None, "open"),
    "ESTABLISHED/not-accepted": (S, None, "open"),
    "ESTABLISHED/v4-mapped": (S, None, "open"),
    "ESTABLISHED/unread": (S, None, "open"),
    "ESTABLISHED/unacknowledged": (S, None, "open"),
    "ESTABLISHED/zero-window": (S, None, "open"),
    "ESTABLISHED/unsent": (S, None, "open"),
    "ESTABLISHED/keepalive": (S, None, "open"),
    "ESTABLISHED/shutdown-read": (S, None, "open"),
    "FIN_WAIT_1": (S, "local", "teardown"),
    "FIN_WAIT_1/orphan": (S, "local", "teardown"),
    "FIN_WAIT_2": (S, "local", "teardown"),
    "FIN_WAIT_2/orphan": (S, "local", "teardown"),
    "CLOSE_WAIT": (S, "peer", "teardown"),
    "CLOSE_WAIT/not-accepted": (S, "peer", "teardown"),
    "CLOSE_WAIT/eof-unread": (S, "peer", "teardown"),
    "CLOSE_WAIT/eof-read": (S, "peer", "teardown"),
    "CLOSE_WAIT/data-unread": (S, "peer", "teardown"),
    "CLOSING": (S, "both", "teardown"),
    "CLOSING/orphan": (S, "both", "teardown"),
    "LAST_ACK": (S, "peer", "teardown"),
    "LAST_ACK/held": (S, "peer", "teardown"),
    "TIME_WAIT": (S, "local", "teardown"),
    "CLOSED": (None, None, "none"),
}

Shown = dict[tuple[str, lab.Family], tuple[lab.Produced, ss.Picture]]


def ends_of(it: lab.Produced) -> ss.Ends:
    return it.local, it.remote


@pytest.fixture(scope="module")
def shown(namespace: lab.Namespace, peer: lab.Peer) -> Iterator[Shown]:
    """All cases side by side, so that a few samples are enough."""
    with ExitStack() as stack:
        produced = {case: stack.enter_context(lab.produce(peer, *case)) for case in CASES}
        taken = ss.pictures(namespace, {ends_of(it) for it in produced.values()})
        yield {case: (it, taken[ends_of(it)]) for case, it in produced.items()}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-IPv{case[1]}")
def case(request: pytest.FixtureRequest, shown: Shown) -> tuple[str, lab.Produced, ss.Picture]:
    return request.param[0], *shown[request.param]


def test_every_case_has_an_expectation() -> None:
    assert FIRST_LOOK.keys() == set(lab.SCENARIOS)


def test_rows_equal_ss(case: tuple[str, lab.Produced, ss.Picture]) -> None:
    _, it, picture = case
    for row in (picture.before, picture.after):
        check_row(row, picture.line)
        assert row["idiag_family"] == {4: uapi.AF_INET, 6: uapi.AF_INET6}[it.family]
    check_timer(picture)


def check_row(row: np.void, line: ss.Line) -> None:
    names = ("idiag_rqueue", "idiag_wqueue", "idiag_retrans", "idiag_uid", "idiag_inode", "idiag_cookie")
    said = (line.recv_queue, line.send_queue, line.timer.retransmits, line.uid, line.inode, line.cookie)
    assert tuple(int(row[name]) for name in names) == said
    assert ss.row_ends(row) == (line.local, line.remote)
    assert row["idiag_if"] == (socket.if_nametoindex(line.interface) if line.interface else 0)
    assert uapi.TIMER_NAMES[row["idiag_timer"]] == line.timer.name
    check_attributes(row, line)


def check_attributes(row: np.void, line: ss.Line) -> None:
    assert bool(row["has"] & uapi.HAS_CGROUP_ID) == (line.cgroup is not None)
    assert row["cgroup_id"] == (ss.cgroup_id(line.cgroup) if line.cgroup else 0)
    assert bool(row["has"] & uapi.HAS_SHUTDOWN) == (line.arrow is not None)
    mask = {None: 0, "<->": 0, "-->": 1, "<--": 2, "---": 3}  # ss.c: RCV_SHUTDOWN takes the left head
    assert row["shutdown"] == mask[line.arrow]


def check_timer(picture: ss.Picture) -> None:
    """Check that the timer of ss, read between two samples, is between theirs, in the precision of ss."""
    assert picture.after["idiag_expires"] <= picture.line.timer.most_ms
    assert picture.line.timer.least_ms <= picture.before["idiag_expires"]


def test_columns_equal_ss(case: tuple[str, lab.Produced, ss.Picture]) -> None:
    _, it, picture = case
    line = picture.line
    assert picture.cells.items() >= cells_of(line).items()
    assert ss.STATES[it.state] == line.state
    if line.timer.name:
        left_s = picture.cells["timer_s"]
        assert isinstance(left_s, float)
        assert 1000 * left_s == pytest.approx(picture.after["idiag_expires"])


def cells_of(line: ss.Line) -> dict[str, object]:
    """Return the exported columns that ss also has, with the values that ss shows."""
    names = {short: name for name, short in ss.STATES.items()}
    cells: dict[str, object] = {
        "state": names[line.state],
        "local_address": line.local.address,
        "local_port": line.local.port,
        "remote_address": line.remote.address,
        "remote_port": line.remote.port,
        "recv_queue": line.recv_queue,
        "send_queue": line.send_queue,
        "timer": line.timer.name or None,
        "retransmits": line.timer.retransmits,
        "uid": line.uid if line.uid or line.inode else None,
        "user": user_name(line.uid) if line.uid or line.inode else None,
        "inode": line.inode,
        "cookie": line.cookie,
        "interface": line.interface,
        "cgroup_id": ss.cgroup_id(line.cgroup) if line.cgroup else None,
        "shutdown": ARROWS[line.arrow],
    }
    return cells if line.timer.name else {**cells, "timer_s": None}


def user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def test_the_row_belongs_to_the_socket(case: tuple[str, lab.Produced, ss.Picture]) -> None:
    _, it, picture = case
    if it.kernel:
        assert picture.cells["inode"] == os.fstat(it.kernel.fileno()).st_ino
        assert picture.cells["cookie"] == cookie_of(it.kernel)


def test_role_closer_and_phase_in_the_first_sample(case: tuple[str, lab.Produced, ss.Picture]) -> None:
    name, _, picture = case
    assert tuple(picture.cells[key] for key in ("role", "closer", "phase")) == FIRST_LOOK[name]


def cookie_of(kernel: socket.socket) -> int:
    return int.from_bytes(kernel.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


# What ss does not show, and what the lab's cases do not have ------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_a_bound_socket_is_closed(peer: lab.Peer, family: lab.Family) -> None:
    lab.require(lab.kernel(6, 8))
    with lab.produce(peer, "CLOSED", family) as it, closing(Monitor(LiveSource())) as monitor:
        assert it.kernel
        cookie = cookie_of(it.kernel)
        rows = monitor.step().rows
        at = rows.find(cookie)
        assert at is not None
        assert ss.row_ends(rows.table[at]) == (lab.Endpoint.of(*it.kernel.getsockname()[:2]), it.remote)
        cells = {key: column.values(rows)[at] for key, column in BY_KEY.items()}
        assert (cells["state"], cells["cookie"]) == ("CLOSED", cookie)
        assert cells["inode"] == os.fstat(it.kernel.fileno()).st_ino
        assert (cells["role"], cells["closer"], cells["phase"]) == FIRST_LOOK["CLOSED"]
        with closing(SockDiag()) as diag:
            assert diag.bound_only().table["idiag_cookie"].tolist() == [cookie]


def test_a_socket_bound_to_an_interface(namespace: lab.Namespace, peer: lab.Peer) -> None:
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, peer.device.encode())
        ends = lab.Endpoint.of(*listener.getsockname()), lab.Endpoint.of("0.0.0.0", 0)
        picture = ss.pictures(namespace, {ends})[ends]
        assert picture.line.interface == peer.device == picture.cells["interface"]
        check_row(picture.before, picture.line)


def test_another_user_s_sockets(namespace: lab.Namespace, peer: lab.Peer) -> None:
    """A connection that waits for accept() belongs to the listener's user, too (kernel 6.18; older kernels: 0)."""
    try:
        os.seteuid(1)
    except OSError:
        pytest.skip("this user namespace has one user only")
    try:
        listener = socket.create_server((lab.LOCAL[4], 0))
    finally:
        os.seteuid(0)
    with listener:
        connection = peer.open(listener.getsockname()[1])
        own = connection.local, lab.Endpoint.of("0.0.0.0", 0)
        taken = ss.pictures(namespace, {own, (connection.local, connection.remote)})
    for picture in taken.values():
        check_row(picture.after, picture.line)
        assert picture.cells.items() >= cells_of(picture.line).items()
    assert (taken[own].cells["uid"], taken[own].cells["user"]) == (1, user_name(1))
