"""The kernel's counters: against nstat and `ss -s` in a namespace of our own, and in the formats of older kernels."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tcpwatch.kernel.proc import counters
from tcpwatch.sources import base
from tests import lab

PROC_NET = Path("/proc/net")


def nstat() -> dict[str, int]:
    """Return every counter by the name of nstat: the group of the file before the kernel's name."""
    done = subprocess.run(["nstat", "-asz", "--json"], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in json.loads(done.stdout)["kernel"].items()}


def read(proc_net: Path) -> dict[str, int]:
    values, errors = counters.read(proc_net)
    assert not errors
    return values


def counted() -> dict[str, int]:
    found = read(PROC_NET)
    return {name: value for name, value in found.items() if not name.startswith(counters.SOCKSTAT_PREFIX)}


def test_counters_equal_those_of_nstat(namespace: lab.Namespace) -> None:
    lab.require(lab.program("nstat"))

    def same() -> bool:
        before, theirs, after = counted(), nstat(), counted()
        ours = {name: {theirs.get(f"Tcp{name}"), theirs.get(f"TcpExt{name}")} for name in before}
        known = {name for name, values in ours.items() if values != {None}}
        assert before.keys() - known <= counters.GAUGES  # nstat leaves some of them out
        assert len(known) > 100
        return before == after and all(before[name] in ours[name] for name in known)

    lab.wait_until(same, "a quiet moment")


def test_counters_follow_the_traffic(namespace: lab.Namespace, peer: lab.Peer) -> None:
    before = read(PROC_NET)
    with socket.create_server((lab.LOCAL[4], 0), backlog=1) as listener:
        port = listener.getsockname()[1]
        connections = [peer.open(port) for _ in range(2)]
        for _ in range(3):
            peer.knock(port)
        after = read(PROC_NET)
    names = ("PassiveOpens", "ListenOverflows", "ListenDrops", "CurrEstab")
    assert [after[name] - before[name] for name in names] == [2, 3, 3, 2]
    assert all(connection.established for connection in connections)


def test_sockstat_equals_the_summary_of_ss(namespace: lab.Namespace, peer: lab.Peer) -> None:
    names = ("ESTABLISHED", "TIME_WAIT", "FIN_WAIT_2/orphan", "FIN_WAIT_1/orphan")
    with ExitStack() as stack:
        for name in names:
            for family in (4, 6):
                stack.enter_context(lab.produce(peer, name, 4 if family == 4 else 6))

        def same() -> bool:
            before, said, after = read(PROC_NET), namespace.ss("-s"), read(PROC_NET)
            from_ss = {word: int(number) for word, number in re.findall(r"(estab|orphaned|timewait) (\d+)", said)}
            ours = {"estab": "CurrEstab", "orphaned": "TCP_orphan", "timewait": "TCP_tw"}
            assert before["TCP_tw"] == 4  # those of TIME_WAIT, and the orphans of FIN_WAIT_2 (kernel 6.18)
            assert before["TCP6_inuse"] >= 2
            quiet = all(before[name] == after[name] for name in ours.values())
            return quiet and {word: before[name] for word, name in ours.items()} == from_ss

        lab.wait_until(same, "a quiet moment")


# Other formats ------------------------------------------------------------------------------------

SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens CurrEstab RetransSegs
Tcp: 1 200 120000 -1 11 22 3 44
Udp: InDatagrams NoPorts
Udp: 7 8
"""
NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 5 6 7
IpExt: InNoRoutes InOctets
IpExt: 0 999
"""
SOCKSTAT = """\
sockets: used 300
TCP: inuse 4 orphan 1 tw 2 alloc 9 mem 3
UDP: inuse 5 mem 2
"""
SOCKSTAT6 = "TCP6: inuse 6\nUDP6: inuse 1\n"
READ = {
    "RtoAlgorithm": 1, "RtoMin": 200, "RtoMax": 120_000, "MaxConn": -1, "ActiveOpens": 11, "PassiveOpens": 22,
    "CurrEstab": 3, "RetransSegs": 44, "SyncookiesSent": 5, "ListenOverflows": 6, "ListenDrops": 7,
    "TCP_inuse": 4, "TCP_orphan": 1, "TCP_tw": 2, "TCP_alloc": 9, "TCP_mem": 3, "TCP6_inuse": 6,
}  # fmt: skip


@pytest.fixture
def proc_net(tmp_path: Path) -> Path:
    for name, text in (("snmp", SNMP), ("netstat", NETSTAT), ("sockstat", SOCKSTAT), ("sockstat6", SOCKSTAT6)):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_all_files_are_read(proc_net: Path) -> None:
    assert read(proc_net) == READ


def test_without_ipv6_its_figures_are_absent(proc_net: Path) -> None:
    (proc_net / "sockstat6").unlink()
    assert READ.items() - read(proc_net).items() == {("TCP6_inuse", 6)}


def test_a_counter_that_a_kernel_lacks_is_absent(proc_net: Path) -> None:
    (proc_net / "netstat").write_text("TcpExt: SyncookiesSent\nTcpExt: 5\n")
    assert READ.keys() - read(proc_net).keys() == {"ListenOverflows", "ListenDrops"}


def test_a_line_without_values_is_an_error_and_a_file_without_the_line_is_none(proc_net: Path) -> None:
    (proc_net / "netstat").write_text("TcpExt: SyncookiesSent ListenOverflows\n")
    (proc_net / "sockstat").write_text("sockets: used 300\n")
    values, errors = counters.read(proc_net)
    assert values.keys() == {name for name in READ if name in SNMP} | {"TCP6_inuse"}
    assert [error.filename for error in errors] == [str(proc_net / "netstat")]


@pytest.mark.parametrize(
    ("name", "lacks"), [("snmp", "PassiveOpens"), ("netstat", "ListenDrops"), ("sockstat", "TCP_tw")]
)
def test_a_file_that_cannot_be_read_is_an_error_and_the_others_are_read(proc_net: Path, name: str, lacks: str) -> None:
    (proc_net / name).unlink()
    values, (error,) = counters.read(proc_net)
    assert error.filename == str(proc_net / name)
    assert values and values.items() < READ.items() and lacks not in values
    assert base.try_read_counters(proc_net) == (values, (f"not all counters ({error.filename}: {error.strerror})",))


def test_gauges_are_known() -> None:
    gauges = {name for name in READ if counters.is_gauge(name)}
    sockstat = {name for name in READ if "_" in name}
    assert gauges == {"RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab"} | sockstat
