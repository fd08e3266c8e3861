"""RemoteEnds: the remote addresses and ports of some sockets, to group them by endpoint, address or network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.arrays.address_words import Halves, are_mapped, hash_addresses, mapped_halves
from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.sockets.endpoint import Endpoint

NETWORK_BITS = {4: 24, 6: 64}
"""Prefix lengths of the networks: the usual size of one site's or one rack's subnet. [H]"""


@dataclass(frozen=True, slots=True, eq=False)
class RemoteEnds:
    """Aligned columns."""

    address: Halves
    """IPv4 in its IPv4-mapped form."""
    port: NDArray[np.uint16]

    @classmethod
    def of(cls, table: NDArray[np.void]) -> Self:
        """Return the remote ends of rows of uapi.SOCKET."""
        address = mapped_halves(table["idiag_dst"], table["idiag_family"] == uapi.AF_INET)
        return cls(address, table["idiag_dport"].astype(np.uint16))

    def __len__(self) -> int:
        return len(self.port)

    def take(self, where: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the ends at these indices."""
        return type(self)(self.address[where], self.port[where])

    @property
    def address_numbers(self) -> NDArray[np.uint64]:
        """Return a hash of each address."""
        return hash_addresses(self.address)

    @property
    def endpoint_numbers(self) -> NDArray[np.uint64]:
        """Return a hash of each address and port."""
        return hash_addresses(self.address, self.port.astype(np.uint64))

    @property
    def network_numbers(self) -> NDArray[np.uint64]:
        """Return a hash of each address's network."""
        return hash_addresses(self._networks)

    def endpoint(self, at: int) -> Endpoint:
        """Return the address and port at this index."""
        return Endpoint(self.host(at).address, int(self.port[at]))

    def host(self, at: int) -> Endpoint:
        """Return the address alone."""
        return Endpoint(_text(self.address[at]))

    def network(self, at: int) -> Endpoint:
        """Return the network: `192.0.2.0/24`, `2001:db8::/64`."""
        bits = NETWORK_BITS[4 if are_mapped(self.address[at : at + 1])[0] else 6]
        return Endpoint(f"{_text(self._networks[at])}/{bits}")

    def by_size(self, size: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the indices by size, the largest first, and by address and port where it is equal."""
        return np.lexsort((self.port, self.address[:, 1], self.address[:, 0], -size))

    def first_hosts(self, number: int) -> tuple[str, ...]:
        """Return the smallest addresses."""
        order = np.lexsort((self.address[:, 1], self.address[:, 0]))[:number]
        return tuple(self.host(at).address for at in order.tolist())

    @property
    def _networks(self) -> Halves:
        networks, mapped = self.address.copy(), are_mapped(self.address)
        networks[mapped, 1] &= ~np.uint64((1 << 32 - NETWORK_BITS[4]) - 1)
        networks[~mapped, 1] = 0
        return networks


def both_ends(table: NDArray[np.void]) -> tuple[RemoteEnds, RemoteEnds]:
    """Return the local and the remote ends of rows of uapi.SOCKET."""
    local = mapped_halves(table["idiag_src"], table["idiag_family"] == uapi.AF_INET)
    return RemoteEnds(local, table["idiag_sport"].astype(np.uint16)), RemoteEnds.of(table)


def pair_numbers(local: RemoteEnds, remote: RemoteEnds) -> NDArray[np.uint64]:
    """Return a hash of the two ends of each connection."""
    ports = local.port.astype(np.uint64) << np.uint64(16) | remote.port.astype(np.uint64)
    return hash_addresses(remote.address, hash_addresses(local.address, ports))


def concatenated(*parts: RemoteEnds) -> RemoteEnds:
    """Return the ends of all parts, in their order."""
    return RemoteEnds(np.concatenate([part.address for part in parts]), np.concatenate([part.port for part in parts]))


def _text(halves: NDArray[np.uint64]) -> str:
    return units.address(halves.astype(">u8").tobytes(), uapi.AF_INET6)
