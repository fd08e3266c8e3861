"""Requirements of tests on the machine.

A probe is a function that returns what the machine lacks, as text, or "" if it lacks nothing.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.lab.machine.tracefs import tracefs_root
from tests.lab.machine.user_namespace import enter_user_namespace

Probe = Callable[[], str]

REQUIRE_KERNEL = "TCPWATCH_REQUIRE_KERNEL"
_TUN = "/dev/net/tun"


def require(*probes: Probe) -> None:
    """Skip the running test if a probe finds something missing.

    With TCPWATCH_REQUIRE_KERNEL=1 in the environment (for machines on which every kernel test can run) the test fails
    instead.
    """
    import pytest  # here, so that benchmarks can use the lab without it

    missing = "; ".join(filter(None, (probe() for probe in probes)))
    if not missing:
        return
    if os.environ.get(REQUIRE_KERNEL) == "1":
        pytest.fail(f"{missing} ({REQUIRE_KERNEL}=1 forbids skipping)")
    pytest.skip(missing)


def namespaces() -> str:
    """Network namespaces can be made, with privilege or inside a user namespace."""
    return enter_user_namespace()


def tun() -> str:
    """TUN devices can be made.

    An ordinary user needs a device file with mode 0666: the privileges of a user namespace do not apply to the files of
    the system.
    """
    try:
        os.close(os.open(_TUN, os.O_RDWR))
    except OSError as error:
        mode = ""
        if error.errno in (errno.EACCES, errno.EPERM):
            mode = f" (mode {os.stat(_TUN).st_mode & 0o7777:04o}, needs to be open to all: 0666)"
        return f"{_TUN}: {error.strerror}{mode}"
    return ""


def tracefs() -> str:
    """Tracepoints can be used: the kernel has tracefs, and this user may use it, which needs root."""
    try:
        root = tracefs_root()
    except OSError as error:
        return f"tracefs: {error.strerror}" + ", needs root" * (error.errno == errno.EPERM)
    if os.access(root / "instances", os.W_OK | os.X_OK):
        return ""
    return "tracefs is not open to this user, needs root"


def other_users() -> str:
    """Another user can be had: root of the host can become one."""
    maps = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    can = os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in maps)
    return "" if can else "needs root, to become another user"


def ipv6() -> str:
    """The kernel speaks IPv6."""
    return "" if Path("/proc/net/if_inet6").exists() else "this kernel has no IPv6"


def program(name: str) -> Probe:
    """The program is installed."""
    return lambda: "" if shutil.which(name) else f"the program {name} is not installed"


def kernel(major: int, minor: int) -> Probe:
    """The kernel is at least of this version."""

    def probe() -> str:
        release = os.uname().release
        found = re.match(r"(\d+)\.(\d+)", release)
        if found and (int(found[1]), int(found[2])) >= (major, minor):
            return ""
        return f"needs Linux {major}.{minor}, this is {release}"

    return probe
