"""Texts in /proc and /proc/sys that no kernel writes: they are no traceback, and what they hide is missing, not 0."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tcpwatch.kernel.proc import counters, descriptors, sysctl
from tcpwatch.kernel.proc.descriptors import Descriptors
from tcpwatch.kernel.proc.numbers import kernel_number
from tcpwatch.kernel.proc.process import read_process, read_process_stat
from tcpwatch.sources.base import try_read_counters, try_read_sysctls

GARBAGE = [
    b"",
    b"\n",
    b"\0" * 100,
    b"\xff\xfe\n",
    b"Tcp:\n",
    b"Tcp: A\nTcp: x\n",
    b"9" * 5000,
    b"%s%n" * 10,
    b"TCP: inuse",
]


@pytest.mark.parametrize(
    "word", ["", "-", "x", "1_000", "+1", "²", "٣", "1" * 21, "1" * 5000, "18446744073709551616", "1\n"]
)
def test_words_that_are_no_number(word: str) -> None:
    assert kernel_number(word) is None


def test_numbers() -> None:
    assert [kernel_number(word) for word in ("0", "-1", "007", "18446744073709551615")] == [0, -1, 7, (1 << 64) - 1]


@pytest.mark.parametrize("text", GARBAGE)
def test_counters(tmp_path: Path, text: bytes) -> None:
    for name in ("snmp", "netstat", "sockstat", "sockstat6"):
        (tmp_path / name).write_bytes(text)
    values, errors = counters.read(tmp_path)
    assert values == {}
    assert {error.strerror for error in errors} <= {"unexpected content"}


def test_a_file_of_counters_with_other_content_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "snmp").write_text("Tcp: ActiveOpens PassiveOpens\nTcp: 1 many\n")
    (tmp_path / "netstat").write_text("TcpExt: ListenDrops\nTcpExt: 1 2\n")
    (tmp_path / "sockstat").write_text("\nTCP: inuse 5\n")
    (tmp_path / "sockstat6").write_text("TCP6: inuse\n")
    values, reasons = try_read_counters(tmp_path)
    assert values == {"TCP_inuse": 5}
    assert reasons == tuple(
        f"not all counters ({tmp_path / name}: unexpected content)" for name in ("snmp", "netstat", "sockstat6")
    )


@pytest.mark.parametrize("text", [b"", b"many\n", b"1 2\n", b"\xff\n", b"9" * 5000, b"-\n"])
def test_a_sysctl_with_other_content_is_absent_and_reported(tmp_path: Path, text: bytes) -> None:
    for folder in ("core", "ipv4"):
        (tmp_path / folder).mkdir()
    (tmp_path / "core" / "somaxconn").write_text("128\n")
    (tmp_path / "ipv4" / "ip_local_reserved_ports").write_text("\n")
    (tmp_path / "ipv4" / "tcp_max_orphans").write_bytes(text)
    values, _, reasons = try_read_sysctls(tmp_path)
    assert values == {"somaxconn": 128}
    assert reasons == (f"not all sysctls ({tmp_path}/ipv4/tcp_max_orphans: unexpected content)",)


@pytest.mark.parametrize("text", ["x", "1-", "-5", "7-5", "1-2-3", "65536", "1-70000", "1 2", "²"])
def test_reserved_ports_that_are_none_are_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4" / "ip_local_reserved_ports").write_text(text)
    (tmp_path / "ipv4" / "tcp_syncookies").write_text("1\n")
    if text == "1-":  # as the kernel's own parser reads it
        assert sysctl.reserved_ports(tmp_path) == ((1, 1),)
        return
    _, reserved, reasons = try_read_sysctls(tmp_path)
    assert reserved == ()
    assert reasons == (f"not all sysctls ({tmp_path}/ipv4/ip_local_reserved_ports: unexpected content)",)


@pytest.mark.parametrize(
    "text", [*GARBAGE, b"1 (a) S 1", b"1 (a) S " + b"x " * 40, b"1 (a) S" + b" 1" * 18 + b" " + b"9" * 5000]
)
def test_a_process_whose_stat_is_unreadable_may_not_be_read(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_bytes(text)
    with pytest.raises(PermissionError):
        read_process_stat(str(tmp_path), 7)


@pytest.mark.parametrize("status", [b"", b"Uid:\tx\n", b"Uid:\t99999999999999999999 1\n", b"Uid:\t9999999999 1\n"])
def test_a_process_with_an_odd_status(tmp_path: Path, status: bytes) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a b) c) S " + " ".join(map(str, range(40))))
    (tmp_path / "7" / "status").write_bytes(status)
    (tmp_path / "7" / "cmdline").write_bytes(b"\xff\x1b[31m\0\n\0")
    process = read_process(str(tmp_path), read_process_stat(str(tmp_path), 7))
    assert process is not None
    assert (process.name, process.command) == ("a b) c", "\\xff\\x1b[31m \\x0a")
    assert 0 <= process.uid < 1 << 32


def test_descriptors_with_odd_names_and_links(tmp_path: Path) -> None:
    names = ("0", "x", "99999999999", "1", "2", "3", "4")
    links = ("socket:[5]", "socket:[6]", "socket:[7]", "socket:[x]", "socket:[99999999999]", "socket:[", "socket:[²]")
    for name, link in zip(names, links, strict=True):
        os.symlink(link, tmp_path / name)
    table = Descriptors(str(tmp_path))
    for _ in table.scan(np.empty(0, np.uint32), thorough=True):
        pass
    assert dict(zip(table.fds.tolist(), table.inodes.tolist(), strict=True)) == {0: 5, 1: 0, 2: 0, 3: 0, 4: 0}
    assert descriptors._inode(b"4294967296") == descriptors._inode(b"x") == 0
