"""DestroyedConnections: the destroy events of sockets that had a connection, by cookie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import take_rows
from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.model.lifecycle.cookie_aliases import resolve_aliases


@dataclass(frozen=True, slots=True, eq=False)
class DestroyedConnections:
    """Destroy events of sockets that had a connection, each cookie once, ascending."""

    cookie: NDArray[np.uint64]
    events: DestroyedSockets
    at: NDArray[np.intp]
    """Index of each in `events`, which is copied only when needed."""

    @property
    def table(self) -> NDArray[np.void]:
        """uapi.SOCKET"""
        return take_rows(self.events.table, self.at)

    @property
    def infos(self) -> NDArray[np.void]:
        """uapi.TCP_INFO"""
        return take_rows(self.events.infos, self.at)

    @property
    def when(self) -> NDArray[np.float64]:
        """Monotonic seconds."""
        return self.events.received_monotonic_s[self.at]

    @property
    def disconnected(self) -> NDArray[np.bool_]:
        """Which have no endpoints any more: tcp_disconnect() removed them."""
        bare: NDArray[np.bool_] = self.events.table["idiag_dport"][self.at] == 0
        return bare

    def take(self, where: NDArray[np.intp]) -> DestroyedConnections:
        """Return the ones at these indices."""
        return DestroyedConnections(self.cookie[where], self.events, self.at[where])

    def with_aliases(self, aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> DestroyedConnections:
        """Return the same with aliases replaced."""
        if not len(aliases[0]):
            return self
        cookie = resolve_aliases(self.cookie, aliases)
        return replace(self, cookie=cookie).take(np.argsort(cookie))


_NOTHING = DestroyedSockets(np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0), 0)


def destroyed_connections(destroyed: DestroyedSockets | None) -> DestroyedConnections:
    """Return the destroy events of sockets that had a connection."""
    events = destroyed or _NOTHING
    table = events.table
    remote = np.ascontiguousarray(table["idiag_dst"]).view("=u8").reshape(-1, 2)
    connected = (table["idiag_dport"] != 0) | remote.any(axis=1)  # after a reset the remote address remains
    cookie, first = np.unique(table["idiag_cookie"], return_index=True)
    return DestroyedConnections(cookie[connected[first]], events, first[connected[first]])
