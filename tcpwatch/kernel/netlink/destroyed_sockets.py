"""What the destroy multicast tells: types shared by those who read it and those above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class DestroyedSockets:
    """Full TCP sockets that were freed, of this network namespace, in the order in which the kernel told of them.

    One that was reset is freed when its application closes it, which may be much later; one that went to TIME_WAIT, or
    to an orphan's FIN_WAIT_2, is told of then, and goes on as a small socket of the same cookie. After tcp_disconnect()
    (a refused connect(), SO_LINGER 0) the remote port is 0 and the local address is gone, the remote address stays.
    Sockets that were never connected, and listeners, come too: they have no remote address.
    """

    table: NDArray[np.void]
    """uapi.SOCKET, read-only; the state is CLOSE, inode and uid are 0."""
    infos: NDArray[np.void]
    """uapi.TCP_INFO, aligned with `table`; what was not told is 0. A FIN that came counts as a byte received."""
    received_monotonic_s: NDArray[np.float64]
    """Monotonic seconds at which each was received; the kernel sends them from a work queue, some ms late."""
    info_bytes: int
    """Bytes of struct tcp_info that this kernel sends, as far as uapi.TCP_INFO has them."""
    lost: int = 0
    """Events since the last time that the kernel could not queue for us, or that we could not keep."""

    def after(self, earlier: DestroyedSockets | None) -> DestroyedSockets:
        """Both together, where what was told earlier could not be used."""
        if earlier is None:
            return self
        table = np.concatenate((earlier.table, self.table))
        infos = np.concatenate((earlier.infos, self.infos))
        when = np.concatenate((earlier.received_monotonic_s, self.received_monotonic_s))
        for column in (table, infos, when):
            column.flags.writeable = False
        return DestroyedSockets(table, infos, when, self.info_bytes, earlier.lost + self.lost)
