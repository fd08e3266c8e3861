"""Samples from the live kernel, from psutil in its place, and errors when neither works."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import sock_diag, uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiagError
from tcpwatch.model.states import State
from tcpwatch.sample import Sample, sort_by_cookie
from tcpwatch.sources import base
from tcpwatch.sources import live as live_source
from tcpwatch.sources.base import SourceError
from tcpwatch.sources.live import LiveSource, open_source
from tcpwatch.sources.psutil import PsutilSource
from tests import lab
from tests.support.kernel import netlink, ss
from tests.support.kernel.fake_kernel import FakeKernel


@pytest.fixture
def own_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /proc without the processes of others, which may have very many descriptors to search."""
    for name in ("net", "stat", "1", str(os.getpid())):
        (tmp_path / name).symlink_to(Path("/proc") / name)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))


@pytest.fixture
def live(namespace: lab.Namespace) -> Iterator[LiveSource]:
    with closing(LiveSource()) as it:
        yield it


@pytest.fixture
def crowd(peer: lab.Peer) -> Iterator[list[lab.Produced]]:
    """Sockets of every kind, a different number of each."""
    cases = [case for at, name in enumerate(lab.STATES) for case in [(name, 4)] * (1 + at % 3) + [(name, 6)]]
    with ExitStack() as stack:
        yield [stack.enter_context(lab.produce(peer, name, 6 if family == 6 else 4)) for name, family in cases]


def counts(sample: Sample) -> Counter[str]:
    return Counter(State(number).name for number in sample.state.tolist())


def ends(sample: Sample) -> dict[ss.Ends, State]:
    """Return ends and state of each row except bound sockets, which neither ss nor psutil shows."""
    found = {ss.row_ends(row): State(number) for row, number in zip(sample.table, sample.state, strict=True)}
    return {both: state for both, state in found.items() if state is not State.CLOSED}


# The live kernel ----------------------------------------------------------------------------------


def test_counts_equal_those_of_ss(namespace: lab.Namespace, live: LiveSource, crowd: list[lab.Produced]) -> None:
    sample = live.sample()
    names = {short: name for name, short in ss.STATES.items()}
    expected = Counter(names[line.state] for line in ss.lines(namespace))
    bound = sum(it.state == "CLOSED" for it in crowd)
    found = counts(sample)
    assert found.pop("CLOSED") == bound
    assert found == expected
    assert sample.completeness.complete
    assert (sample.source.kind, sample.completeness.missing) == ("sock_diag", ())


def test_a_sample_is_sorted_and_cannot_be_written_to(live: LiveSource, crowd: list[lab.Produced]) -> None:
    sample = live.sample()
    assert len(sample.cookie) > len(crowd)
    assert (sample.cookie[1:] > sample.cookie[:-1]).all()
    assert np.array_equal(sample.cookie, sample.table["idiag_cookie"])
    assert len(sample.owner) == len(sample.state) == len(sample.table) == len(sample.cookie)
    for array in (sample.table, sample.cookie, sample.state, sample.owner):
        assert not array.flags.writeable


def test_a_later_sample_leaves_an_earlier_one_alone(peer: lab.Peer, live: LiveSource) -> None:
    with lab.produce(peer, "ESTABLISHED", 4):
        first = live.sample()
        before = [array.tobytes() for array in (first.table, first.cookie, first.state)]
    later = [live.sample() for _ in range(4)]
    assert [array.tobytes() for array in (first.table, first.cookie, first.state)] == before
    assert all(len(one.cookie) < len(first.cookie) for one in later)


@pytest.mark.usefixtures("own_proc")
def test_our_own_process_is_the_owner(peer: lab.Peer) -> None:
    with lab.produce(peer, "ESTABLISHED", 4) as it, closing(LiveSource()) as live:
        assert it.kernel
        inode = os.fstat(it.kernel.fileno()).st_ino

        def holders() -> list[int]:
            sample = live.sample()
            (code,) = sample.owner[sample.table["idiag_inode"] == inode].tolist()
            return [process.pid for process in sample.owners[code].processes] if code >= 0 else []

        # Within its budget of time the search may need more than one step.
        lab.wait_until(lambda: holders() == [os.getpid()], "the owner")


def test_tcp_info_only_of_watched_sockets(peer: lab.Peer, live: LiveSource) -> None:
    with lab.produce(peer, "ESTABLISHED/unread", 4) as it, lab.produce(peer, "SYN_RCVD", 4) as half_open:
        cookies = {ss.row_ends(row): int(row["idiag_cookie"]) for row in live.sample().table}
        mine, half = cookies[it.local, it.remote], cookies[half_open.local, half_open.remote]
        sample = live.sample([mine, half, 2**63, 0])
    assert sample.watched_tcp_info.keys() == {mine}
    assert sample.watched_tcp_info[mine]["bytes_received"] == 1000
    assert live.sample([mine]).watched_tcp_info == {}


def test_the_other_facts(namespace: lab.Namespace, peer: lab.Peer, live: LiveSource) -> None:
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, peer.device.encode())
        sample = live.sample()
    assert list(sample.drops.values()) == [0]
    assert sample.drops.keys() == set(sample.cookie.tolist())
    assert sample.counters["PassiveOpens"] == namespace.counters()["PassiveOpens"]
    assert sample.sysctls["somaxconn"] == int(namespace.sysctl("net.core.somaxconn"))
    assert peer.device in sample.interfaces.values()
    assert sample.users.get(os.getuid()) is not None
    assert sample.host == socket.gethostname()


def test_nothing_is_left_open(namespace: lab.Namespace) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with closing(LiveSource()) as it:
        it.sample()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_bound_socket_that_connects_has_one_row(peer: lab.Peer, live: LiveSource) -> None:
    with socket.socket() as kernel:
        kernel.bind((lab.LOCAL[4], 0))
        assert counts(live.sample()) == {"CLOSED": 1}
        kernel.listen()
        assert counts(live.sample()) == {"LISTEN": 1}


# Tables -------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 2**64 - 1]), st.integers(1, 13)), max_size=12)


@given(ROWS)
def test_the_later_of_two_equal_rows_is_kept(rows: list[tuple[int, int]]) -> None:
    table = np.zeros(len(rows), uapi.SOCKET)
    for row, (cookie, state) in zip(table, rows, strict=True):
        row["idiag_cookie"], row["idiag_state"] = cookie, state
    kernel_only = {12: State.SYN_RCVD, 13: State.CLOSED}
    expected = {cookie: kernel_only.get(state, state) for cookie, state in rows}
    ordered = sort_by_cookie(table)
    assert list(zip(ordered.cookie.tolist(), ordered.state.tolist(), strict=True)) == sorted(expected.items())
    assert np.array_equal(ordered.table["idiag_cookie"], ordered.cookie)


# Troubles -----------------------------------------------------------------------------------------


def answers(*rows: bytes) -> list[list[bytes | OSError]]:
    """The dumps of a step: bound sockets, all sockets, listeners."""
    return [[netlink.done()], [*rows, netlink.done()], [netlink.done()]]


ROW = netlink.message(netlink.GETSOCK, netlink.body(cookie=9))
INTERRUPTED = netlink.message(netlink.GETSOCK, netlink.body(cookie=9), flags=netlink.DUMP_INTR)
LOST = OSError(errno.ENOBUFS, "No buffer space available")


def test_sockets_in_an_unknown_state_are_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    states = (1, 0, 10, 14, 255, 12, 13)
    rows = [netlink.message(netlink.GETSOCK, netlink.body(cookie=9 + at, state=it)) for at, it in enumerate(states)]
    FakeKernel([netlink.done()], *answers(*rows)).install(monkeypatch)
    with closing(LiveSource()) as live:
        sample = live.sample()
        assert sample.cookie.tolist() == sample.table["idiag_cookie"].tolist() == [9, 11, 14, 15]
        assert sample.state.tolist() == [State.ESTABLISHED, State.LISTEN, State.SYN_RCVD, State.CLOSED]
        assert len(sample.owner) == 4
        assert sample.completeness.missing[0] == "3 sockets in an unknown state"


def test_incomplete_dumps_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted: list[bytes | OSError] = [INTERRUPTED, netlink.done()]
    empty = [netlink.done()]
    FakeKernel(empty, interrupted, interrupted, empty, [ROW, LOST], [LOST], empty).install(monkeypatch)
    monkeypatch.setattr(live_source._BoundSockets, "table", lambda self: np.zeros(0, uapi.SOCKET))
    live = LiveSource()
    first, second = live.sample().completeness, live.sample().completeness
    assert (first.interrupted, first.answers_lost, first.retried, first.complete) == (True, False, True, False)
    assert (second.interrupted, second.answers_lost, second.retried, second.complete) == (False, True, True, False)
    assert (first.words, second.words) == ("interrupted dump", "answers lost")


def test_a_failed_sample_has_a_reason_and_the_next_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, invalid = [netlink.error(errno.EPERM)], [b"\xff" * 64]
    kernel = FakeKernel([netlink.done()], refused, invalid, *answers(ROW))
    kernel.install(monkeypatch)
    live = LiveSource()
    with pytest.raises(SourceError, match="refused the dump: Operation not permitted"):
        live.sample()
    with pytest.raises(SourceError, match="unexpected answer from sock_diag: a netlink message of"):
        live.sample()
    assert live.sample().cookie.tolist() == [9]
    live.close()
    assert kernel.open_now == 0


def test_destroy_events_of_a_failed_sample_are_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    lab.require(lab.namespaces)
    with ExitStack() as stack:
        stack.enter_context(lab.Namespace())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        it = stack.enter_context(closing(LiveSource(events=True)))
        it.sample()
        socket.create_connection(listener.getsockname()).close()
        accepted, _ = listener.accept()
        accepted.close()
        taken = []
        with monkeypatch.context() as patched:

            def refuse(*_: object, **__: object) -> NoReturn:
                taken.append(it._unused)
                raise SockDiagError(errno.EIO, "no")

            patched.setattr(it._diag, "dump", refuse)

            def both_are_reported() -> bool:
                with pytest.raises(SourceError):
                    it.sample()
                return taken[-1] is not None and len(taken[-1].table) == 2

            lab.wait_until(both_are_reported, "two destroy events")
        destroyed = it.sample().destroyed
        assert destroyed is not None
        assert len(destroyed.table) == len(destroyed.infos) == len(destroyed.received_monotonic_s) == 2
        after = it.sample().destroyed
        assert after is not None
        assert not len(after.table)


@pytest.mark.parametrize("answer", [netlink.error(errno.ENOENT), b"\xff" * 64])
def test_a_kernel_without_tcp_diag(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    kernel = FakeKernel([answer], [answer])
    kernel.install(monkeypatch)
    with pytest.raises(SourceError, match="; --source psutil shows less, but works without it"):
        open_source("sock_diag")
    assert kernel.open_now == 0
    assert isinstance(open_source("auto"), PsutilSource)
    assert kernel.open_now == 0


def test_a_kernel_without_sock_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise SockDiagError(errno.EPROTONOSUPPORT, "sock_diag cannot be used here: Protocol not supported")

    monkeypatch.setattr(sock_diag, "_open", refuse)
    with pytest.raises(SourceError) as caught:
        open_source("sock_diag")
    why = "sock_diag cannot be used here: Protocol not supported"
    assert str(caught.value) == f"{why}; --source psutil shows less, but works without it"
    assert open_source().info.kind == open_source("psutil").info.kind == "psutil"


def test_counters_that_cannot_be_read_have_a_reason(tmp_path: Path) -> None:
    figures, (reason,) = base.try_read_counters(tmp_path)
    assert figures == {}
    assert reason == f"no counters ({tmp_path / 'snmp'}: No such file or directory)"


# psutil -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_proc")
def test_psutil_sees_the_same_ends_and_states(live: LiveSource, crowd: list[lab.Produced]) -> None:
    theirs = PsutilSource()

    def same() -> bool:
        return ends(theirs.sample()) == ends(live.sample())

    lab.wait_until(same, "the same from both")
    sample = theirs.sample()
    assert len(ends(sample)) > len(crowd)
    assert sample.completeness.missing == ("no queues, timers, tcp_info or cookies",)
    assert (sample.cookie[1:] > sample.cookie[:-1]).all()
    owned = {sample.owners[code].processes[0].pid for code in sample.owner.tolist() if code >= 0}
    assert os.getpid() in owned


@pytest.mark.usefixtures("own_proc")
def test_a_flow_keeps_its_identity_from_sample_to_sample(peer: lab.Peer, namespace: lab.Namespace) -> None:
    theirs = PsutilSource()
    with lab.produce(peer, "FIN_WAIT_1", 4) as it:
        first = theirs.sample()
        assert it.connection
        it.connection.acknowledge()
        lab.wait_until(lambda: (row := it.row()) and row.state == "FIN_WAIT_2", "FIN_WAIT_2")
        second = theirs.sample()
    assert np.array_equal(first.cookie, second.cookie)
    assert sorted(counts(first)) == ["FIN_WAIT_1", "LISTEN"]
    assert sorted(counts(second)) == ["FIN_WAIT_2", "LISTEN"]


def test_a_failing_psutil_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kind: str) -> NoReturn:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil, "net_connections", fail)
    with pytest.raises(SourceError, match="psutil cannot list connections"):
        PsutilSource().sample()
