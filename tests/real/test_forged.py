"""Root of a network namespace sends forged and malformed datagrams: they change nothing, and their number is shown."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.sock_diag import SockDiag
from tests import lab
from tests.sentences.recorder import note_texts
from tests.support.kernel import netlink

ROOT = Path(__file__).parent.parent.parent
_SO_COOKIE = 57
SKIPPED = ("--skip", "orphans", "--skip", "tcp-memory")
"""Rules whose sysctls a network namespace of its own lacks."""


def cookie(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def port_ids() -> list[int]:
    """Return nl_pid of all sock_diag sockets in this namespace, without the kernel's."""
    lines = [line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]]
    return [int(words[2]) for words in lines if int(words[1]) == uapi.NETLINK_SOCK_DIAG and words[2] != "0"]


@contextmanager
def forger(victims: list[socket.socket]) -> Iterator[threading.Event]:
    """Send events of the victims' end, and other bytes, to both groups and to each sock_diag socket.

    The event that is returned is set when datagrams went to a socket that listens to the groups.
    """
    info = bytes(280)
    datagrams = [
        netlink.message(netlink.BY_FAMILY, netlink.body(cookie=cookie(it), state=7), [(netlink.INFO, info)], sequence=0)
        for it in victims
    ]
    datagrams += [b"", b"\xff" * 7, bytes(4000), datagrams[0][:-4], netlink.error(1, sequence=0), netlink.done()]
    ending, heard, rng = threading.Event(), threading.Event(), random.Random(1)

    def run() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, uapi.NETLINK_SOCK_DIAG) as sock:
            while not ending.wait(0.002):
                for group in (uapi.SKNLGRP_INET_TCP_DESTROY, uapi.SKNLGRP_INET6_TCP_DESTROY):
                    try:
                        sock.sendto(rng.choice(datagrams), (0, 1 << (group - 1)))
                        heard.set()
                    except OSError:  # ESRCH: nobody listens to it
                        continue
                for port_id in port_ids():
                    with suppress(OSError):
                        sock.sendto(rng.choice(datagrams), (port_id, 0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield heard
    finally:
        ending.set()
        thread.join()


@pytest.fixture
def pair(namespace: lab.Namespace) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        yield [listener, client, stack.enter_context(listener.accept()[0])]


def test_answers_of_other_processes_are_refused(pair: list[socket.socket]) -> None:
    with closing(SockDiag()) as diag, forger(pair):
        lab.wait_until(lambda: len(port_ids()) > 1, "the forger")
        for _ in range(200):
            dump = diag.dump()
            assert not (dump.retried or dump.answers_lost)
            assert set(map(cookie, pair)) <= set(dump.table["idiag_cookie"].tolist())
            info = diag.tcp_info(dump.table[dump.table["idiag_cookie"] == cookie(pair[1])][0])
            assert info is not None and info["state"] == 1


def tcpwatch(*arguments: str) -> subprocess.Popen[str]:
    command, env = [sys.executable, "-m", "tcpwatch", *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_forged_events_end_nothing_and_are_reported(pair: list[socket.socket]) -> None:
    with forger(pair) as heard:
        summary, check = tcpwatch("summary", "--json", "--for", "2"), tcpwatch("check", "--for", "2", *SKIPPED)
        lab.wait_until(heard.is_set, "that they listen", deadline_s=30)
        made = 0
        while summary.poll() is None or check.poll() is None:
            with socket.create_connection(pair[0].getsockname()), pair[0].accept()[0]:
                made += 1
            with suppress(subprocess.TimeoutExpired):
                summary.wait(0.02)
        output, stderr = summary.communicate()
        assert (summary.returncode, stderr) == (0, "")
        facts = json.loads(output)
        assert facts["source"]["complete"]
        assert facts["source"]["forged_events"] > 10
        assert facts["states"]["ESTABLISHED"] >= 2, "the pair has not ended"
        assert facts["flows"]["ended_per_s"] > 0, "real events still come"
        # Each connection has two ends; three forged ends would be seen as one more each.
        assert facts["flows"]["ended_per_s"] * facts["flows"]["window_s"] <= 2 * made
        output, stderr = check.communicate()
        assert check.returncode == 0 or "a poll takes" in output, "a busy machine may be slow"
        assert "events" not in output, "none is lost"
        note_texts("remarks", stderr.splitlines())
        assert "forged destroy events, sent by a process that is not the kernel" in stderr
