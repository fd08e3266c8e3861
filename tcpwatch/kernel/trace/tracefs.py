"""tracefs: where it is, and a trace instance of our own in it, which nothing else on the host notices.

Sources: Documentation/trace/ftrace.rst (instances, trace_clock, buffer_size_kb), kernel/trace/trace.c; fsopen(2),
fsconfig(2), fsmount(2). An instance has buffers, events and filters of its own, and takes no part in what others trace.
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
    """The kernel cannot be traced here; the text is one line for people: "needs root", ..."""


class TracefsMount:
    """tracefs, as a folder: the one of the host, or where it has none mounted, one that nobody else sees."""

    def __init__(self) -> None:
        """Raises TraceError where there is none."""
        self._fd = -1
        self.path = _mounted()
        if not self.path:
            self._fd = _detached_mount()
            self.path = f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Give it back; closing twice is harmless."""
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
    """Descriptor of the root of a mount that is attached nowhere: it goes with its last descriptor."""
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
    """Why tracing was refused."""
    if isinstance(error, TraceError):
        return error
    code = error.errno or errno.EIO
    if code in (errno.EPERM, errno.EACCES):
        return TraceError(code, "not allowed in this container or by lockdown" if os.geteuid() == 0 else "needs root")
    return TraceError(code, f"tracefs: {os.strerror(code)}")


class TraceInstance:
    """instances/tcpwatch-PID: made here, and gone after `close`. Every failure is a TraceError.

    Should this process be killed, the kernel stops recording and takes its buffers back, as `free_buffer` is closed
    then; the folder stays until the next start of one of us.
    """

    def __init__(self) -> None:
        """A new one that records nothing yet. Those that were left behind by a crash are removed."""
        self._mount = TracefsMount()
        self._holding = -1
        try:
            folder = f"{self._mount.path}/instances"
            _sweep(folder)
            self.path = self._make(folder)
            self.write("trace_options", "disable_on_free")
        except OSError as error:
            self.close()
            raise trace_error(error) from error

    def _make(self, folder: str) -> str:
        """A folder that nobody had, and an open file in it: what is in use cannot be removed."""
        for number in range(100):
            path = f"{folder}/{_NAME}{os.getpid()}" + (f"-{number}" if number else "")
            try:
                os.mkdir(path, 0o700)
                self._holding = os.open(f"{path}/free_buffer", os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOENT, errno.ENODEV):
                    continue  # another one's, or one that was swept away between these two calls
                raise
            return path
        raise TraceError(errno.EEXIST, "tracefs: no free name for an instance")

    def read(self, name: str) -> str:
        """A file of the instance."""
        try:
            return Path(self.path, name).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise trace_error(error) from error

    def write(self, name: str, text: str) -> None:
        """Set what a file of the instance stands for."""
        try:
            # As one write, and with nothing created or cut off: tracefs takes the whole or refuses it.
            file = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
        except OSError as error:
            raise trace_error(error) from error

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.exists(f"{self.path}/{name}")

    def raw_pages(self) -> list[int]:
        """Non-blocking descriptors of each processor's trace_pipe_raw; closing them is left to the caller."""
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
        """The names in per_cpu, ordered by number: cpu0, cpu1, ..."""
        try:
            names = [name for name in os.listdir(f"{self.path}/per_cpu") if re.fullmatch(r"cpu\d+", name)]
        except OSError as error:
            raise trace_error(error) from error
        return sorted(names, key=lambda name: int(name[3:]))

    def overrun(self) -> int:
        """Events that were overwritten, of all processors, since the instance was made."""
        return sum(self._stat(name, "overrun") for name in self.processors())

    def _stat(self, processor: str, name: str) -> int:
        found = re.search(rf"^{name}: (\d+)$", self.read(f"per_cpu/{processor}/stats"), re.MULTILINE)
        if not found:
            raise TraceError(errno.EPROTO, f"tracefs: no {name} in the statistics of {processor}")
        return int(found[1])

    def close(self) -> None:
        """Stop recording and remove it, if its other files are closed; closing twice is harmless."""
        if self._holding >= 0:
            os.close(self._holding)
            self._holding = -1
            with suppress(OSError):  # somebody looks into it: the next start sweeps it away
                os.rmdir(self.path)
        self._mount.close()


def _sweep(folder: str) -> None:
    """Remove the instances of those who crashed; one that is in use answers EBUSY, and stays."""
    for name in os.listdir(folder):
        if name.startswith(_NAME):
            with suppress(OSError):
                os.rmdir(f"{folder}/{name}")
