"""`python -m tests.lab.storm RATE SECONDS`: short connections over loopback, made by io_uring.

Each connection is a chain of five requests: socket(), connect(), accept(), and close() by the server and by the
client. One system call submits the chains of many connections, so that Python makes as many as the kernel can. It
prints how many it has made, and in how many seconds, as JSON. It needs Linux 5.19.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

_SETUP, _ENTER, _REGISTER = 425, 426, 427
"""System calls, the same on all architectures but alpha."""
_REGISTER_FILES2, _SPARSE, _GETEVENTS = 13, 1 << 32, 1
_SQES = 0x10000000
"""IORING_OFF_SQES"""
_ACCEPT, _CONNECT, _CLOSE, _SOCKET = 13, 16, 19, 45
_FIXED_FILE, _HARD_LINK = 1, 8
"""The file is a slot of the ring; the next request of the chain follows whatever the result is."""
_SQE = np.dtype(
    [("opcode", "u1"), ("flags", "u1"), ("ioprio", "u2"), ("fd", "i4"), ("off", "u8"), ("addr", "u8"), ("len", "u4"),
     ("op_flags", "u4"), ("user_data", "u8"), ("buf", "u2"), ("personality", "u2"), ("slot", "u4"), ("pad", "u8", 2)]
)  # fmt: skip
"""struct io_uring_sqe; `slot` is one more than the slot that the request fills or empties."""
_CHAINS, _STEPS = 128, 5
_PORT = 8080
_PROJECT = Path(__file__).parents[2]
_ADDRESSES = 1_000
"""Each allows for one connection per ephemeral port and minute."""
_COMMAND = (sys.executable, "-m", "tests.lab.storm")


class Storm:
    """A ring that makes connections to a listener of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("0.0.0.0", _PORT), backlog=4096)
        setup = (ctypes.c_uint32 * 30)()  # struct io_uring_params
        self._fd = _call(_SETUP, 1024, ctypes.byref(setup))
        entries, sq, cq = setup[0], setup[10:20], setup[20:30]
        ring = mmap.mmap(self._fd, max(sq[6] + 4 * entries, cq[5] + 16 * setup[1]))
        words = np.frombuffer(ring, np.uint32)
        self._tail, self._done, self._ready = (words[at >> 2 :][:1] for at in (sq[1], cq[0], cq[1]))
        words[sq[6] >> 2 :][:entries] = np.arange(entries)
        self._requests = np.frombuffer(mmap.mmap(self._fd, _SQE.itemsize * entries, offset=_SQES), _SQE)
        files = (ctypes.c_uint64 * 4)(2 * _CHAINS | _SPARSE)
        _call(_REGISTER, self._fd, _REGISTER_FILES2, ctypes.byref(files), ctypes.sizeof(files))
        hosts = [b"\x7f\0" + (number + 1).to_bytes(2, "big") for number in range(_ADDRESSES)]
        ends = [
            socket.AF_INET.to_bytes(2, sys.byteorder) + _PORT.to_bytes(2, "big") + host + bytes(8) for host in hosts
        ]
        self._ends = np.frombuffer(b"".join(ends), "V16")
        self._chains = self._chain()
        self.made = 0

    def _chain(self) -> np.ndarray[tuple[int, int], np.dtype[np.void]]:
        client = 2 * np.arange(_CHAINS)
        chains = np.zeros((_CHAINS, _STEPS), _SQE)
        chains["opcode"] = _SOCKET, _CONNECT, _ACCEPT, _CLOSE, _CLOSE
        chains["flags"][:, :-1] = _HARD_LINK
        chains["flags"][:, 1] |= _FIXED_FILE
        chains["fd"][:, 0], chains["off"][:, 0] = socket.AF_INET, socket.SOCK_STREAM
        chains["fd"][:, 1], chains["off"][:, 1] = client, self._ends.itemsize
        chains["fd"][:, 2] = self._listener.fileno()
        for step, slot in enumerate((client + 1, 0 * client, client + 2, client + 2, client + 1)):
            chains["slot"][:, step] = slot
        return chains

    def make(self) -> None:
        """Make and close _CHAINS connections."""
        to = (self.made + np.arange(_CHAINS)) % len(self._ends)
        self._chains["addr"][:, 1] = self._ends.ctypes.data + self._ends.itemsize * to
        count, tail = self._chains.size, int(self._tail[0])
        self._requests[(tail + np.arange(count)) % len(self._requests)] = self._chains.reshape(-1)
        self._tail[0] = tail + count & 0xFFFFFFFF
        _call(_ENTER, self._fd, count, count, _GETEVENTS, None, 0)
        self._done[0] = self._ready[0]
        self.made += _CHAINS


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.syscall(ctypes.c_long(number), *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def io_uring() -> str:
    """io_uring can be used, and knows all requests of the chains: a probe for lab.require."""
    done = subprocess.run([*_COMMAND, "1", "0.01"], cwd=_PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return "io_uring cannot be used" if done.returncode else ""


def start(rate: float, seconds: float) -> subprocess.Popen[str]:
    """Make connections in a process of its own, in the caller's network namespace."""
    return subprocess.Popen([*_COMMAND, str(rate), str(seconds)], cwd=_PROJECT, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, float]:
    """Wait for the end; return the number of connections made and the seconds."""
    made, seconds = json.loads(process.communicate()[0])
    return made, seconds


def main() -> None:
    """Make connections at RATE per second, or as many as possible, for SECONDS."""
    rate, seconds = map(float, sys.argv[1:])
    storm, begin = Storm(), time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        if storm.made <= passed * rate:
            storm.make()
        else:
            time.sleep(0.002)
    print(json.dumps((storm.made, time.monotonic() - begin)))


if __name__ == "__main__":
    main()
