"""Reading a file that may never answer: a FIFO, or one on a file system of the network or in user space."""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PATIENCE_S = 1.0
_ERROR = struct.Struct("=i")
_CHUNK = 1 << 16


def read_beginning(path: Path, limit: int) -> bytes:
    """Return the first `limit` bytes of a file. Raises OSError, also if they do not come in time.

    A child process reads, as neither a thread nor this process itself could end while it waits for a file system.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # about threads, which the child does not need
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _send(path, limit, writer)
    try:
        os.close(writer)
        answer = _until_closed(reader, time.monotonic() + PATIENCE_S)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
    if answer is None:
        with suppress(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
        raise OSError(errno.ETIMEDOUT, f"no answer within {PATIENCE_S:g} s", str(path))
    with suppress(ChildProcessError):  # the parent ignores SIGCHLD, and so do we
        os.waitpid(child, 0)
    (number,) = _ERROR.unpack_from(answer)
    if number:
        raise OSError(number, os.strerror(number), str(path))
    return answer[_ERROR.size :]


def _send(path: Path, limit: int, writer: int) -> NoReturn:
    """Write 0 and the content, or the number of the error; standard output and stderr are closed."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(nowhere, fd)
        try:
            with open(path, "rb", buffering=0) as file:
                content = b""
                while len(content) < limit and (piece := file.read(min(_CHUNK, limit - len(content)))):
                    content += piece
            answer = _ERROR.pack(0) + content
        except OSError as error:
            answer = _ERROR.pack(error.errno or errno.EIO)
        while answer:
            answer = answer[os.write(writer, answer) :]
    finally:
        os._exit(0)


def _until_closed(reader: int, deadline: float) -> bytes | None:
    """Return what is written to the pipe; None if it is not closed in time, or nothing is written."""
    answer, ready = b"", select.poll()
    ready.register(reader, select.POLLIN)
    while ready.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        if not (piece := os.read(reader, _CHUNK)):
            return answer or None
        answer += piece
    return None
