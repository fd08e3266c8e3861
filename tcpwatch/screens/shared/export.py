"""Exports: the rows of a table, written to a new CSV file in a background thread."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

from tcpwatch.blocking import in_child
from tcpwatch.units.printable import printable

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FINISH_S, _GIVE_UP_S = 0.4, 0.2
_SEEN_S = 2.0
_ANSWER_S = 0.5
"""How long a directory may take to answer."""


def export_name(now: float, what: str = "connections") -> str:
    """Return the file name for an export at this Unix time, in local time."""
    return time.strftime(f"tcpwatch-{what}-%Y%m%d-%H%M%S.csv", time.localtime(now))


def write_new(name: str, blocks: Iterable[str], created: Callable[[Path], object] = lambda path: None) -> Path:
    """Write these blocks of text to a new file and return its path. Raises OSError, and then leaves no file.

    The file is in the first of the current, the home and the temporary directory that can be written. It is called
    `name`, or `name-2`, ... if that exists: no file is replaced and no link followed. Before it is whole it is called
    `name.part`; `created` is called with that path.
    """
    path, unfinished, fd = _open_new(name)
    created(unfinished)
    try:
        with open(fd, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(blocks)
        for final in _numbered(path):
            with suppress(FileExistsError):
                _publish(unfinished, final)
                return final
        raise AssertionError("unreachable: the names do not end")
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _open_new(name: str) -> tuple[Path, Path, int]:
    """Return the path wanted, that of the new unfinished file, and its descriptor."""
    first = OSError(errno.ENOENT, "no directory to write to", name)
    for at, folder in enumerate(_folders()):
        path = folder / name
        try:
            in_child(partial(_look_into, folder), _ANSWER_S)
        except OSError as error:
            error.filename = str(path)
            first = error if at == 0 else first
            continue
        for unfinished in _numbered(path.with_name(f"{path.name}.part")):
            try:
                return path, unfinished, os.open(unfinished, _NEW, 0o666)
            except FileExistsError:
                continue
            except OSError as error:
                error.filename = str(path)
                first = error if at == 0 else first
                break
    raise first


def _look_into(folder: Path) -> bytes:
    """Ask the file system something: the program could not end while an export waits for it."""
    os.statvfs(folder)
    return b""


def _folders() -> Iterator[Path]:
    for folder in (Path.cwd, Path.home, lambda: Path(os.environ.get("TMPDIR") or "/tmp")):
        with suppress(OSError, RuntimeError):  # the directory has been deleted; there is no home
            yield folder()


def _numbered(path: Path) -> Iterator[Path]:
    """Yield `name.csv`, `name-2.csv`, ..."""
    stem, dot, suffix = path.name.partition(".")
    yield path
    for number in count(2):
        yield path.with_name(f"{stem}-{number}{dot}{suffix}")


def _publish(unfinished: Path, final: Path) -> None:
    """Give the file its final name. Raises FileExistsError if that is taken."""
    try:
        os.link(unfinished, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (vfat)
        os.close(os.open(final, _NEW, 0o666))
        unfinished.replace(final)


class Export:
    """A thread that writes one file."""

    def __init__(self, name: str, what: str, blocks: Iterable[str], done: Callable[[Export], object]) -> None:
        """Start. `what` describes the content: `12 listeners`. The thread calls `done` at the end."""
        self.failed = True
        self.message = f"{what} not written: it takes too long"
        """The result, in one line."""
        self.is_running = True
        self._seen_s = math.inf
        """When the result will have been on the screen for long enough (time.monotonic())."""
        self._given_up = False
        self._unfinished: Path | None = None
        self._what, self._blocks, self._done = what, blocks, done
        self._thread = threading.Thread(target=self._run, args=(name,), name="tcpwatch-export", daemon=True)
        _unseen[:] = [export for export in _unseen if time.monotonic() < export._seen_s]
        _unseen.append(self)
        self._thread.start()

    def report(self) -> str:
        """Return the result to be shown for some time."""
        self._seen_s = time.monotonic() + _SEEN_S
        return self.message

    def finish(self, deadline: float) -> None:
        """Wait until this time (time.monotonic()), then give up."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._given_up = True

    def discard(self) -> None:
        """Remove the unfinished file, if any; it gets no other name then."""
        if self.is_running and self._unfinished is not None:
            with suppress(OSError):
                self._unfinished.unlink()

    def _run(self, name: str) -> None:
        try:
            path = write_new(name, self._until_given_up(), self._created)
            self.message, self.failed = f"{self._what} written to {printable(str(path))}", False
        except OSError as error:
            self.message = f"cannot write {printable(error.filename or name)}: {error.strerror or error}"
        except Exception as error:
            self.message = f"cannot write {name}: internal error: {printable(f'{type(error).__name__}: {error}')}"
        self.is_running = False
        self._done(self)

    def _created(self, unfinished: Path) -> None:
        self._unfinished = unfinished

    def _until_given_up(self) -> Iterator[str]:
        for block in self._blocks:
            if self._given_up:
                raise OSError(errno.ECANCELED, "not finished before the end of tcpwatch")
            yield block


_unseen: list[Export] = []
"""The exports of this process whose result has perhaps not been read."""


def export_is_running() -> bool:
    """Return whether an export is still being written."""
    return any(export.is_running for export in _unseen)


def finish_exports() -> list[Export]:
    """Finish or give up the exports that are left, within 0.6 s; return those whose result nobody can have read."""
    left = [export for export in _unseen if time.monotonic() < export._seen_s]
    _unseen.clear()
    for patience_s in (_FINISH_S, _GIVE_UP_S):
        deadline = time.monotonic() + patience_s
        for export in left:
            export.finish(deadline)
    for export in left:
        export.discard()
    return left
