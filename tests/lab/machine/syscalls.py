"""The system calls the lab needs and Python 3.11 does not offer."""

import ctypes
import fcntl
import os
import socket
import struct

# linux/sched.h
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# asm-generic/unistd.h: the same on all architectures but alpha; linux/mount.h
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _CMD_CREATE = 1, 6
_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns came with Python 3.12


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (unshare(2))."""
    if _libc.unshare(ctypes.c_int(flags)):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare({flags:#x}): {os.strerror(number)}")


def setns(fd: int) -> None:
    """Move the calling thread to the network namespace of `fd` (setns(2))."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(CLONE_NEWNET)):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def mount_detached(kind: str) -> int:
    """Mount a file system of this kind where no process sees it; return a descriptor of its top folder.

    fsopen(2), fsconfig(2), fsmount(2). It is unmounted when the descriptor is closed.
    """
    context = _syscall(_FSOPEN, ctypes.c_char_p(kind.encode()), _CLOEXEC)
    try:
        _syscall(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return _syscall(_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bring_up(device: str) -> None:
    """`ip link set DEVICE up` in the current network namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", device.encode(), 0)  # struct ifreq: name, flags
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        request = struct.pack("16sH22x", device.encode(), flags | _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)
