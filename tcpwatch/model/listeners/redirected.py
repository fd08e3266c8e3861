"""Redirected: connections whose local end is not that of their listener.

With TPROXY or a BPF sk_lookup program a listener accepts connections to other addresses and ports. The kernel does not
report the listener of a connection. What it reports of a connection that waits to be accepted is copied from its
listener (inet_csk_clone_lock, cgroup_sk_clone; tried on Linux 6.18): family, bound interface, IP_TRANSPARENT, control
group and user; and the listener's accept queue holds more than the connections with its own local end. If this leaves
one listener, it is proved; else the listener is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.address_words import hash_addresses, mapped_halves
from tcpwatch.arrays.lookup import NOT_FOUND, find_sorted
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.states import State
from tcpwatch.sample import Sample

NO_KEY = -1
"""The index of the key of a connection whose listener is not known."""
Lookup = Callable[[NDArray[np.intp]], NDArray[np.int32]]
"""Rows → index of the listener's key by address and port alone, or NO_KEY."""


def _no_cookies() -> NDArray[np.uint64]:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Redirected:
    """The connections of a sample whose listener is known although their local end is not the listener's."""

    cookie: NDArray[np.uint64] = field(default_factory=_no_cookies)
    """Ascending."""
    key: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """Index of the listener's key, or NO_KEY: an address that a listener has, but not its connection."""
    orphans: NDArray[np.uint64] = field(default_factory=_no_cookies)
    """Half-open connections whose listener has closed, or may have: those of the first sample."""

    def override(self, key: NDArray[np.int32], cookie: NDArray[np.uint64]) -> None:
        """Set the keys of these connections."""
        if len(self.cookie):
            at = find_sorted(self.cookie, cookie)
            key[at != NOT_FOUND] = self.key[at[at != NOT_FOUND]]


def redirected(
    sample: Sample, listening: NDArray[np.intp], key: NDArray[np.int32], lookup: Lookup, before: Redirected,
    had_listener: Lookup | None,
) -> Redirected:  # fmt: skip
    """Return the redirected connections of a sample.

    `listening` are the rows in LISTEN, and `key` the indices of their keys. `before` are those of the previous sample,
    with the indices of this one, and `had_listener` is the lookup among its listeners; None for the first sample.

    Of a half-open connection the kernel reports neither IP_TRANSPARENT nor control group. Its listener is that of the
    other redirected connections with its local end. If there are none, and the connection began after the first sample,
    it is the only transparent listener.
    """
    if not sample.capabilities.attributes:
        return Redirected()
    waiting = sample.rows_in(State.ESTABLISHED, State.CLOSE_WAIT, has_inode=False)
    is_transparent = _is_transparent(sample, listening)
    if not (len(waiting) or len(before.cookie) or is_transparent.any()):
        return Redirected()  # as in most polls
    found, still = _waiting(sample, listening, key, waiting, lookup(waiting)), _still_open(before, sample)
    cookies, keys = np.concatenate((still[0], found[0])), np.concatenate((still[1], found[1]))
    cookies, first = np.unique(cookies, return_index=True)
    keys = keys[first]
    if not len(cookies) and not is_transparent.any():
        return Redirected()
    half_open = sample.rows_in(State.SYN_RCVD, has_inode=False)
    half_open = half_open[lookup(half_open) == NO_KEY]
    half_open = half_open[~np.isin(sample.cookie[half_open], cookies)]
    owner = _owners_by_end(sample, half_open, (cookies, keys))
    closed = np.isin(sample.cookie[half_open], before.orphans)
    closed |= had_listener(half_open) != NO_KEY if had_listener else True
    open_question = np.flatnonzero((owner == NO_KEY) & ~closed)
    owner[open_question] = _only_transparent(
        sample, half_open[open_question], listening[is_transparent], key[is_transparent]
    )
    cookies = np.concatenate((cookies, sample.cookie[half_open[owner != NO_KEY]]))
    keys = np.concatenate((keys, owner[owner != NO_KEY]))
    order = np.argsort(cookies)
    return Redirected(cookies[order], keys[order], sample.cookie[half_open[closed & (owner == NO_KEY)]])


def _is_transparent(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.bool_]:
    transparent: NDArray[np.bool_] = (sample.table["has"][row] & uapi.IS_TRANSPARENT) != 0
    return transparent


Known = tuple[NDArray[np.uint64], NDArray[np.int32]]
"""Cookies and the indices of their keys."""


def _still_open(before: Redirected, sample: Sample) -> Known:
    present = find_sorted(sample.cookie, before.cookie) != NOT_FOUND
    present &= before.key != NO_KEY
    return before.cookie[present], before.key[present]


def _waiting(
    sample: Sample,
    listening: NDArray[np.intp],
    key: NDArray[np.int32],
    row: NDArray[np.intp],
    by_address: NDArray[np.int32],
) -> Known:
    """Return the waiting connections that no listener with their local end can have, and their keys if proved."""
    keys = int(key.max(initial=-1)) + 1
    transparent = np.zeros((2, keys + 1), np.bool_)
    is_transparent = _is_transparent(sample, listening).astype(np.intp)
    transparent[is_transparent, key] = True
    fits = transparent[_is_transparent(sample, row).astype(np.intp), by_address]  # NO_KEY is the last column
    stray = row[~fits]
    if not len(stray):
        return sample.cookie[:0], key[:0]
    queued = np.bincount(key, sample.table["idiag_rqueue"][listening], keys)
    queued -= np.bincount(by_address[fits], minlength=keys)
    owner = np.full(len(stray), NO_KEY, np.int32)
    traits = np.stack([sample.table[name][stray].astype(np.uint64) for name in _TRAITS])
    distinct, inverse = np.unique(traits, axis=1, return_inverse=True)
    for at in range(distinct.shape[1]):
        group = np.flatnonzero(inverse.ravel() == at)
        candidates = np.unique(key[_may_have_accepted(sample, listening, stray[group[0]])])
        candidates = candidates[queued[candidates] > 0]
        if len(candidates) == 1:
            owner[group] = candidates[0]
    return sample.cookie[stray], owner


_TRAITS = ("idiag_family", "idiag_if", "idiag_uid", "cgroup_id", "has")


def _may_have_accepted(sample: Sample, listening: NDArray[np.intp], row: np.intp) -> NDArray[np.bool_]:
    """Return which listeners may have this waiting connection, by everything but address and port."""
    table, child = sample.table[listening], sample.table[row]
    device = (table["idiag_if"] == 0) | (table["idiag_if"] == child["idiag_if"])
    user = (child["idiag_uid"] == 0) | (table["idiag_uid"] == child["idiag_uid"])  # older kernels report 0
    both_have_group = (table["has"] & child["has"] & uapi.HAS_CGROUP_ID) != 0
    group = ~both_have_group | (table["cgroup_id"] == child["cgroup_id"])
    transparent = ((table["has"] ^ child["has"]) & uapi.IS_TRANSPARENT) == 0
    may: NDArray[np.bool_] = (table["idiag_family"] == child["idiag_family"]) & device & user & group & transparent
    return may


def _owners_by_end(sample: Sample, row: NDArray[np.intp], known: Known) -> NDArray[np.int32]:
    """Return the key of the other redirected connections with the local end of each of these half-open ones."""
    owner = np.full(len(row), NO_KEY, np.int32)
    ends, other_ends = _local_ends(sample, row), _local_ends(sample, find_sorted(sample.cookie, known[0]))
    for end in np.intersect1d(ends, other_ends).tolist():
        keys = np.unique(known[1][other_ends == end])
        owner[ends == end] = keys[0] if len(keys) == 1 else NO_KEY
    return owner


def _only_transparent(
    sample: Sample, row: NDArray[np.intp], listening: NDArray[np.intp], key: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the key of the transparent listener `listening` if there is one alone for the family of a row."""
    owner = np.full(len(row), NO_KEY, np.int32)
    for family in (uapi.AF_INET, uapi.AF_INET6):
        listeners = np.flatnonzero(sample.family[listening] == family)
        if len(np.unique(key[listeners])) == 1:
            device = int(sample.interface[listening[listeners[0]]])
            may = (sample.family[row] == family) & ((device == 0) | (sample.interface[row] == device))
            owner[may] = key[listeners[0]]
    return owner


def _local_ends(sample: Sample, row: NDArray[np.intp]) -> NDArray[np.uint64]:
    halves = mapped_halves(sample.table["idiag_src"][row], sample.family[row] == uapi.AF_INET)
    return hash_addresses(halves) ^ (sample.local_port[row].astype(np.uint64) << np.uint64(40))
