"""Tracepoints on the real kernel: events, their times and sockets, lost events, and cleaning up."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.trace import decode_events, tracefs, tracepoint_reader
from tcpwatch.kernel.trace.event_format import EventFormat, parse
from tcpwatch.kernel.trace.trace_events import TraceEventKind, TraceEvents
from tcpwatch.kernel.trace.tracefs import TraceError, TracefsMount, TraceInstance
from tcpwatch.kernel.trace.tracepoint_reader import TracepointReader
from tests import lab
from tests.lab.machine.requirements import tracefs as has_tracefs
from tests.support.kernel import tracepoint_texts as texts

ROOT = Path(__file__).parents[3]
_SO_COOKIE = 57
_PID = os.getpid()
HOSTS: dict[int, str] = {
    # Addresses of this run alone: the trace has all network namespaces, and other tests may run at the same time.
    socket.AF_INET: f"127.{1 + _PID // 250 % 250}.{1 + _PID % 250}.7",
    socket.AF_INET6: f"fd00:7cb::{_PID & 0xFFFF:x}",
}
FAMILIES = pytest.mark.parametrize("family", HOSTS, ids=("IPv4", "IPv6"))
(ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, _, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN) = range(1, 11)


class Pair(NamedTuple):
    """Both ends of a connection of this host with itself."""

    listener: socket.socket
    client: socket.socket
    server: socket.socket

    @property
    def ports(self) -> tuple[int, int]:
        return self.client.getsockname()[1], self.listener.getsockname()[1]


@pytest.fixture(scope="module")
def here(namespace: lab.Namespace) -> Iterator[lab.Namespace]:
    lab.require(has_tracefs)
    namespace.add_address(f"{HOSTS[socket.AF_INET6]}/128")
    yield namespace


@pytest.fixture
def trace(here: lab.Namespace) -> Iterator[TracepointReader]:
    with closing(TracepointReader()) as it:
        yield it


@contextmanager
def connected(family: int) -> Iterator[Pair]:
    with (
        socket.create_server((HOSTS[family], 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2], source_address=(HOSTS[family], 0)) as client,
        listener.accept()[0] as server,
    ):
        yield Pair(listener, client, server)


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def address(family: int) -> bytes:
    return socket.inet_pton(family, HOSTS[family]).ljust(16, b"\0")


def ours(traced: TraceEvents, family: int) -> NDArray[np.void]:
    """Return the events with our address at one end."""
    mine = np.frombuffer(address(family), np.uint8)
    at = [(traced.events[end] == mine).all(axis=1) for end in ("src", "dst")]
    found = traced.events[at[0] | at[1]]
    assert (found["family"] == family).all()
    return cast(NDArray[np.void], found)


def changes(events: NDArray[np.void], socket_: int) -> list[tuple[int, int]]:
    of_it = events[(events["kind"] == TraceEventKind.STATE) & (events["socket"] == socket_)]
    return list(zip(of_it["old"].tolist(), of_it["new"].tolist(), strict=True))


def address_of(events: NDArray[np.void], wanted: int) -> int:
    """Return the kernel address of the socket with this cookie."""
    (found,) = events[(events["kind"] == TraceEventKind.DESTROYED) & (events["cookie"] == wanted)]
    return int(found["socket"])


# What happened ------------------------------------------------------------------------------------


@FAMILIES
def test_all_states_of_a_connection_at_both_ends(trace: TracepointReader, family: int) -> None:
    begin = time.monotonic()
    with connected(family) as pair:
        opened = time.monotonic()
        ports, cookies = pair.ports, (cookie(pair.client), cookie(pair.server))
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.server.recv(1) == b""
        closing_ = time.monotonic()
    traced = trace.take()
    end = time.monotonic()
    events = ours(traced, family)
    assert traced.lost == 0
    client, server = (address_of(events, wanted) for wanted in cookies)
    assert changes(events, client) == list(pairwise((CLOSE, SYN_SENT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE)))
    assert changes(events, server) == list(pairwise((LISTEN, SYN_RECV, ESTABLISHED, CLOSE_WAIT, LAST_ACK, CLOSE)))
    assert (np.diff(traced.events["time"]) >= 0).all()
    now_open = events["time"][(events["kind"] == TraceEventKind.STATE) & (events["new"] == ESTABLISHED)]
    assert ((begin <= now_open) & (now_open <= opened)).all()
    destroyed = events[events["kind"] == TraceEventKind.DESTROYED]
    assert ((closing_ <= destroyed["time"]) & (destroyed["time"] <= end)).all()
    of_client = events[(events["socket"] == client) & (events["new"] == ESTABLISHED)][0]
    assert (of_client["sport"], of_client["dport"], of_client["pid"]) == (*ports, _PID)
    assert of_client["src"].tobytes() == of_client["dst"].tobytes() == address(family)


@FAMILIES
@pytest.mark.parametrize("reason", ["TCP_STATE", "TCP_ABORT_ON_CLOSE"])
def test_a_reset_is_traced_at_both_ends_with_its_reason(trace: TracepointReader, family: int, reason: str) -> None:
    with connected(family) as pair:
        ports, ends = pair.ports, (cookie(pair.client), cookie(pair.server))
        if reason == "TCP_STATE":  # of what close() becomes with SO_LINGER 0: tcp_disconnect
            pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            pair.server.send(b"never read")
        pair.client.close()
        with pytest.raises(ConnectionResetError):
            pair.server.recv(1)
    traced = trace.take()
    events = ours(traced, family)
    (sent,) = events[events["kind"] == TraceEventKind.RESET_SENT]
    assert (sent["sport"], sent["dport"]) == ports
    assert sent["src"].tobytes() == sent["dst"].tobytes() == address(family)
    assert sent["old"] == sent["new"] == CLOSE  # already
    (received,) = events[events["kind"] == TraceEventKind.RESET_RECEIVED]
    assert (received["sport"], received["dport"], received["cookie"]) == (*ports[::-1], ends[1])
    assert (sent["socket"], received["socket"]) == tuple(address_of(events, end) for end in ends)
    if traced.reset_reasons:
        assert traced.reset_reasons[int(sent["reason"])] == reason


@FAMILIES
def test_a_closed_port_resets_without_a_socket_and_the_caller_is_traced(trace: TracepointReader, family: int) -> None:
    with socket.create_server((HOSTS[family], 0), family=family) as listener:
        port = listener.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(ConnectionRefusedError), socket.socket(family) as client:
        client.connect((HOSTS[family], port))
    traced = trace.take()
    events = ours(traced, family)
    (sent,) = events[events["kind"] == TraceEventKind.RESET_SENT]
    (received,) = events[events["kind"] == TraceEventKind.RESET_RECEIVED]
    assert (sent["sport"], sent["dport"], sent["socket"], sent["new"]) == (port, received["sport"], 0, 0)
    assert received["dport"] == port
    if "sock/inet_sk_error_report" not in trace.missing:
        (error,) = events[events["kind"] == TraceEventKind.ERROR]
        assert (error["reason"], error["sport"], error["dport"]) == (errno.ECONNREFUSED, received["sport"], port)
    if traced.reset_reasons:
        assert traced.reset_reasons[int(sent["reason"])] == "NO_SOCKET"
    if "skb/kfree_skb" not in trace.missing:
        drops = traced.events[(traced.events["kind"] == TraceEventKind.DROP) & (traced.events["time"] >= begin)]
        assert "NO_SOCKET" in {traced.drop_reasons[reason] for reason in drops["reason"].tolist()}


def test_retransmits(peer: lab.Peer, trace: TracepointReader) -> None:
    """Data without ACK, and a SYN+ACK without answer."""
    with socket.create_server((lab.LOCAL[4], 0)) as listener:
        connection = peer.open(listener.getsockname()[1])
        kernel, _ = listener.accept()
        with kernel:
            connection.lose_every(1)
            kernel.sendall(b"x")
            knocked = peer.knock(listener.getsockname()[1])
            repeats = {
                TraceEventKind.RETRANSMIT: connection.remote.port,
                TraceEventKind.SYNACK_RETRANSMIT: knocked.remote.port,
            }
            found: list[NDArray[np.void]] = []

            def repeated(kind: TraceEventKind) -> NDArray[np.void]:
                events = np.concatenate(found)
                ends = (events["sport"] == listener.getsockname()[1]) & (events["dport"] == repeats[kind])
                return cast(NDArray[np.void], events[ends & (events["kind"] == kind)])

            def both() -> bool:
                found.append(trace.take().events)
                return all(len(repeated(kind)) for kind in repeats)

            lab.wait_until(both, "repeats of both kinds")
            connection.lose_every(0)
        of_data, of_syn_ack = (repeated(kind)[0] for kind in repeats)
        assert of_data["old"] == of_data["new"] == ESTABLISHED
        events = np.concatenate(found)
        (listening,) = events[(events["new"] == LISTEN) & (events["sport"] == listener.getsockname()[1])]
        assert of_syn_ack["socket"] == listening["socket"]


def test_a_socket_address_belongs_to_one_cookie_at_a_time(trace: TracepointReader) -> None:
    """Kernel addresses are reused; between two DESTROYED events an address belongs to one socket."""
    cookies = []
    for _ in range(200):
        with connected(socket.AF_INET) as pair:
            cookies += [cookie(pair.client), cookie(pair.server)]
    events = ours(trace.take(), socket.AF_INET)
    destroyed = events[events["kind"] == TraceEventKind.DESTROYED]
    assert set(cookies) <= set(destroyed["cookie"].tolist())
    assert len(set(destroyed["socket"].tolist())) < len(destroyed)
    for socket_ in set(destroyed["socket"].tolist()):
        of_it = events[events["socket"] == socket_]
        begins = np.flatnonzero(of_it["kind"] == TraceEventKind.DESTROYED)[:-1] + 1
        assert set(of_it["old"][begins].tolist()) <= {CLOSE, LISTEN}


def test_each_take_ends_at_one_moment_on_all_processors(trace: TracepointReader) -> None:
    """The buffers are read one after the other: events that arrive meanwhile are left for the next take()."""

    def connect() -> None:
        for _ in range(1_000):
            with connected(socket.AF_INET):
                pass

    threads = [threading.Thread(target=connect) for _ in range(2)]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        times = trace.take().events["time"]
        if len(times):
            taken.append((len(times), times[0], times[-1]))
    taken.append((len(trace.take().events), math.inf, math.inf))
    assert all(end <= begin for (_, _, end), (_, begin, _) in pairwise(taken))
    assert sum(count for count, _, _ in taken) >= 2 * 1_000 * 12  # states and ends of both


# What is lost -------------------------------------------------------------------------------------


def test_overwritten_events_are_counted_exactly(here: lab.Namespace) -> None:
    """Compare a reader with a small buffer that reads seldom with one that has a large buffer."""
    with (
        socket.create_server((HOSTS[socket.AF_INET], 0)) as listener,
        closing(TracepointReader(buffer_kb=8)) as small,
        closing(TracepointReader()) as large,
    ):
        for it in (small, large):
            narrowed(it, listener.getsockname()[1])
        before, _ = small.take().lost, large.take()  # what others did until now
        recorded = lost = expected = 0
        for rounds in range(4):
            for _ in range(300 if rounds < 3 else 2):
                with socket.create_connection(listener.getsockname()), listener.accept()[0]:
                    pass
            traced = small.take()
            recorded, lost = recorded + len(traced.events), lost + traced.lost
            assert traced.lost > 0 or rounds == 3
            complete = large.take()
            expected += len(complete.events)
            assert complete.lost == 0
            assert recorded + lost == expected
        assert before + lost == small._instance.overrun()


def narrowed(trace: TracepointReader, port: int) -> None:
    """Record only changes of state of this port."""
    for point in tracepoint_reader._TRACEPOINTS:
        if point.name not in trace.missing:
            trace._instance.write(f"events/{point.name}/enable", "0")
    trace._instance.write("events/sock/inet_sock_set_state/filter", f"sport == {port} || dport == {port}")
    trace._instance.write("events/sock/inet_sock_set_state/enable", "1")


def test_without_a_reader_the_oldest_events_are_dropped(here: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracepoint_reader, "_KEPT", 50)
    with socket.create_server((HOSTS[socket.AF_INET], 0)) as listener, closing(TracepointReader()) as trace:
        narrowed(trace, listener.getsockname()[1])
        trace.take()
        ports = []
        for _ in range(10):
            with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
                ports.append(client.getsockname()[1])
            trace.read()
        traced = trace.take()
        assert 0 < len(traced.events) <= 50 < traced.lost + len(traced.events)
        assert set(traced.events["sport"].tolist() + traced.events["dport"].tolist()) - {listener.getsockname()[1]} <= {
            0,
            *ports[-6:],
        }


# What is left behind ------------------------------------------------------------------------------


def instances() -> set[str]:
    mount = TracefsMount()
    try:
        return {name for name in os.listdir(f"{mount.path}/instances") if name.startswith("tcpwatch-")}
    finally:
        mount.close()


def stopped(pid: int) -> bool:
    folder = Path(TracefsMount().path, "instances", f"tcpwatch-{pid}")
    size = (folder / "buffer_size_kb").read_text()
    return (folder / "tracing_on").read_text().strip() == "0" and int(size.split()[0]) < 1024


def child(code: str) -> subprocess.Popen[str]:
    """Start another process that opens a TracepointReader, prints "up", and then runs `code`."""
    lines = f"""
from tcpwatch.kernel.trace.tracepoint_reader import TracepointReader
it = TracepointReader()
print('up', flush=True)
{code}
"""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", lines], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=pipe, stdout=pipe, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    return process


def test_close_leaves_nothing_behind(here: lab.Namespace) -> None:
    files = len(os.listdir("/proc/self/fd"))
    trace = TracepointReader()
    name = Path(trace._instance.path).name
    assert name in instances()
    trace.close()
    trace.close()
    assert name not in instances()
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_process_that_ends_without_close_leaves_nothing(here: lab.Namespace) -> None:
    with child("") as process:
        process.wait(30)
    assert f"tcpwatch-{process.pid}" not in instances()


def test_the_instance_of_a_crashed_process_is_removed(here: lab.Namespace) -> None:
    with child("input()") as running, child("input()") as crashing:
        crashing.kill()
        crashing.wait(30)
        assert f"tcpwatch-{crashing.pid}" in instances()
        lab.wait_until(lambda: stopped(crashing.pid), "that the kernel stops recording for it")
        with closing(TracepointReader()) as trace, closing(TracepointReader()) as second:
            assert f"tcpwatch-{crashing.pid}" not in instances()
            mine = {Path(it._instance.path).name for it in (trace, second)}
            assert mine | {f"tcpwatch-{running.pid}"} <= instances()
            assert len(mine) == 2
        running.communicate("\n", timeout=30)
    assert f"tcpwatch-{running.pid}" not in instances()
    assert not mine & instances()


def test_nothing_of_the_host_changes(here: lab.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the trace outside of the instance changes, nor, where tracefs is not mounted, the mounts."""
    top = TracefsMount().path
    watched = [f"{top}/{name}" for name in ("tracing_on", "trace_clock", "buffer_size_kb", "events/tcp/enable")]

    def look() -> list[str]:
        return [Path(name).read_text() for name in [*watched, "/proc/self/mountinfo"]]

    before, files = look(), len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(tracefs, "_PLACES", ("/nowhere", "/proc/version"))
    with closing(TracepointReader()) as trace:
        assert trace._instance.path.startswith("/proc/self/fd/")
        assert look() == before
        with connected(socket.AF_INET):
            pass
        assert len(ours(trace.take(), socket.AF_INET)) > 0
    assert look() == before
    assert len(os.listdir("/proc/self/fd")) == files


# Other kernels, other users -----------------------------------------------------------------------


def test_events_the_kernel_lacks_are_reported_and_left_out(
    here: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = TraceInstance.has
    monkeypatch.setattr(TraceInstance, "has", lambda self, name: "reset" not in name and has(self, name))
    with closing(TracepointReader()) as trace:
        assert set(trace.missing) >= {"tcp/tcp_send_reset", "tcp/tcp_receive_reset"}
        assert not trace.take().reset_reasons
    monkeypatch.setattr(EventFormat, "symbols", lambda self, field: {})
    with closing(TracepointReader()) as trace:
        assert "skb/kfree_skb" in trace.missing


def test_without_a_required_event_it_fails_and_leaves_nothing(
    here: lab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, before = len(os.listdir("/proc/self/fd")), instances()
    has = TraceInstance.has
    monkeypatch.setattr(TraceInstance, "has", lambda self, name: "destroy" not in name and has(self, name))
    with pytest.raises(TraceError, match="no tracepoint tcp/tcp_destroy_sock"):
        TracepointReader()
    assert len(os.listdir("/proc/self/fd")) == files
    assert instances() - before == set()


@pytest.mark.parametrize(
    ("code", "uid", "words"),
    [
        (errno.EACCES, 1000, "needs root"),
        (errno.EPERM, 0, "not allowed in this container or by lockdown"),
        (errno.EROFS, 0, "tracefs: Read-only file system"),
    ],
)
def test_the_reason_of_a_failure(monkeypatch: pytest.MonkeyPatch, code: int, uid: int, words: str) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(TraceError) as caught:
        TraceInstance()
    assert caught.value.strerror == words


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENODEV, "this kernel has no tracefs"), (errno.ENOSYS, "tracefs is not mounted")]
)
def test_tracefs_that_cannot_be_mounted(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    class Libc:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def syscall(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(tracefs, "_PLACES", ("/nowhere",))
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    with pytest.raises(TraceError) as caught:
        TracefsMount()
    assert caught.value.strerror == words


def rows_of(text: str, **values: object) -> np.void:
    form = parse(text)
    payload = np.zeros(1, form.dtype)
    for name, value in values.items():
        payload[name] = value
    (row,) = decode_events.decode_trace_events(TraceEventKind.RESET_SENT, form, payload, np.array([5_000_000_000]))
    return row  # type: ignore[no-any-return]


V4, MAPPED = np.array([10, 1, 2, 3], np.uint8), np.array([0] * 10 + [255, 255, 10, 1, 2, 3], np.uint8)


def test_destroy_events_of_older_kernels() -> None:
    ends = {"saddr": V4, "saddr_v6": MAPPED, "daddr": V4 + 1, "daddr_v6": MAPPED}
    row = rows_of(texts.OLD_SEND_RESET, family=2, sport=80, dport=4000, state=8, skaddr=7, **ends)
    assert row["src"].tobytes() == V4.tobytes() + bytes(12)
    assert row["dst"].tobytes() == (V4 + 1).tobytes() + bytes(12)
    assert (row["sport"], row["dport"], row["family"], row["old"], row["new"]) == (80, 4000, 2, 8, 8)
    assert (row["time"], row["socket"], row["reason"], row["cookie"]) == (5, 7, 0, 0)
    row = rows_of(texts.OLD_SEND_RESET, family=10, **ends)
    assert row["src"].tobytes() == row["dst"].tobytes() == MAPPED.tobytes()


def test_destroy_events_of_newer_kernels() -> None:
    v4 = np.frombuffer(struct.pack("=H", 2) + struct.pack("!H4s", 443, V4.tobytes()) + bytes(20), np.uint8)
    v6 = np.frombuffer(struct.pack("=H", 10) + struct.pack("!HI16sI", 444, 9, MAPPED.tobytes(), 3), np.uint8)
    row = rows_of(texts.SEND_RESET, saddr=v4, daddr=v4, reason=11)
    assert (row["family"], row["sport"], row["dport"], row["reason"]) == (2, 443, 443, 11)
    assert row["src"].tobytes() == row["dst"].tobytes() == V4.tobytes() + bytes(12)
    row = rows_of(texts.SEND_RESET, saddr=v6, daddr=v6)
    assert (row["family"], row["sport"], row["dport"]) == (10, 444, 444)
    assert row["src"].tobytes() == row["dst"].tobytes() == MAPPED.tobytes()
    row = rows_of(texts.SEND_RESET)
    assert (row["family"], row["sport"], row["src"].tobytes()) == (0, 0, bytes(16))


def test_a_payload_shorter_than_its_format_is_refused() -> None:
    form = parse(texts.SET_STATE)
    words = np.zeros(18, np.uint32)
    assert len(decode_events.payloads(words, np.array([0]), np.array([18]), form)) == 1
    with pytest.raises(TraceError, match="68 bytes, 72 were described"):
        decode_events.payloads(words, np.array([0]), np.array([17]), form)


def test_the_filter_of_drops_is_short() -> None:
    passes = tracepoint_reader._drop_filter({3, 10, 20, 21, 22})
    assert passes.endswith("&& (reason == 3 || reason == 10 || (reason >= 20 && reason <= 22))")
