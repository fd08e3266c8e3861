"""What is not looked at is said: a source without queues, other network namespaces."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tcpwatch.kernel.proc import namespaces
from tcpwatch.kernel.proc.namespaces import NamespaceCensus
from tcpwatch.model.rules.remarks import remarks
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample
from tcpwatch.sources.live import LiveSource
from tests import lab
from tests.lab.machine.requirements import other_users, tracefs
from tests.sentences.recorder import note_texts

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534
_SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


def no_netlink() -> None:
    """Let socket(AF_NETLINK) fail with EAFNOSUPPORT in this process and its children (seccomp(2))."""
    load, equals, give = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    program = (
        (load, 0, 0, 0), (equals, 0, 3, _SOCKET_CALL[platform.machine()]),
        (load, 0, 0, 16), (equals, 0, 1, socket.AF_NETLINK),
        (give, 0, 0, 0x50000 | 97), (give, 0, 0, 0x7FFF0000),
    )  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_):
        raise OSError(ctypes.get_errno(), "seccomp")


def blind(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tcpwatch without netlink."""
    return subprocess.run(
        [sys.executable, "-m", "tcpwatch", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        preexec_fn=no_netlink, check=False,
    )  # fmt: skip


@contextmanager
def overflowing_listener(namespace: lab.Namespace) -> Iterator[None]:
    """A listener that nobody accepts from, with a full queue that drops SYNs."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        clients = [socket.socket() for _ in range(8)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            lab.wait_until(lambda: namespace.counters()["ListenOverflows"] > 0, "a dropped SYN")
            yield
        finally:
            for client in clients:
                client.close()


def test_blind_is_not_well(namespace: lab.Namespace) -> None:
    if platform.machine() not in _SOCKET_CALL:
        pytest.skip(f"the number of socket() on {platform.machine()} is not known here")
    with overflowing_listener(namespace):
        done = blind("check", "--for", "0.5")
        assert done.returncode == 1
        (line,) = done.stdout.splitlines()
        assert line.startswith(
            "warning data-incomplete tcpwatch: no queues, timers, tcp_info or cookies "
            "(sock_diag cannot be used here: Address family not supported by protocol); rules without all their data: "
        )
        assert "accept-queue-full" in line and "syn-queue-full" in line
        facts = json.loads(blind("summary", "--json").stdout)
        assert (facts["source"]["kind"], facts["source"]["complete"]) == ("psutil", False)
        assert "queues" in facts["rules_without_data"]["accept-queue-full"]
        text = blind("summary").stdout
        assert "\nincomplete: no queues, timers, tcp_info or cookies (sock_diag cannot be used here: " in text


class FullSource(LiveSource):
    """A live source with the sysctls that a network namespace of its own lacks."""

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        sample = super().sample(watched)
        lacking = dict.fromkeys(("tcp_mem_pressure", "tcp_mem_high", "tcp_max_orphans"), 1 << 40)
        return replace(sample, sysctls={**sample.sysctls, **lacking})


def test_nothing_is_missing(namespace: lab.Namespace, tmp_path: Path) -> None:
    lab.require(tracefs)
    with closing(source := FullSource(events=True, trace=True)), closing(Monitor(source)) as monitor:
        with process() as here:
            source._namespaces = NamespaceCensus(proc_of(tmp_path, here))
            lab.wait_until(lambda: monitor.step().sample.other_namespaces == 0, "the search")
        view = monitor.step()
    assert remarks(view.sample) == ()
    assert view.findings == ()


# Other network namespaces -------------------------------------------------------------------------

_HOLD = """
import ctypes, os, socket, sys
if user := int(os.environ["HOLD_USER"]):
    os.setgroups([]); os.setgid(user); os.setuid(user)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: the user may look at it
held = [socket.create_server((a, 0), family=socket.AF_INET6 if ":" in a else socket.AF_INET) for a in sys.argv[1:]]
print(1, flush=True)
sys.stdin.read()
"""


@contextmanager
def process(*arguments: str, user: int = 0) -> Iterator[int]:
    """A process in the network namespace of the caller that listens at an address, or has no socket."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HOLD_USER": str(user)},
    ) as child:
        assert child.stdout and child.stdin
        try:
            assert child.stdout.readline() == b"1\n"
            yield child.pid
        finally:
            child.stdin.close()


@contextmanager
def elsewhere(*arguments: str, user: int = 0) -> Iterator[int]:
    """Such a process in another network namespace."""
    with lab.Namespace():
        running = process(*arguments, user=user)
        pid = running.__enter__()
    try:
        yield pid
    finally:
        running.__exit__(None, None, None)


def proc_of(folder: Path, *pids: int) -> str:
    """A /proc with these processes alone: those of other tests have namespaces of their own, too."""
    for name in ("thread-self", *map(str, pids)):
        (folder / name).symlink_to(f"/proc/{name}")
    return str(folder)


def test_other_namespaces_with_tcp_sockets_are_counted(namespace: lab.Namespace, tmp_path: Path) -> None:
    with (
        process("127.0.0.1") as here, elsewhere("127.0.0.1") as first, elsewhere("::1") as second, elsewhere() as idle,
    ):  # fmt: skip
        census = NamespaceCensus(proc_of(tmp_path, here, first, second, idle))
        assert census.look(10.0) == 2


def test_processes_of_one_namespace_count_once(namespace: lab.Namespace, tmp_path: Path) -> None:
    with lab.Namespace():
        first = process("127.0.0.1")
        second = process()
        pids = first.__enter__(), second.__enter__()
    try:
        assert NamespaceCensus(proc_of(tmp_path, *pids)).look(10.0) == 1
    finally:
        for one in (first, second):
            one.__exit__(None, None, None)


def test_the_search_goes_on_in_the_next_call_and_rests_afterwards(
    namespace: lab.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "_CHECK_CLOCK", 1)
    with elsewhere("127.0.0.1") as one, process() as other:
        census = NamespaceCensus(proc_of(tmp_path, one, other))
        results = [census.look(0.0) for _ in range(4)]
        assert results == [None, None, 1, 1]
    assert census.look(10.0) == 1, "it looks again only after a while"
    monkeypatch.setattr(namespaces, "LOOK_AGAIN_S", 0.0)
    census._due = 0.0
    assert census.look(10.0) == 0, "the processes have ended"


_SKIPPED = ("--skip", "orphans", "--skip", "tcp-memory")
"""Rules whose limits only the initial network namespace has."""


def test_check_and_summary_note_them(namespace: lab.Namespace) -> None:
    with elsewhere("127.0.0.1"):
        arguments = [sys.executable, "-m", "tcpwatch"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*arguments, "check", "--for", "0.3", "--no-trace", *_SKIPPED],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "")
        assert "with TCP sockets" in done.stderr and "not watched" in done.stderr
        done = subprocess.run(
            [*arguments, "summary"], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert "not watched" in done.stdout
        done = subprocess.run(
            [*arguments, "summary", "--json"], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert json.loads(done.stdout)["other_namespaces"] >= 1


_AS_NOBODY = f"""
import os, sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from tcpwatch.model.rules.remarks import remarks
from tcpwatch.sources.live import open_source
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
source = open_source("sock_diag", owners_least_s=0.5, events=True, trace=True)
while (sample := source.sample()).other_namespaces is None: pass
print(*remarks(sample), sep="\\n")
"""


def test_an_ordinary_user_sees_some_of_them(namespace: lab.Namespace) -> None:
    lab.require(other_users)
    with elsewhere("127.0.0.1"), elsewhere("127.0.0.1", user=NOBODY):
        command = [sys.executable, "-c", _AS_NOBODY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    note_texts("remarks", done.stdout.splitlines())
    assert "at least 1 other network namespace with TCP sockets is not watched" in done.stdout
    assert "port-scan (no trace: needs root)" in done.stdout
