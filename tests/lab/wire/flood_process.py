"""`python -m tests.lab.wire.flood_process FD ADDRESS PORT COUNT RATE ADDRESSES ROW`: see Flood.start.

A process of its own shares no interpreter lock with the program under test. It inherits the
device's descriptor, so it needs neither privileges nor the namespace.
"""

import sys

from tests.lab.wire.flood import print_report, send_syns
from tests.lab.wire.packets import Endpoint


def main() -> None:
    fd, address, port, count, rate, addresses, row = sys.argv[1:]
    target = Endpoint(address, int(port))
    speed = float(rate) or None
    print_report(send_syns(int(fd), target, int(count), speed, int(addresses), int(row)))


if __name__ == "__main__":
    main()
