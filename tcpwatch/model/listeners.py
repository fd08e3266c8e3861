"""The accept queue and the SYN queue of each listener, against their limits.

For a listener the kernel tells the accept queue's depth as `idiag_rqueue` and its limit, min(listen()'s argument,
somaxconn), as `idiag_wqueue`. The SYN queue is not told: its depth is the number of SYN_RCVD sockets with the
listener's local address and port, its limit is the same backlog (net/ipv4/inet_connection_sock.c; sock_diag(7)).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch import text
from tcpwatch.kernel import uapi
from tcpwatch.kernel.processes import Owner
from tcpwatch.model.listening import ANY4, ANY6, Key, keys_of, takes
from tcpwatch.model.rows import Rows
from tcpwatch.model.states import State


@dataclass(frozen=True, slots=True)
class Queue:
    """Depth now, and the limit; None where the source does not tell. The kernel lets a queue hold limit + 1 (6.18)."""

    depth: int | None
    limit: int | None

    @property
    def share(self) -> float:
        """What is used of the limit, 0 where it is not known; a limit of 0 counts as 1, since one connection fits."""
        return 0.0 if self.depth is None or self.limit is None else self.depth / max(self.limit, 1)


UNTOLD = Queue(None, None)


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket."""

    cookie: int
    family: int
    local_address: str
    local_port: int
    owner: Owner | None
    accept_queue: Queue
    syn_queue: Queue
    """Sockets that share an address and port (SO_REUSEPORT) share this figure: depth and limit are the group's."""
    group: int
    """Sockets in that group, 1 for a listener of its own."""
    drops: int | None
    """Segments dropped by this listener since it was opened; None where the source does not tell."""
    drops_per_s: float | None

    @property
    def endpoint(self) -> str:
        """Local address and port, `*` for any address."""
        host = "*" if self.local_address in ("0.0.0.0", "::") else self.local_address
        return text.endpoint(host, self.local_port)


def listeners(
    rows: Rows,
    drops: Mapping[int, int],
    before: Mapping[int, int],
    elapsed_s: float | None,
    queues_told: bool = True,
) -> tuple[Listener, ...]:
    """Every listener of the table, the fullest accept queue first, then by port.

    `drops` and `before` are cookie → drops of this sample and of the one `elapsed_s` earlier. Without `queues_told`
    the table's queues are no facts (psutil): all that is known is how many connections are half-open.
    """
    mine = rows.take(np.flatnonzero(rows.state == State.LISTEN))
    keys = keys_of(mine.table)
    backlog: Counter[Key] = Counter()
    for key, limit in zip(keys, mine.table["idiag_wqueue"].tolist(), strict=True):
        backlog[key] += limit
    half_open = _half_open(rows, set(keys))
    sizes = Counter(keys)
    found = []
    for at, key in enumerate(keys):
        row, cookie, code = mine.table[at], int(mine.cookie[at]), int(mine.owner[at])
        dropped = drops.get(cookie)
        found.append(
            Listener(
                cookie=cookie,
                family=int(row["idiag_family"]),
                local_address=text.address(row["idiag_src"].tobytes(), int(row["idiag_family"])),
                local_port=key[0],
                owner=mine.owners[code] if code >= 0 else None,
                accept_queue=Queue(int(row["idiag_rqueue"]), int(row["idiag_wqueue"])) if queues_told else UNTOLD,
                syn_queue=Queue(half_open.get(key, 0), backlog[key] if queues_told else None),
                group=sizes[key],
                drops=dropped,
                drops_per_s=_per_second(dropped, before.get(cookie), elapsed_s),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.accept_queue.share, one.local_port, one.local_address)))


def _per_second(now: int | None, then: int | None, elapsed_s: float | None) -> float | None:
    if now is None or then is None or not elapsed_s:
        return None
    return ((now - then) & 0xFFFFFFFF) / elapsed_s  # sk_drops is a u32 that may wrap


def _half_open(rows: Rows, keys: set[Key]) -> dict[Key, int]:
    """SYN_RCVD sockets per listening address and port, each counted with the most specific listener."""
    where = np.flatnonzero(rows.state == State.SYN_RCVD)
    if not len(where):
        return {}
    ports = rows.table["idiag_sport"][where]
    per_port = np.bincount(ports, minlength=65_536)
    candidates: dict[int, list[Key]] = {}
    for key in keys:
        candidates.setdefault(key[0], []).append(key)
    found: dict[Key, int] = {}
    for port, rivals in candidates.items():
        if len(rivals) == 1 and rivals[0][1:] in (ANY4, ANY6):
            found[rivals[0]] = int(per_port[port])
        elif per_port[port]:  # also for a single one: half-open ones of other addresses may outlive their listener
            found |= _by_address(rows.table, where[ports == port], rivals)
    return found


def _by_address(table: NDArray[np.void], where: NDArray[np.intp], candidates: list[Key]) -> dict[Key, int]:
    """The same for the rows of one port: exact addresses first, then any-IPv4, then any-address.

    Addresses are compared as they came, in both forms that IPv4 has: to bring a million into one form costs more.
    """
    raw = np.ascontiguousarray(table["idiag_src"][where])
    v4 = table["idiag_family"][where] == uapi.AF_INET
    left = np.ones(len(where), np.bool_)
    found: dict[Key, int] = {}
    for key in sorted(candidates, key=lambda key: (key[1:] in (ANY4, ANY6), key[1:] == ANY6)):
        hit = left & takes(key, raw, v4)
        found[key] = int(np.count_nonzero(hit))
        left &= ~hit
    return found
