"""`check` under induced faults: it exits with 0 only if every rule had its data, and never with a traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tcpwatch.cli import commands
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.kernel.netlink import decode_sockets, destroy_event_reader, sock_diag
from tcpwatch.kernel.proc import owner_finder
from tcpwatch.kernel.trace import ring_buffer, trace_events, tracefs, tracepoint_reader
from tcpwatch.model.analyses.ephemeral_ports import EphemeralPortAnalysis
from tcpwatch.model.analyses.retransmits import RetransmitAnalysis
from tcpwatch.model.analyses.stalls import StallAnalysis
from tcpwatch.model.analyses.teardown import TeardownAnalysis
from tcpwatch.model.finding import Candidate
from tcpwatch.model.lifecycle.tracker import Tracker
from tcpwatch.model.listeners.queue_analysis import QueueAnalysis
from tcpwatch.model.poll import SampleJoiner
from tcpwatch.model.rules import engine
from tcpwatch.model.rules.registry import all_rules
from tcpwatch.model.sockets.flow_totals import FlowTotalsCounter
from tcpwatch.model.trends import StateCounter
from tcpwatch.model.view import View
from tcpwatch.report import check, output, polling
from tcpwatch.sources import accept_queue_watch, event_watch, live
from tests import lab
from tests.lab.machine import faults
from tests.lab.machine.faults import Fault, Outcome, change_files, change_netlink, failing, fails, raise_in, receives
from tests.lab.machine.requirements import tracefs as has_tracefs

_INITIAL_ONLY = {"tcp_mem": b"100000 200000 300000\n", "tcp_max_orphans": b"65536\n"}
"""Sysctls that only the initial network namespace has."""


def run_check(fault: Fault, *arguments: str) -> Outcome:
    """Run `tcpwatch check` on a host that is well but for the fault."""

    def break_host() -> None:
        for name, content in _INITIAL_ONLY.items():
            change_files(f"/ipv4/{name}$", lambda _, content=content: content)  # type: ignore[misc]
        fault()

    arguments = arguments or ("check", "--for", "0.25", "--interval", "0.1")
    return faults.run_with(break_host, partial(commands.root.main, list(arguments)))


# The faults -------------------------------------------------------------------------------------------------------

FAULTS: dict[str, Fault] = {}

for _code in ("EPERM", "EACCES", "EAFNOSUPPORT", "EPROTONOSUPPORT", "EMFILE", "ENFILE", "ENOMEM"):
    _number = getattr(errno, _code)
    FAULTS[f"netlink: no socket for dumps ({_code})"] = partial(change_netlink, "__init__", fails(_number))
    FAULTS[f"netlink: no socket for destroy events ({_code})"] = partial(
        change_netlink, "__init__", fails(_number), events=True
    )
for _code in ("EPERM", "ENOMEM", "EIO", "ECONNREFUSED"):
    _number = getattr(errno, _code)
    FAULTS[f"netlink: sending fails ({_code})"] = partial(change_netlink, "sendto", fails(_number))
    FAULTS[f"netlink: sending fails later ({_code})"] = partial(change_netlink, "sendto", fails(_number, 4))
    FAULTS[f"netlink: receiving fails ({_code})"] = partial(change_netlink, "recv_into", fails(_number))
    FAULTS[f"netlink: receiving fails later ({_code})"] = partial(change_netlink, "recv_into", fails(_number, 6))
for _method in ("bind", "setsockopt", "getsockopt"):
    FAULTS[f"destroy events: {_method} fails"] = partial(change_netlink, _method, fails(errno.EPERM), events=True)


def _with_flags(flags: int) -> Callable[[memoryview, int], int]:
    def alter(buffer: memoryview, length: int) -> int:
        buffer[6] |= flags
        return length

    return alter


def _refusal(code: int) -> Callable[[memoryview, int], int]:
    """Turn a message into NLMSG_ERROR."""

    def alter(buffer: memoryview, _: int) -> int:
        buffer[0:8] = (36).to_bytes(4, "little") + (2).to_bytes(2, "little") + bytes(2)
        buffer[16:20] = (-code).to_bytes(4, "little", signed=True)
        return 36

    return alter


def _garbage(buffer: memoryview, length: int) -> int:
    buffer[:length] = bytes(at * 37 & 0xFF for at in range(length))
    return length


FAULTS |= {
    "dump: interrupted each time": partial(change_netlink, "recv_into", receives(_with_flags(0x10))),
    "dump: overrun each time (ENOBUFS)": partial(change_netlink, "recv_into", fails(errno.ENOBUFS)),
    "dump: overrun later (ENOBUFS)": partial(change_netlink, "recv_into", fails(errno.ENOBUFS, 6)),
    "dump: no answer": partial(change_netlink, "recv_into", fails(errno.EAGAIN)),
    "dump: garbage": partial(change_netlink, "recv_into", receives(_garbage)),
    "dump: half of each datagram": partial(change_netlink, "recv_into", receives(lambda _, length: length // 2 & ~3)),
    "dump: refused (EINVAL)": partial(change_netlink, "recv_into", receives(_refusal(errno.EINVAL))),
    "dump: refused (ENOENT)": partial(change_netlink, "recv_into", receives(_refusal(errno.ENOENT))),
    "dump: refused (EBUSY)": partial(change_netlink, "recv_into", receives(_refusal(errno.EBUSY))),
    "dump: a message that cannot be decoded": partial(
        raise_in, decode_sockets, "decode_sockets", decode_sockets.MessageError("odd"), 3
    ),
    "destroy events: receiving fails": partial(change_netlink, "recvfrom_into", fails(errno.EIO), events=True),
    "destroy events: some lost": partial(
        setattr, destroy_event_reader.DestroyEventReader, "_newly_dropped", lambda _: 3
    ),
}

# Files

_PROC_NET = ("snmp", "netstat", "sockstat")
_BAD_CONTENT = {
    "absent": failing(errno.ENOENT),
    "not readable": failing(errno.EACCES),
    "broken": failing(errno.EIO),
    "empty": lambda _: b"",
    "garbage": lambda _: b"\xff\x00 a: b\nTcp: x y\nTcpExt: 1\nTcp: \xb2 7\nTcpExt: z\nTCP: inuse x\n",
    "cut": lambda content: content[: len(content) // 4],
    "without values": lambda content: re.sub(rb"\d+", b"", content),
}
for _name in _PROC_NET:
    for _how, _content in _BAD_CONTENT.items():
        FAULTS[f"/proc/net/{_name}: {_how}"] = partial(change_files, f"/net/{_name}$", _content)


def _without(counter: str) -> Fault:
    return partial(change_files, r"/net/(snmp|netstat|sockstat)$", lambda text: text.replace(counter.encode(), b"Gone"))


_NEEDS = sorted({need for rule in all_rules() for need in rule.needs})
_COUNTERS = [need for need in _NEEDS if need[0].isupper() and not need.startswith("TCP_")]
_SYSCTLS = {
    "tcp_max_tw_buckets", "tcp_syncookies", "tcp_max_syn_backlog", "tcp_max_orphans", "tcp_mem", "ip_local_port_range",
    "ip_local_reserved_ports",
}  # fmt: skip
for _counter in _COUNTERS:
    FAULTS[f"counter: no {_counter}"] = _without(_counter)
FAULTS["counter: no orphans"] = partial(change_files, "/net/sockstat$", lambda text: text.replace(b"orphan", b"gone"))
FAULTS["counter: no memory"] = partial(change_files, "/net/sockstat$", lambda text: text.replace(b"mem", b"gone"))
for _name in sorted(_SYSCTLS):
    for _how in ("absent", "not readable", "garbage"):
        FAULTS[f"sysctl: {_name} {_how}"] = partial(change_files, f"/ipv4/{_name}$", _BAD_CONTENT[_how])
FAULTS["sysctl: none readable"] = partial(change_files, "^/proc/sys/net", failing(errno.EACCES))

# Watchers

_ERRORS: tuple[Exception, ...] = (ValueError("odd"), MemoryError(), OSError(errno.EIO, "Input/output error"))
_BUGS: tuple[Exception, ...] = (AssertionError("a bug"), MemoryError(), RecursionError("too deep"))
for _error in _ERRORS:
    _kind = type(_error).__name__
    FAULTS |= {
        f"queue watch: {_kind}": partial(raise_in, accept_queue_watch.AcceptQueueWatch, "_read_depths", _error),
        f"event watch: {_kind}": partial(raise_in, event_watch.EventWatch, "_read_destroyed", _error, 1),
        f"trace: {_kind} while reading": partial(raise_in, tracepoint_reader.TracepointReader, "read", _error, 1),
        f"trace: {_kind} while decoding": partial(raise_in, ring_buffer, "decode_pages", _error),
    }
FAULTS |= {
    "trace: no tracefs": partial(raise_in, tracefs, "_mounted", tracefs.TraceError(errno.ENODEV, "no tracefs")),
    "trace: not allowed": partial(raise_in, os, "mkdir", PermissionError(errno.EPERM, "Operation not permitted")),
    "trace: no tracepoint": partial(
        raise_in, tracepoint_reader.TracepointReader, "_enable", tracefs.TraceError(errno.ENOENT, "no tracepoint")
    ),
    "trace: no tracepoint of resets": partial(change_files, "events/tcp/tcp_send_reset$", failing(errno.ENOENT)),
    "trace: events lost": partial(
        setattr, tracepoint_reader.TracepointReader, "take",
        lambda _: trace_events.TraceEvents(np.empty(0, trace_events.TRACE_EVENT), 7),
    ),
    "trace: ended later": partial(
        raise_in, tracepoint_reader, "_read_pages", tracefs.TraceError(errno.EIO, "the trace cannot be read"), 3
    ),
}  # fmt: skip

# A fault of tcpwatch, or no memory

_STEPS = {
    "dump": (sock_diag.SockDiag, "dump"), "listeners": (sock_diag.SockDiag, "listeners"),
    "sort": (live, "sort_by_cookie"), "owners": (owner_finder.OwnerFinder, "find"),
    "join": (SampleJoiner, "step"), "states": (StateCounter, "step"),
    "lifecycle": (Tracker, "step"), "queues": (QueueAnalysis, "step"),
    "ports": (EphemeralPortAnalysis, "step"), "teardown": (TeardownAnalysis, "step"),
    "stalls": (StallAnalysis, "step"), "retransmits": (RetransmitAnalysis, "step"),
    "totals": (FlowTotalsCounter, "step"), "rules": (engine.RuleEngine, "step"),
    "report": (check, "check"), "polling": (polling, "views"), "settings": (commands, "_settings"),
    "output": (output.Output, "write_text"), "close": (live.LiveSource, "close"),
}  # fmt: skip
for _step, (_owner, _name) in _STEPS.items():
    for _error in _BUGS:
        FAULTS[f"{type(_error).__name__} in {_step}"] = partial(raise_in, _owner, _name, _error)


def _break_rule(name: str) -> None:
    def fail(view: View, limits: Thresholds) -> Iterator[Candidate]:
        raise AssertionError("a bug")

    engine.RULES = tuple(replace(rule, check=fail) if rule.name == name else rule for rule in all_rules())


FAULTS |= {f"a bug in {rule.name}": partial(_break_rule, rule.name) for rule in all_rules()}


# The tests --------------------------------------------------------------------------------------------------------


_TRAFFIC = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print(flush=True)
end = time.monotonic() + 600
while time.monotonic() < end:
    with socket.create_connection(listener.getsockname()), listener.accept()[0]:
        time.sleep(0.02)
"""


@pytest.fixture(autouse=True, scope="module")
def busy_host() -> Iterator[None]:
    """A namespace with fifty connections a second."""
    lab.require(lab.namespaces, has_tracefs)
    with (
        lab.Namespace(),
        subprocess.Popen([sys.executable, "-c", _TRAFFIC], stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout and process.stdout.readline()
        yield
        process.kill()


def test_without_a_fault_the_host_is_well() -> None:
    done = run_check(lambda: None)
    assert (done.code, done.stdout) == (0, ""), done


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said(name: str) -> None:
    done = run_check(FAULTS[name])
    assert done.code in (1, 2), done
    if done.code == 2:
        *notes, line = done.stderr.splitlines()
        assert line.startswith("tcpwatch: ") and all(note.startswith("tcpwatch: note: ") for note in notes), done
    else:
        assert "data-incomplete" in done.stdout, done
    assert "Traceback" not in done.stderr, done
