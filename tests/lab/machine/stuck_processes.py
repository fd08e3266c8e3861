"""Processes whose mmap lock is held for ever, so that reading their command line does not return (proc(5)).

A thread reads, by /proc/self/mem, a page of a file of a FUSE file system that does not answer: it sleeps with the lock
held for reading. Another thread then waits for it in mmap(2), and all readers behind that one.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.lab.waiting import wait_until

ROOT = Path(__file__).parents[3]
_NEW_MOUNTS, _PRIVATE, _RECURSIVE = 0x20000, 1 << 18, 1 << 14
_LOOKUP, _GETATTR, _OPEN, _READ, _INIT, _OPENDIR, _ACCESS = 1, 3, 14, 15, 26, 27, 34
_ROOT = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Stuck(NamedTuple):
    """A process that listens on a TCP port and is stuck."""

    pid: int
    port: int
    folder: str
    """A directory in which nothing can be looked up: that does not return, and cannot be interrupted by a signal."""


def fuse() -> str:
    """FUSE file systems can be mounted; a probe for requirements.require()."""
    if os.geteuid():
        return "FUSE needs root"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "there is no /dev/fuse"


@contextmanager
def stuck_processes(folder: Path, uids: Sequence[int]) -> Iterator[list[Stuck]]:
    """Start one process for each user id; `folder` is where the file system is mounted, for them alone."""
    command = [sys.executable, "-m", __name__, str(folder), json.dumps(list(uids))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        stuck: list[Stuck] = []
        try:
            assert server.stdout is not None
            for _ in uids:
                pid, port = json.loads(server.stdout.readline())
                stuck.append(Stuck(pid, port, f"/proc/{pid}/root{folder}"))
            for one in stuck:
                wait_until(partial(_blocks, one.pid), "it waits in mmap(2)")
            yield stuck
        finally:
            for one in stuck:
                os.kill(one.pid, signal.SIGKILL)
            server.kill()  # which ends the file system, and so every wait for it


def _blocks(pid: int) -> bool:
    """Return whether the main thread waits for the lock."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"


def _main(folder: str, uids: Sequence[int]) -> None:
    _check(_LIBC.unshare(_NEW_MOUNTS))
    _check(_LIBC.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None))
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    _check(_LIBC.mount(b"stuck", folder.encode(), b"fuse.stuck", 0, options.encode()))
    began = []
    for node, uid in enumerate(uids, _ROOT + 1):
        reader, writer = os.pipe()
        began.append(writer)
        if os.fork() == 0:
            os.close(device)
            _get_stuck(f"{folder}/{node}", uid, reader)
    _serve(device, began)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _get_stuck(path: str, uid: int, began: int) -> None:
    """`began` is a pipe that can be read when the read of the file has begun."""
    server = socket.create_server(("127.0.0.1", 0))
    page = mmap.mmap(os.open(path, os.O_RDONLY), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ)
    maps = Path("/proc/self/maps").read_text().splitlines()
    at = next(int(line.partition("-")[0], 16) for line in maps if line.endswith(path))
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    os.setuid(uid)
    threading.Thread(target=os.pread, args=(memory, 1, at), daemon=True).start()
    os.write(1, f"{json.dumps([os.getpid(), server.getsockname()[1]])}\n".encode())
    os.read(began, 1)
    mmap.mmap(-1, mmap.PAGESIZE)
    page.close()  # reached when the file system has ended
    os._exit(1)


def _serve(device: int, began: Sequence[int]) -> None:
    """Answer what opens the file, and nothing that reads it (linux/fuse.h)."""
    forever = struct.pack("<QII", 3600, 0, 0)
    while True:
        request = os.read(device, 1 << 20)
        _, operation, number, node = struct.unpack("<IIQQ", request[:24])
        if operation == _READ:
            os.write(began[node - _ROOT - 1], b"x")
        if operation == _INIT:
            answer = struct.pack("<IIIIHHI", 7, 31, 1 << 16, 0, 12, 1, 4096) + bytes(40)
        elif operation == _LOOKUP:
            name = request[40:].rstrip(b"\0")
            if not name.isdigit():
                continue
            node = int(name)
            answer = struct.pack("<QQ", node, 0) + forever + bytes(8) + _attributes(node)
        elif operation == _GETATTR:
            answer = forever + _attributes(node)
        elif operation in (_OPEN, _OPENDIR):
            answer = struct.pack("<QII", 1, 0, 0)
        elif operation == _ACCESS:
            answer = b""
        else:
            continue
        os.write(device, struct.pack("<IiQ", 16 + len(answer), 0, number) + answer)


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100644
    return struct.pack("<QQQQQQIIIIIIIIII", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


if __name__ == "__main__":
    _main(sys.argv[1], json.loads(sys.argv[2]))
