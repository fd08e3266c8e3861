"""Sysctls have the values of the namespace; those it lacks are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpwatch.kernel.proc import sysctl
from tests import lab

PLACES = {
    "tcp_max_tw_buckets": "net.ipv4.tcp_max_tw_buckets",
    "tcp_syncookies": "net.ipv4.tcp_syncookies",
    "tcp_max_syn_backlog": "net.ipv4.tcp_max_syn_backlog",
    "tcp_synack_retries": "net.ipv4.tcp_synack_retries",
    "tcp_tw_reuse": "net.ipv4.tcp_tw_reuse",
    "tcp_fin_timeout": "net.ipv4.tcp_fin_timeout",
    "tcp_abort_on_overflow": "net.ipv4.tcp_abort_on_overflow",
    "somaxconn": "net.core.somaxconn",
}


def test_sysctls_equal_those_of_the_namespace(namespace: lab.Namespace) -> None:
    found = sysctl.read()[0]
    assert {name: found[name] for name in PLACES} == {name: int(namespace.sysctl(at)) for name, at in PLACES.items()}
    low, high = namespace.sysctl("net.ipv4.ip_local_port_range").split()
    assert (found["ip_local_port_range_low"], found["ip_local_port_range_high"]) == (int(low), int(high))


def test_a_changed_sysctl_is_seen(namespace: lab.Namespace) -> None:
    before = sysctl.read()[0]
    with lab.Namespace() as other:
        other.sysctl("net.ipv4.tcp_fin_timeout", 17)
        other.sysctl("net.core.somaxconn", 99)
        other.sysctl("net.ipv4.ip_local_port_range", "20000 20009")
        turned = {
            "tcp_fin_timeout": 17,
            "somaxconn": 99,
            "ip_local_port_range_low": 20_000,
            "ip_local_port_range_high": 20_009,
        }
        assert sysctl.read()[0] == {**before, **turned}
    assert sysctl.read()[0] == before


def test_sysctls_the_namespace_lacks_are_absent(namespace: lab.Namespace) -> None:
    """They belong to the whole machine, and exist in its first namespace only (seen on 6.18)."""
    alone = {"tcp_mem_low", "tcp_mem_pressure", "tcp_mem_high", "tcp_max_orphans"}
    there = {"tcp_mem", "tcp_max_orphans"} & {path.name for path in Path("/proc/sys/net/ipv4").iterdir()}
    assert bool(alone & sysctl.read()[0].keys()) == bool(there)


@pytest.fixture
def proc_sys_net(tmp_path: Path) -> Path:
    (tmp_path / "core").mkdir()
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "core" / "somaxconn").write_text("128\n")
    (tmp_path / "ipv4" / "tcp_mem").write_text("11\t22\t33\n")
    (tmp_path / "ipv4" / "tcp_max_orphans").write_text("4096\n")
    (tmp_path / "ipv4" / "ip_local_port_range").write_text("32768\t60999\n")
    return tmp_path


def test_sysctls_with_several_figures_are_split(proc_sys_net: Path) -> None:
    assert sysctl.read(proc_sys_net)[0] == {
        "somaxconn": 128,
        "tcp_mem_low": 11,
        "tcp_mem_pressure": 22,
        "tcp_mem_high": 33,
        "tcp_max_orphans": 4096,
        "ip_local_port_range_low": 32_768,
        "ip_local_port_range_high": 60_999,
    }


def test_unreadable_sysctls_are_absent(proc_sys_net: Path) -> None:
    (proc_sys_net / "ipv4" / "tcp_syncookies").mkdir()  # an error also for root
    (proc_sys_net / "core" / "somaxconn").unlink()
    assert sysctl.read(proc_sys_net)[0].keys().isdisjoint({"tcp_syncookies", "somaxconn"})


def test_without_files_nothing_is_known(tmp_path: Path) -> None:
    assert sysctl.read(tmp_path / "missing") == ({}, ())
