"""Hashes of endpoints: IPv4 and IPv4-mapped addresses are the same host."""

from __future__ import annotations

import numpy as np

from tcpwatch.model.sockets.endpoint_hashes import address_hashes, remote_endpoint_hashes, table_remote_hashes
from tests.support.views import make_rows, make_sample, sock

SOCKS = (
    sock("ESTAB", "127.0.0.1:1", "192.0.2.1:443"),
    sock("ESTAB", "127.0.0.1:2", "192.0.2.1:443", mapped=True),
    sock("ESTAB", "127.0.0.1:3", "192.0.2.1:80", mapped=True),
    sock("ESTAB", "127.0.0.1:4", "192.0.2.2:443", mapped=True),
    sock("ESTAB", "[::1]:5", "[2001:db8::1]:443"),
    sock("ESTAB", "[::1]:6", "[2001:db8::1]:443"),
    sock("ESTAB", "[::1]:7", "[2001:db8::c000:201]:443"),  # the last 32 bits are those of 192.0.2.1
)


def test_mapped_addresses_are_those_of_ipv4() -> None:
    rows = make_rows(SOCKS)
    sample, every = make_sample(rows), np.arange(len(SOCKS))
    for hashes in (remote_endpoint_hashes(sample, every), table_remote_hashes(sample.table)):
        assert hashes[0] == hashes[1]
        assert hashes[4] == hashes[5]
        assert len(set(hashes.tolist())) == 5
    local = address_hashes(sample, every, "idiag_src")
    assert len(set(local[:4].tolist())) == 1
    assert len(set(local.tolist())) == 2
    assert int(address_hashes(sample, every, "idiag_dst").max()) < 1 << 48
