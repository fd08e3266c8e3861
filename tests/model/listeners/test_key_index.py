"""The listener of a local end, against a slow copy of the kernel's rules."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.arrays.address_words import ANY4, ANY6
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.listeners.listener_keys import NO_LISTENER, ListenerKey, ListenerKeys
from tcpwatch.sample import Sample
from tests.model.listeners.test_listener_keys import spelled
from tests.support.views import make_rows, make_sample

ADDRESSES = ("0.0.0.0", "10.0.0.1", "10.0.0.2", "[::]", "[2001:db8::1]", "[2001:db8::2]", "mapped 10.0.0.1")
WORDS = ("", "", "eth0 ", "eth1 ", "v6only ")
ENDS = st.builds(
    "{}{}:{}".format, st.sampled_from(WORDS), st.sampled_from(ADDRESSES), st.sampled_from((80, 81))
).filter(lambda end: ("v6only" in end) <= ("[::]" in end) and not (end.count(" ") > 1))


def halves(sample: Sample, row: int) -> tuple[int, int]:
    """Return the local address in its IPv4-mapped form."""
    raw = sample.table["idiag_src"][row].tobytes()
    if sample.family[row] == uapi.AF_INET:
        return 0, ANY4[1] | int.from_bytes(raw[:4])
    return int.from_bytes(raw[:8]), int.from_bytes(raw[8:])


def accepts(key: ListenerKey, sample: Sample, row: int) -> bool:
    """Whether a listener accepts connections to the local end of a row."""
    address = halves(sample, row)
    is_v4 = address[0] == 0 and address[1] >> 32 == 0xFFFF
    if key.port != sample.local_port[row] or (key.interface and key.interface != sample.interface[row]):
        return False
    if key.halves == ANY4:
        return is_v4
    return not (key.v6only and is_v4) if key.halves == ANY6 else key.halves == address


def most_specific(keys: tuple[ListenerKey, ...], sample: Sample, row: int) -> ListenerKey | None:
    """Return the listener that the kernel would choose."""
    accepting = [key for key in keys if accepts(key, sample, row)]
    return min(
        accepting,
        key=lambda key: (not key.interface, key.any_address, key.halves == ANY6, key.v6only),
        default=None,
    )


@given(st.lists(ENDS, max_size=8), st.lists(ENDS, max_size=8))
def test_the_index_follows_the_rules_of_the_kernel(listening: list[str], ends: list[str]) -> None:
    socks = [*(spelled("LISTEN", end) for end in listening), *(spelled("ESTAB", end) for end in ends)]
    sample = make_sample(make_rows(socks))
    keys = ListenerKeys.of(sample)
    rows = list(range(len(listening), len(socks)))
    found = [keys.keys[key] if key != NO_LISTENER else None for key in keys.lookup(sample, np.array(rows, np.intp))]
    assert found == [most_specific(keys.keys, sample, row) for row in rows]


@given(st.lists(st.lists(ENDS, max_size=3), min_size=2, max_size=4))
def test_keys_that_are_kept_equal_keys_computed_anew(polls: list[list[str]]) -> None:
    previous = None
    for listening in polls:
        sample = make_sample(make_rows([spelled("LISTEN", end) for end in listening]))
        kept, anew = ListenerKeys.of(sample, previous), ListenerKeys.of(sample)
        assert (kept.keys, kept.row.tolist(), kept.key.tolist()) == (anew.keys, anew.row.tolist(), anew.key.tolist())
        assert [key.local_filter for key in kept.keys] == [key.local_filter for key in anew.keys]
        previous = kept
