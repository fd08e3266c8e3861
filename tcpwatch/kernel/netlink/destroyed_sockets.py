"""DestroyedSockets: sockets reported by the destroy multicast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcpwatch.arrays.opaque_rows import make_read_only
from tcpwatch.config.memory import BUDGET


@dataclass(frozen=True, slots=True, eq=False)
class DestroyedSockets:
    """Full TCP sockets of this network namespace that were freed, in the order of their events.

    A socket that was reset is freed when its application closes it, which may be much later. A socket that enters
    TIME_WAIT, or FIN_WAIT_2 as an orphan, is reported then, and continues as a small socket with the same cookie. After
    tcp_disconnect() (a refused connect(), SO_LINGER 0) the remote port and the local address are 0; the remote address
    is kept. Listeners and sockets that were never connected are also reported, without a remote address.
    """

    table: NDArray[np.void]
    """uapi.SOCKET, read-only; the state is CLOSE, inode and uid are 0."""
    infos: NDArray[np.void]
    """uapi.TCP_INFO, aligned with `table`; fields that were not sent are 0. A received FIN counts as a byte."""
    received_monotonic_s: NDArray[np.float64]
    """Monotonic seconds at which each event was received; the kernel sends them from a work queue, some ms late."""
    info_bytes: int
    """Bytes of struct tcp_info that this kernel sends, at most those of uapi.TCP_INFO."""
    lost: int = 0
    """Events since the previous call that did not fit into the kernel's queue or the backlog, or cannot be decoded."""
    interrupted: bool = False
    """The socket failed and was opened again since the previous call: an unknown number of events is missing."""
    forged: int = 0
    """Datagrams since the start that the kernel did not send; they were ignored."""

    def after(self, earlier: DestroyedSockets | None) -> DestroyedSockets:
        """Return these events appended to unused `earlier` ones; if they are too many, the oldest are lost."""
        if earlier is None:
            return self
        excess = max(0, len(earlier.table) + len(self.table) - BUDGET.destroy)
        table = np.concatenate((earlier.table[excess:], self.table))
        infos = np.concatenate((earlier.infos[excess:], self.infos))
        when = np.concatenate((earlier.received_monotonic_s[excess:], self.received_monotonic_s))
        make_read_only(table, infos, when)
        interrupted = earlier.interrupted or self.interrupted
        lost = earlier.lost + self.lost + min(excess, len(earlier.table))
        return DestroyedSockets(table, infos, when, self.info_bytes, lost, interrupted, self.forged)

    def without_rows(self) -> DestroyedSockets:
        """Return the same without the events themselves."""
        return replace(self, table=self.table[:0].copy(), infos=self.infos[:0].copy(), received_monotonic_s=np.empty(0))
