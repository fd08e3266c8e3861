"""Faults of a host, made inside one process: files that fail, netlink sockets that fail, a bug, no memory.

`run_with` makes them in a child process. Every other function here changes its process for good.
"""

import builtins
import contextlib
import io
import os
import re
import select
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NoReturn

Fault = Callable[[], object]
Content = Callable[[bytes], bytes]
"""The content of a file → what is read of it; may raise OSError."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended."""

    code: int
    """The exit code; negative for a signal."""
    stdout: str
    stderr: str


def run_with(fault: Fault, program: Callable[[], NoReturn], deadline_s: float = 20.0) -> Outcome:
    """Run the program in a child process that has the fault; kill it at the deadline.

    The child is in the network namespace of the caller, and has what the caller has imported.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():  # of threads of numpy's BLAS, which no child needs
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run_child(fault, program, out, err)
        child = os.pidfd_open(pid)
        try:
            if not select.select([child], [], [], deadline_s)[0]:
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(child)
        return Outcome(os.waitstatus_to_exitcode(status), _text(out), _text(err))


def _run_child(fault: Fault, program: Callable[[], NoReturn], out: IO[bytes], err: IO[bytes]) -> NoReturn:
    code = 99
    try:
        for source, target in ((out, 1), (err, 2)):
            os.dup2(source.fileno(), target)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115  # pytest's
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fault()
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def failing(code: int) -> Content:
    """Return a Content that raises the error with this errno."""

    def fail(_: bytes) -> bytes:
        raise OSError(code, os.strerror(code))

    return fail


def change_files(pattern: str, content: Content) -> None:
    """Change what is read of every file whose path matches; directories can only fail."""
    wanted = re.compile(pattern)

    def opener(original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(path, int) or not wanted.search(os.fsdecode(path)):
                return original(path, *arguments, **named)
            try:
                return original(_replaced(os.fsdecode(path), content), *arguments, **named)
            except OSError as error:
                error.filename = os.fsdecode(path)
                raise

        return changed

    def failer(original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            if not isinstance(path, int) and wanted.search(os.fsdecode(path)):
                content(b"")
            return original(path, *arguments, **named)

        return changed

    io.open = builtins.open = opener(io.open)
    os_open = os.open
    os.open = lambda path, flags, *rest, **named: (
        os.dup(_replaced(os.fsdecode(path), content, os_open))
        if not isinstance(path, int) and wanted.search(os.fsdecode(path))
        else os_open(path, flags, *rest, **named)
    )
    for name in ("listdir", "scandir", "readlink", "stat"):
        setattr(os, name, failer(getattr(os, name)))


def _replaced(path: str, content: Content, os_open: Callable[..., int] = os.open) -> int:
    """Return the descriptor of a file in memory with the changed content."""
    try:
        source = os_open(path, os.O_RDONLY)
    except OSError:
        before = b""
    else:
        with io.FileIO(source) as file:
            before = file.readall() or b""
    memory = os.memfd_create("changed")
    os.write(memory, content(before))
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


Call = Callable[..., Any]


def change_netlink(method: str, change: Callable[[Call], Call], events: bool = False) -> None:
    """Change a method (`__init__`, `sendto`, `recv_into`, ...) of netlink sockets.

    With `events` those that receive destroy events, which do not block; else those that dump.
    """
    original = getattr(socket.socket, method)
    changed = change(original)

    def choose(sock: socket.socket, *arguments: Any, **named: Any) -> Any:
        if method == "__init__":
            family, kind = [*arguments, socket.AF_INET, socket.SOCK_STREAM][:2] if arguments else (0, 0)
        else:
            family, kind = sock.family, sock.type | (0 if sock.getblocking() else socket.SOCK_NONBLOCK)
        mine = family == socket.AF_NETLINK and bool(kind & socket.SOCK_NONBLOCK) == events
        return (changed if mine else original)(sock, *arguments, **named)

    setattr(socket.socket, method, choose)


def fails(code: int, after: int = 0) -> Callable[[Call], Call]:
    """Return a change: the call fails with this errno, from the call after the first `after` on."""
    calls = 0

    def change(original: Call) -> Call:
        def changed(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(code, os.strerror(code))
            return original(*arguments, **named)

        return changed

    return change


def receives(alter: Callable[[memoryview, int], int]) -> Callable[[Call], Call]:
    """Return a change of recv_into: `alter` gets the buffer and the length, may write to it and returns the length."""

    def change(original: Call) -> Call:
        def changed(sock: socket.socket, buffer: memoryview, *arguments: Any) -> int:
            return alter(buffer, original(sock, buffer, *arguments))

        return changed

    return change


def raise_in(owner: object, name: str, error: BaseException, after: int = 0) -> None:
    """Let this function raise the error, from the call after the first `after` on."""
    original, calls = getattr(owner, name), 0

    def changed(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return original(*arguments, **named)

    setattr(owner, name, changed)
