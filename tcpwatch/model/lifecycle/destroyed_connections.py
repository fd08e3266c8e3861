"""Connections: the destroy events of sockets that had a connection, by cookie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.model.lifecycle.cookie_aliases import resolve_aliases
from tcpwatch.sample import take_rows


@dataclass(frozen=True, slots=True, eq=False)
class DestroyedConnections:
    """Destroy events of sockets that had a connection, each cookie once, ascending."""

    cookie: NDArray[np.uint64]
    events: DestroyedSockets
    at: NDArray[np.intp]
    """Where each is in `told`, which is not copied till somebody needs it."""

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
        """Whose ends the kernel had taken: tcp_disconnect()."""
        bare: NDArray[np.bool_] = self.events.table["idiag_dport"][self.at] == 0
        return bare

    def take(self, where: NDArray[np.intp]) -> DestroyedConnections:
        """Some of them."""
        return DestroyedConnections(self.cookie[where], self.events, self.at[where])

    def with_aliases(self, aliases: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> DestroyedConnections:
        """The same by the cookies by which they go on."""
        if not len(aliases[0]):
            return self
        cookie = resolve_aliases(self.cookie, aliases)
        return replace(self, cookie=cookie).take(np.argsort(cookie))


_NOTHING = DestroyedSockets(np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0), 0)


def destroyed_connections(destroyed: DestroyedSockets | None) -> DestroyedConnections:
    """Of all destroy events those of sockets that had a connection."""
    told = destroyed or _NOTHING
    table = told.table
    remote = np.ascontiguousarray(table["idiag_dst"]).view("=u8").reshape(-1, 2)
    had = (table["idiag_dport"] != 0) | remote.any(axis=1)  # a failed or torn one keeps its remote address
    cookie, first = np.unique(table["idiag_cookie"], return_index=True)
    return DestroyedConnections(cookie[had[first]], told, first[had[first]])
