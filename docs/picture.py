"""Draw the README's picture: real traffic in a network namespace of its own, watched for two minutes.

sudo .venv/bin/python -m docs.picture docs/overview.svg
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
import time
from pathlib import Path

from tcpwatch.app import TcpwatchApp
from tcpwatch.monitor import Monitor
from tcpwatch.poller import Poller
from tcpwatch.sources.live import open_source
from tests import lab

WATCHED_S = 125
SIZE = (100, 26)


def serve(listener: socket.socket) -> None:
    """Answer and close: the server's end goes to TIME_WAIT."""
    while True:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.sendall(b"x" * 2000)
        connection.close()


def visit(port: int, pause_s: float) -> None:
    """Make short connections, one after the other."""
    while True:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"hi")
            while connection.recv(4000):
                pass
        time.sleep(pause_s)


def crowd(flood: lab.Flood) -> None:
    """Send SYNs in waves to a listener that does not accept."""
    for wave in range(WATCHED_S * 2):
        flood.send(lab.Endpoint.of("198.18.0.1", 443), 2 + wave % 40 // 4, addresses=50)
        time.sleep(0.5)


async def watch(path: Path) -> None:
    """Run the program without a terminal, and save its screen at the end."""
    monitor = Monitor(open_source(watch_queues=True, ask_infos=True, events=True, trace=True))
    poller = Poller(monitor)
    poller.start()
    app = TcpwatchApp(monitor, poller)
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.sleep(WATCHED_S)
        await pilot.press("j")
        picture = app.export_screenshot(title="tcpwatch")
    poller.stop()
    # A picture in a page loads no fonts from elsewhere: use the reader's own monospace font.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


def main() -> None:
    """Make the traffic, then the picture."""
    with lab.Namespace() as namespace, lab.Peer(namespace) as peer:
        namespace.sysctl("net.ipv4.tcp_max_tw_buckets", 4000)
        namespace.sysctl("net.core.somaxconn", 512)
        web = socket.create_server(("0.0.0.0", 80), backlog=512)
        busy = socket.create_server(("0.0.0.0", 443), backlog=256)
        held = [socket.create_connection(("127.0.0.1", 443)) for _ in range(200)]
        held += [busy.accept()[0] for _ in range(180)]
        for _ in range(40):
            peer.open(443).fin()
        threading.Thread(target=serve, args=(web,), daemon=True).start()
        for pause_s in (0.02, 0.05, 0.11):
            threading.Thread(target=visit, args=(80, pause_s), daemon=True).start()
        threading.Thread(target=crowd, args=(lab.Flood(namespace),), daemon=True).start()
        asyncio.run(watch(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
