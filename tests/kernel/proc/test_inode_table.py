"""The inode table against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.proc.inode_table import InodeTable

# Few low values, so that inodes are shared, and pairs that fall into one slot of the front.
INODES = st.integers(0, 12) | st.integers(0, 2**32 - 1) | st.sampled_from([1 << 20, 2 << 20])


@given(st.lists(st.lists(INODES, max_size=8), max_size=6), st.lists(INODES, max_size=12))
def test_same_as_a_dict(holdings: list[list[int]], others: list[int]) -> None:
    expected = {
        inode: tuple(number for number, held in enumerate(holdings) if inode in held)
        for inode in {inode for held in holdings for inode in held if inode}
    }
    table = InodeTable([np.array(held, np.uint32) for held in holdings])
    asked = [*expected, *others, 0]
    groups = table.groups_of(np.array(asked, np.uint32)).tolist()
    members = [table.members[group] if group >= 0 else None for group in groups]
    assert members == [expected.get(inode) for inode in asked]


def test_equal_sets_of_holders_are_one_group() -> None:
    shared = np.arange(1, 50_001, dtype=np.uint32)
    table = InodeTable([shared, shared, shared[:10]])
    assert table.members[:3] == [(0,), (1,), (2,)]
    assert set(table.members[3:]) == {(0, 1), (0, 1, 2)}
    assert len(set(table.groups_of(shared).tolist())) == 2
