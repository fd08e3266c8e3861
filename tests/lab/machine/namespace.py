"""A network namespace for a test: no traffic leaves it."""

import os
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.machine.syscalls import CLONE_NEWNET, bring_up, setns, unshare
from tests.lab.machine.user_namespace import enter_user_namespace
from tests.lab.waiting import wait_until

_MINE = "/proc/thread-self/ns/net"


class Namespace:
    """Inside the `with` block the main thread is in a fresh network namespace.

    Sockets opened and subprocesses started there belong to it, /proc/net and /proc/sys/net show
    it. `lo` is up; there is no other device. At the end the thread returns to where it was; the
    namespace dies with the last socket, process or device file that uses it. Blocks may be nested.
    """

    def __init__(self) -> None:
        self._before = -1
        self._inside = -1
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        # /proc/net is that of the main thread, whichever thread reads it.
        if threading.get_native_id() != os.getpid():
            raise RuntimeError("only the main thread can enter a Namespace")
        if reason := enter_user_namespace():
            raise PermissionError(reason)
        self._before = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            self._inside = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
            bring_up("lo")
        except OSError:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        setns(self._before)
        os.close(self._before)
        if self._inside >= 0:
            os.close(self._inside)
        self._before = self._inside = -1

    @property
    def path(self) -> str:
        """A file that another thread or process can open and enter with setns, during the block."""
        return f"/proc/{self._owner}/fd/{self._inside}"

    @property
    def inode(self) -> int:
        """The kernel's number of this namespace: NUMBER in net:[NUMBER]."""
        return os.fstat(self._inside).st_ino

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Return a sysctl such as net.ipv4.tcp_syncookies, after setting it if a value is given."""
        self._expect_to_be_inside()
        path = Path("/proc/sys", *name.split("."))
        if value is not None:
            path.write_text(str(value))
        return path.read_text().strip()

    def counters(self) -> dict[str, int]:
        """Return the kernel's TCP counters: the names under Tcp: and TcpExt: (`nstat -az`)."""
        self._expect_to_be_inside()
        counters: dict[str, int] = {}
        for file in ("/proc/net/snmp", "/proc/net/netstat"):
            lines = Path(file).read_text().splitlines()
            # Two lines each: "TcpExt: name name ..." and "TcpExt: value value ..."
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                if names.startswith(("Tcp:", "TcpExt:")):
                    pairs = zip(names.split()[1:], values.split()[1:], strict=True)
                    counters.update((name, int(value)) for name, value in pairs)
        return counters

    def ss(self, *arguments: str) -> str:
        """Return the output of `ss ARGUMENTS` in this namespace; any output on stderr is an error."""
        return self._run(["ss", *arguments])

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8), each written without the word `ip`, in one batch."""
        self._run(["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def add_address(self, address: str, device: str = "lo") -> None:
        """Give a device an address such as 10.1.2.3/24 or fd00::1/64, usable at once."""
        # Duplicate address detection would hold a new IPv6 address back for a second or more.
        self.ip(f"address add {address} dev {device}" + (" nodad" if ":" in address else ""))
        await_route(address.partition("/")[0])

    def _run(self, command: list[str], text: str = "") -> str:
        self._expect_to_be_inside()
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode or done.stderr:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stderr or text}")
        return done.stdout

    def _expect_to_be_inside(self) -> None:
        if os.stat(_MINE).st_ino != self.inode:
            raise RuntimeError("the thread is not in this Namespace now")


def await_route(address: str) -> None:
    """Wait until the kernel accepts packets to an address of its own.

    It is deaf to a new IPv6 address until a worker has made the route (addrconf_dad_work), also with nodad.
    """
    if ":" in address:
        route = socket.inet_pton(socket.AF_INET6, address).hex() + " 80 "
        routes = Path("/proc/net/ipv6_route")
        wait_until(lambda: route in routes.read_text(), f"the route of {address}")
