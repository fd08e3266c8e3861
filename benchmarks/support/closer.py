"""`python -m benchmarks.support.closer ADDRESS SOCKETS`: leave SOCKETS sockets in TIME_WAIT; the clients closed first.

ADDRESS is the first of the loopback addresses used: each takes PORTS connections.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import IPv4Address

PORTS = 15_000
"""Connections to one address. The benchmark's range has 64,512 ports; when half of them are used, connect() has to
search and takes a hundred times as long."""
_PORT = 8000


def main() -> None:
    """Connect and close, address by address."""
    first, left = IPv4Address(sys.argv[1]), int(sys.argv[2])
    for number in range(-(-left // PORTS)):
        address = (str(first + number), _PORT)
        with socket.create_server(address, backlog=16) as listener:
            for _ in range(min(PORTS, left - number * PORTS)):
                client = socket.create_connection(address)
                server, _ = listener.accept()
                client.close()
                server.close()


if __name__ == "__main__":
    main()
