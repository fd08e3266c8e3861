"""A TUN device: packets from and to the kernel pass through a file descriptor."""

import fcntl
import os
import struct

from tests.lab.machine.namespace import Namespace

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000  # no header before the packet: its first nibble distinguishes IPv4 from IPv6

# linux/netdevice.h: receive and send whole packets of this size
MTU = 1500


def make_tun(namespace: Namespace, device: str, *commands: str) -> int:
    """Make the device in the namespace, run commands of ip(8), return its file descriptor.

    The device exists as long as the descriptor is open.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
        _be_lenient(namespace, device)
        namespace.ip(*commands)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _be_lenient(namespace: Namespace, device: str) -> None:
    """Let the device carry IPv6, and accept packets whatever the route of the answer."""
    namespace.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", 0)
    # The stricter of `all` and the device's own value is in force.
    namespace.sysctl("net.ipv4.conf.all.rp_filter", 0)
    namespace.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
