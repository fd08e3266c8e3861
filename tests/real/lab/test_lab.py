"""The lab itself: the kernel and `ss` must see the sockets it makes."""

import socket
from collections.abc import Iterator

import pytest

from tests import lab

SS_NAMES = {
    "LISTEN": "LISTEN",
    "SYN_SENT": "SYN-SENT",
    "SYN_RCVD": "SYN-RECV",
    "ESTABLISHED": "ESTAB",
    "FIN_WAIT_1": "FIN-WAIT-1",
    "FIN_WAIT_2": "FIN-WAIT-2",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "CLOSING": "CLOSING",
    "LAST_ACK": "LAST-ACK",
    "TIME_WAIT": "TIME-WAIT",
}
FAMILIES: tuple[lab.Family, ...] = (4, 6)
AF = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> lab.Family:
    """Runs a test once for each family."""
    return 4 if request.param == 4 else 6


@pytest.fixture(scope="module")
def namespace() -> Iterator[lab.Namespace]:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"), lab.program("ss"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture(scope="module")
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    with lab.Peer(namespace) as it:
        yield it


@pytest.fixture
def listener(peer: lab.Peer, family: lab.Family) -> Iterator[socket.socket]:
    """A listener on the kernel's end with a long backlog, for each family."""
    address = (lab.LOCAL[family], 0)
    with socket.create_server(address, family=AF[family], backlog=4096) as it:
        it.settimeout(5)
        yield it


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def seen_by_ss(namespace: lab.Namespace) -> dict[tuple[lab.Endpoint, lab.Endpoint], str]:
    """Return the State column of ss by local and remote end."""

    def endpoint(text: str) -> lab.Endpoint:
        address, _, port = text.rpartition(":")
        any_ = {"*": "::"}  # how `ss` writes the wildcard of a listener for both families
        address = any_.get(address, address.strip("[]"))
        return lab.Endpoint.of(address, 0 if port == "*" else int(port))

    lines = (line.split() for line in namespace.ss("-tanH").splitlines())
    return {(endpoint(line[3]), endpoint(line[4])): line[0] for line in lines}


# States ---------------------------------------------------------------------------------------


def test_all_eleven_states_can_be_produced() -> None:
    assert set(lab.STATES) == {*SS_NAMES, "CLOSED"}


@pytest.mark.parametrize(("name", "family"), [it for it in lab.CASES if it[0] != "CLOSED"])
def test_ss_sees_the_state(namespace: lab.Namespace, peer: lab.Peer, name: str, family: lab.Family) -> None:
    with lab.produce(peer, name, family) as it:
        assert seen_by_ss(namespace)[it.local, it.remote] == SS_NAMES[it.state]
        row = it.row()
        assert row
        in_proc = {(row.local, row.remote): row for row in lab.rows(family)}[it.local, it.remote]
        assert (in_proc.state, in_proc.inode) == (row.state, row.inode)
        assert in_proc.receive_queue == row.receive_queue
    assert it.row() is None


def test_the_kernel_knows_a_bound_socket(peer: lab.Peer, family: lab.Family) -> None:
    lab.require(lab.kernel(6, 8))
    with lab.produce(peer, "CLOSED", family) as it:
        assert lab.bound_inactive(family) == {it.local}
    assert not lab.bound_inactive(family)


def test_states_side_by_side(peer: lab.Peer) -> None:
    with (
        lab.produce(peer, "CLOSE_WAIT", 4) as waiting,
        lab.produce(peer, "CLOSE_WAIT", 4) as another,
    ):
        assert waiting.local != another.local
        assert waiting.row() is not None
        assert another.row() is not None


# The peer -------------------------------------------------------------------------------------


def test_a_handshake_is_logged_in_three_steps(peer: lab.Peer, listener: socket.socket, family: lab.Family) -> None:
    connection = peer.open(port_of(listener), family=family)
    steps = [(it.from_kernel, it.segment.flags) for it in peer.log(connection)]
    syn, ack = lab.Flag.SYN, lab.Flag.ACK
    assert steps == [(False, syn), (True, syn | ack), (False, ack)]


def test_both_sides_send_and_close_in_order(peer: lab.Peer, listener: socket.socket, family: lab.Family) -> None:
    offer = lab.Offer(timestamps=True, window_scale=7, sack_permitted=True)
    connection = peer.open(port_of(listener), family=family, offer=offer)
    kernel, _ = listener.accept()
    with kernel:
        connection.send(b"question")
        assert kernel.recv(100) == b"question"
        kernel.sendall(b"answer" * 10_000)
        connection.wait_for(lambda it: it.received == b"answer" * 10_000, "the answer")
        connection.close()
        assert kernel.recv(1) == b""
    connection.wait_for(lambda it: it.fin_received, "the kernel's FIN")
    ends = connection.local, connection.remote
    lab.wait_until(lambda: not lab.find_row(family, *ends), "the end")


def test_the_kernel_retransmits_lost_segments(
    namespace: lab.Namespace, peer: lab.Peer, listener: socket.socket, family: lab.Family
) -> None:
    connection = peer.open(port_of(listener), family=family)
    kernel, _ = listener.accept()
    before = namespace.counters()["RetransSegs"]
    connection.lose_every(4)
    with kernel:
        kernel.sendall(b"x" * 10_000)
        connection.wait_for(lambda it: len(it.received) == 10_000, "all data despite loss")
    assert connection.lost > 0
    assert namespace.counters()["RetransSegs"] - before >= connection.lost


def test_the_peer_can_acknowledge_later(peer: lab.Peer) -> None:
    with lab.produce(peer, "FIN_WAIT_1", 4) as it:
        assert it.connection
        it.connection.acknowledge()
        lab.wait_until(lambda: (row := it.row()) and row.state == "FIN_WAIT_2", "FIN_WAIT_2")


def test_a_closed_window_opens_again(peer: lab.Peer) -> None:
    with lab.produce(peer, "ESTABLISHED/zero-window", 4) as it:
        assert it.connection
        it.connection.window(65_535)
        lab.wait_until(lambda: (row := it.row()) and row.transmit_queue == 0, "an empty queue")
        assert len(it.connection.received) == 1000


def test_a_half_open_connection_is_completed(peer: lab.Peer) -> None:
    with lab.produce(peer, "SYN_RCVD", 4) as it:
        assert it.connection
        it.connection.complete()
        lab.wait_until(lambda: (row := it.row()) and row.state == "ESTABLISHED", "ESTABLISHED")


def test_a_silent_host_answers_later(peer: lab.Peer) -> None:
    with lab.produce(peer, "SYN_SENT", 4) as it:
        assert it.connection
        it.connection.answer(lab.Policy.ACCEPT)
        lab.wait_until(lambda: (row := it.row()) and row.state == "ESTABLISHED", "ESTABLISHED")


def test_a_port_without_listener_refuses(peer: lab.Peer, family: lab.Family) -> None:
    with socket.socket(AF[family]) as kernel, pytest.raises(ConnectionRefusedError):
        kernel.connect((lab.REMOTE[family], 9))


def test_a_reset_reaches_the_application(peer: lab.Peer) -> None:
    with lab.produce(peer, "ESTABLISHED", 4) as it:
        assert it.connection
        assert it.kernel
        it.connection.rst()
        with pytest.raises(ConnectionResetError):
            it.kernel.recv(1)


# Floods ---------------------------------------------------------------------------------------


def half_open(family: lab.Family, listener: socket.socket) -> set[lab.Endpoint]:
    found = [it for it in lab.rows(family) if it.local.port == port_of(listener)]
    return {it.remote for it in found if it.state == "SYN_RCVD"}


def test_a_flood_leaves_as_many_half_open_connections(
    peer: lab.Peer, listener: socket.socket, family: lab.Family
) -> None:
    report = peer.flood(port_of(listener), 1500, family=family, addresses=100)
    assert report.sent == 1500
    assert len({it.address for it in half_open(family, listener)}) == 100
    peer.flood(port_of(listener), 500, family=family, addresses=2000)
    assert len(half_open(family, listener)) == 2000
    peer.open(port_of(listener), family=family)  # is not in the flood's way


def test_a_flood_keeps_its_rate(peer: lab.Peer, listener: socket.socket, family: lab.Family) -> None:
    report = peer.flood(port_of(listener), 300, family=family, rate=2000)
    assert 1000 < report.rate <= 2000


def test_a_flood_can_come_from_another_process(peer: lab.Peer, listener: socket.socket, family: lab.Family) -> None:
    target = lab.Endpoint(lab.LOCAL[family], port_of(listener))
    report = lab.finish(peer.crowd.start(target, 1000))
    assert report.sent == 1000
    assert len(half_open(family, listener)) == 1000


def test_counters_count_a_flood(
    namespace: lab.Namespace, peer: lab.Peer, listener: socket.socket, family: lab.Family
) -> None:
    before = namespace.counters()["SyncookiesSent"]
    assert namespace.sysctl("net.ipv4.tcp_syncookies", 2) == "2"
    peer.flood(port_of(listener), 1000, family=family)
    namespace.sysctl("net.ipv4.tcp_syncookies", 1)
    assert namespace.counters()["SyncookiesSent"] - before == 1000
    assert not half_open(family, listener)
