"""The foundations of the lab: namespaces that leave nothing behind, waits with a timeout, packets."""

import os
import socket
import threading

import pytest

from tests import lab
from tests.lab.machine.syscalls import setns
from tests.lab.wire.packets import checksum
from tests.lab.wire.wire import Wire


def where() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_the_thread_returns_and_nothing_is_left_open() -> None:
    lab.require(lab.namespaces, lab.tun, lab.program("ip"))
    here, files, threads = where(), open_files(), threading.active_count()
    with lab.Namespace() as outer, lab.Peer(outer) as peer:
        assert where() == outer.inode != here
        with lab.Namespace() as inner:
            assert where() == inner.inode != outer.inode
        assert where() == outer.inode
        with socket.create_server((lab.LOCAL[4], 0)) as listener:
            peer.flood(listener.getsockname()[1], 10)
    assert (where(), open_files(), threading.active_count()) == (here, files, threads)


def test_the_thread_returns_after_an_error() -> None:
    lab.require(lab.namespaces)
    here, files = where(), open_files()
    with pytest.raises(LookupError), lab.Namespace():
        raise LookupError
    assert (where(), open_files()) == (here, files)


def test_a_namespace_works_only_inside_its_block() -> None:
    lab.require(lab.namespaces)
    with lab.Namespace() as outer, lab.Namespace(), pytest.raises(RuntimeError, match="not in"):
        outer.counters()


def test_sysctls_are_the_namespace_s_own() -> None:
    lab.require(lab.namespaces)
    with lab.Namespace() as namespace:
        before = namespace.sysctl("net.ipv4.tcp_fin_timeout")
        with lab.Namespace() as other:
            assert other.sysctl("net.ipv4.tcp_fin_timeout", 7) == "7"
        assert namespace.sysctl("net.ipv4.tcp_fin_timeout") == before != "7"
        with pytest.raises(FileNotFoundError):
            namespace.sysctl("net.ipv4.no_such_name")


def test_another_thread_can_enter_by_the_path() -> None:
    lab.require(lab.namespaces)
    found: list[int] = []

    def enter() -> None:
        with open(namespace.path) as file:
            setns(file.fileno())
        found.append(where())

    with lab.Namespace() as namespace, lab.Namespace():  # the thread starts in the second
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert found == [namespace.inode]


def test_only_the_main_thread_may_use_a_namespace() -> None:
    found: list[str] = []

    def enter() -> None:
        with pytest.raises(RuntimeError, match="main thread") as caught:
            lab.Namespace().__enter__()
        found.append(str(caught.value))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found


# Small parts ----------------------------------------------------------------------------------


def test_require_skips_unless_skipping_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    lab.require(lambda: "")
    monkeypatch.delenv("TCPWATCH_REQUIRE_KERNEL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no kernel here; needs Linux 99\.0"):
        lab.require(lambda: "no kernel here", lab.kernel(99, 0))
    monkeypatch.setenv("TCPWATCH_REQUIRE_KERNEL", "1")
    with pytest.raises(pytest.fail.Exception, match="no kernel here"):
        lab.require(lambda: "no kernel here")


def test_a_timeout_names_the_awaited_thing() -> None:
    with pytest.raises(TimeoutError, match="for the moon"):
        lab.wait_until(lambda: False, "the moon", deadline_s=0.01)


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2  # section 3


@pytest.mark.parametrize("addresses", [("198.18.0.2", "198.18.0.1"), ("fd00::2", "fd00::1")])
def test_a_segment_survives_packing(addresses: tuple[str, str]) -> None:
    source, destination = (lab.Endpoint(address, 4321) for address in addresses)
    options = lab.Options(1400, 7, sack_permitted=True, timestamps=(1, 2))
    flags = lab.Flag.ACK | lab.Flag.PSH
    segment = lab.Segment(source, destination, flags, 5, 6, 7, options, b"odd")
    assert lab.parse(segment.pack()) == segment


def test_the_error_of_a_reader_thread_is_raised() -> None:
    def fail(segment: lab.Segment) -> None:
        raise LookupError(segment.source.address)

    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    mine.setblocking(False)
    wire = Wire(mine.detach(), fail)
    end = lab.Endpoint("198.18.0.9", 9)
    with theirs:
        theirs.send(lab.Segment(end, end, lab.Flag.SYN).pack())
        with pytest.raises(RuntimeError, match="reader thread"):
            wire.wait_for(lambda: False, "nothing")
        with pytest.raises(RuntimeError, match="reader thread"):
            wire.close()
