"""A BPF program of the type sk_lookup: every connection to the namespace goes to one listener (bpf(2))."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
_SOCKMAP, _SK_LOOKUP, _ATTACH_SK_LOOKUP = 15, 30, 36
_MAP_LOOKUP, _SK_RELEASE, _SK_ASSIGN = 1, 86, 124

_libc = ctypes.CDLL(None, use_errno=True)


def bpf_sk_lookup() -> str:
    """The kernel takes BPF programs of the type sk_lookup, and this user may load them, which needs root."""
    try:
        os.close(_load(os.dup(_new_map())))
    except (OSError, KeyError) as error:
        return f"BPF sk_lookup: {error}"
    return ""


@contextmanager
def all_connections_to(listener: socket.socket) -> Iterator[None]:
    """Inside the block every SYN that arrives in this network namespace goes to `listener`."""
    with ExitStack() as stack:

        def closed_later(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        sockets = closed_later(_new_map())
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(struct.pack("Q", listener.fileno()))
        _bpf(_MAP_UPDATE, struct.pack("IIQQQ", sockets, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
        program = closed_later(_load(sockets))
        namespace = closed_later(os.open(Path("/proc/thread-self/ns/net"), os.O_RDONLY))
        closed_later(_bpf(_LINK_CREATE, struct.pack("IIII", program, namespace, _ATTACH_SK_LOOKUP, 0)))
        yield


def _new_map() -> int:
    return _bpf(_MAP_CREATE, struct.pack("IIII", _SOCKMAP, 4, 8, 1))


def _load(sockets: int) -> int:
    code = b"".join(_program(sockets))
    program, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "IIQQIIQII16sII", _SK_LOOKUP, len(code) // 8, ctypes.addressof(program), ctypes.addressof(licence),
        0, 0, 0, 0, 0, b"", 0, _ATTACH_SK_LOOKUP,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, attributes)


def _program(sockets: int) -> Iterator[bytes]:
    yield _instruction(0xBF, 6, 1)  # r6 = the lookup
    yield _instruction(0x62, 10, offset=-4)  # the key on the stack: 0
    yield _instruction(0x18, 1, 1, number=sockets) + _instruction(0)
    yield _instruction(0xBF, 2, 10) + _instruction(0x07, 2, number=-4)
    yield _instruction(0x85, number=_MAP_LOOKUP)
    yield _instruction(0x15, offset=7)  # no socket: leave
    yield _instruction(0xBF, 7, 0)
    yield _instruction(0xBF, 1, 6) + _instruction(0xBF, 2, 7) + _instruction(0xB7, 3)
    yield _instruction(0x85, number=_SK_ASSIGN)
    yield _instruction(0xBF, 1, 7) + _instruction(0x85, number=_SK_RELEASE)
    yield _instruction(0xB7, number=1) + _instruction(0x95)  # SK_PASS


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, offset, number)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    number = ctypes.c_long(_NUMBERS[os.uname().machine])
    result: int = _libc.syscall(number, ctypes.c_int(command), buffer, ctypes.c_uint(len(buffer)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
