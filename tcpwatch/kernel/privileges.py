"""The capabilities of this process: give up those that are not needed.

Capabilities belong to a thread (capabilities(7)); a new thread has those of the one that starts it. Sources: capget(2),
PR_CAPBSET_DROP(2const), PR_CAP_AMBIENT(2const), PR_SET_NO_NEW_PRIVS(2const).
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection

DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE = "CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"
_NUMBERS = {"CAP_DAC_OVERRIDE": 1, DAC_READ_SEARCH: 2, "CAP_SETPCAP": 8, NET_ADMIN: 12, SYS_PTRACE: 19}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: 64 capabilities, as two words each of effective, permitted and inheritable ones."""
_CAPBSET_DROP, _SET_NO_NEW_PRIVS, _AMBIENT, _AMBIENT_CLEAR_ALL = 24, 38, 47, 4

_libc = ctypes.CDLL(None)


def effective() -> frozenset[str]:
    """Return the effective capabilities of the calling thread; those without a name here as CAP_<number>."""
    mask, _ = _capget()
    return frozenset(_NAMES.get(number, f"CAP_{number}") for number in range(64) if mask >> number & 1)


def keep_only(names: Collection[str]) -> tuple[str, ...]:
    """Give up all capabilities but these, for good, and return the effective ones that are left, sorted.

    Neither execve(2) nor another thread started from now on has more. What a sandbox forbids to give up is kept.
    """
    kept = sum(1 << _NUMBERS[name] for name in names)
    if "CAP_SETPCAP" in effective():
        for number in range(64):
            if not kept >> number & 1:
                _prctl(_CAPBSET_DROP, number)  # EINVAL: the kernel has no such capability
    _prctl(_AMBIENT, _AMBIENT_CLEAR_ALL)
    _, permitted = _capget()
    _capset(permitted & kept)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    return tuple(sorted(effective()))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_Words = ctypes.c_uint32 * 6


def _capget() -> tuple[int, int]:
    """Return the effective and the permitted capabilities as bit masks; 0 where the call is forbidden."""
    words = _Words()
    _libc.capget(ctypes.byref(_Header(_VERSION, 0)), words)
    return words[0] | words[3] << 32, words[1] | words[4] << 32


def _capset(mask: int) -> None:
    """Make these capabilities effective and permitted, and none inheritable."""
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    _libc.capset(ctypes.byref(_Header(_VERSION, 0)), _Words(low, low, 0, high, high, 0))


def _prctl(option: int, argument: int) -> None:
    _libc.prctl(option, *map(ctypes.c_ulong, (argument, 0, 0, 0)))
