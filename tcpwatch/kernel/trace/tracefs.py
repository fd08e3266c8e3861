"""tracefs: find or mount it, and create a trace instance of our own in it, which does not affect other users.

Sources: Documentation/trace/ftrace.rst (instances, trace_clock, buffer_size_kb), kernel/trace/trace.c; fsopen(2),
fsconfig(2), fsmount(2). An instance has its own buffers, events and filters, separate from those of others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from contextlib import suppress
from pathlib import Path

_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_NAME = "tcpwatch-"

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""System calls of Linux 5.2, the same on all architectures but alpha."""
_CLOEXEC, _CMD_CREATE = 1, 6
_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8


class TraceError(OSError):
    """Raised when the kernel cannot be traced; the text is one line for people: "needs root", ..."""


class TracefsMount:
    """A directory with tracefs: the mounted one, or if there is none, a private detached mount."""

    def __init__(self) -> None:
        """Find or mount tracefs. Raises TraceError."""
        self._fd = -1
        self.path = _mounted()
        if not self.path:
            self._fd = _detached_mount()
            self.path = f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Release a private mount; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _mounted() -> str:
    for place in _PLACES:
        try:
            os.stat(f"{place}/instances")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise trace_error(error) from error
        return place
    return ""


def _detached_mount() -> int:
    """Return the descriptor of a detached mount's root; the mount ends with its last descriptor."""
    context = _call(_FSOPEN, ctypes.c_char_p(b"tracefs"), _CLOEXEC)
    try:
        _call(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.syscall(ctypes.c_long(number), *arguments)
    if done >= 0:
        return done
    code = ctypes.get_errno()
    if code == errno.ENODEV:
        raise TraceError(code, "this kernel has no tracefs")
    if code == errno.ENOSYS:
        raise TraceError(code, "tracefs is not mounted")
    raise trace_error(OSError(code, os.strerror(code)))


def trace_error(error: OSError) -> TraceError:
    """Return a TraceError with the reason why tracing was refused."""
    if isinstance(error, TraceError):
        return error
    code = error.errno or errno.EIO
    if code in (errno.EPERM, errno.EACCES):
        return TraceError(code, "not allowed in this container or by lockdown" if os.geteuid() == 0 else "needs root")
    return TraceError(code, f"tracefs: {os.strerror(code)}")


class TraceInstance:
    """The directory instances/tcpwatch-PID, removed by close(). Every failure is a TraceError.

    If this process is killed, its `free_buffer` file is closed: the kernel then stops recording and frees the buffers.
    The directory remains until the next start of tcpwatch.
    """

    def __init__(self) -> None:
        """Create an instance that records nothing yet, and remove instances left by a crash."""
        self._mount = TracefsMount()
        self._holding = -1
        self.path = ""
        try:
            folder = f"{self._mount.path}/instances"
            _remove_stale(folder)
            self.path = self._make(folder)
            self.write("trace_options", "disable_on_free")
        except OSError as error:
            self.close()
            raise trace_error(error) from error

    def _make(self, folder: str) -> str:
        """Create a new directory and open a file in it: a directory in use cannot be removed."""
        for number in range(100):
            path = f"{folder}/{_NAME}{os.getpid()}" + (f"-{number}" if number else "")
            try:
                os.mkdir(path, 0o700)
                self._holding = os.open(f"{path}/free_buffer", os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOENT, errno.ENODEV):
                    continue  # it exists, or it was removed between these two calls
                raise
            return path
        raise TraceError(errno.EEXIST, "tracefs: no free name for an instance")

    def read(self, name: str) -> str:
        """Return the content of a file of the instance."""
        try:
            return Path(self.path, name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise trace_error(error) from error

    def write(self, name: str, text: str) -> None:
        """Write to a file of the instance."""
        try:
            # One write, without creating or truncating: tracefs accepts all of it or refuses it.
            file = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
        except OSError as error:
            raise trace_error(error) from error

    def has(self, name: str) -> bool:
        """Return whether a file exists."""
        return os.path.exists(f"{self.path}/{name}")

    def raw_pages(self) -> list[int]:
        """Open trace_pipe_raw of each processor, non-blocking; the caller closes the descriptors."""
        opened: list[int] = []
        try:
            for name in self.processors():
                path = f"{self.path}/per_cpu/{name}/trace_pipe_raw"
                opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            for file in opened:
                os.close(file)
            raise trace_error(error) from error
        return opened

    def processors(self) -> list[str]:
        """Return the names in per_cpu, ordered by number: cpu0, cpu1, ..."""
        try:
            names = [name for name in os.listdir(f"{self.path}/per_cpu") if re.fullmatch(r"cpu\d+", name)]
        except OSError as error:
            raise trace_error(error) from error
        return sorted(names, key=lambda name: int(name[3:]))

    def overrun(self) -> int:
        """Return the number of events overwritten on all processors since the instance was created."""
        return sum(self._stat(name, "overrun") for name in self.processors())

    def _stat(self, processor: str, name: str) -> int:
        match = re.search(rf"^{name}: (\d+)$", self.read(f"per_cpu/{processor}/stats"), re.MULTILINE)
        if not match:
            raise TraceError(errno.EPROTO, f"tracefs: no {name} in the statistics of {processor}")
        return int(match[1])

    def close(self) -> None:
        """Stop recording and remove the directory. Its other files have to be closed. Closing twice is harmless."""
        if self._holding >= 0:
            os.close(self._holding)
            self._holding = -1
        if self.path:
            with suppress(OSError):  # in use by another program: the next start removes it
                os.rmdir(self.path)
            self.path = ""
        self._mount.close()


def _remove_stale(folder: str) -> None:
    """Remove instances left by crashed processes; one that is in use fails with EBUSY and stays."""
    for name in os.listdir(folder):
        if name.startswith(_NAME):
            with suppress(OSError):
                os.rmdir(f"{folder}/{name}")
