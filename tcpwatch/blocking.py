"""Calls that may block for ever, in threads or child processes that can be given up.

A read of /proc/PID/cmdline waits for the mmap lock of that process, and a question to a name service (nsswitch.conf(5))
for a server. Such calls are made in daemon threads: the program ends without them. A call that waits for a file system
may not even be killed (FUSE, NFS): only a child process can be left behind.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")

PATIENCE_S = 0.1
"""Longest wait for one answer."""
WAITING_SHARE, WAITING_MOST_S = 0.05, 0.4
"""Share of the time that may be spent on waiting, and how much of it may be saved up."""
_QUICK_S = 0.005
"""A wait of about this is what a call costs: it is always granted, and does not count."""


class Unanswered(Exception):
    """Raised for a call that has not returned yet."""


class BlockingCalls(Generic[T]):
    """Runs calls in a few threads, each until it returns. Not thread-safe itself."""

    def __init__(self, threads: int = 8, threads_per_group: int = 2) -> None:
        """The calls of one group can block at most `threads_per_group` threads; what it calls then is not called."""
        self._most, self._most_per_group = threads, threads_per_group
        self._workers: list[_Worker[T]] = []
        self._saved_s, self._saved_at = WAITING_MOST_S, time.monotonic()
        self._gave_up = False

    def answer(self, key: Hashable, call: Callable[[], T], group: Hashable = None) -> T:
        """Return call(), or raise its exception. Raises Unanswered if it does not return soon, or if none can be made.

        While a call blocks, another one with its `key` is not made: Unanswered is raised at once, and when it has
        returned, its result is returned once.
        """
        try:
            return self._worker_with_answer(key, call, group).result()
        except Unanswered:
            self._gave_up = True
            raise

    def blocked(self) -> bool:
        """Return whether a call blocks now, or one was unanswered since this was asked."""
        gave_up, self._gave_up = self._gave_up, False
        return gave_up or any(worker.is_blocked for worker in self._workers)

    def _worker_with_answer(self, key: Hashable, call: Callable[[], T], group: Hashable) -> _Worker[T]:
        self._workers = [one for one in self._workers if one.thread.is_alive()]  # none is after a fork
        worker = next((one for one in self._workers if one.key == key), None)
        if worker is not None:
            if worker.is_blocked:
                raise Unanswered
            return worker
        worker = self._free_worker(group)
        worker.begin(key, group, call)
        before = time.monotonic()
        has_returned = worker.has_returned(self._patience(before))
        waited_s = time.monotonic() - before
        self._saved_s -= waited_s if waited_s > 2 * _QUICK_S else 0.0
        if not has_returned:
            raise Unanswered
        return worker

    def _free_worker(self, group: Hashable) -> _Worker[T]:
        """Return a thread without a call; if there is none, one whose result nobody has asked for."""
        blocked = [worker for worker in self._workers if worker.is_blocked]
        if sum(worker.group == group for worker in blocked) >= self._most_per_group or len(blocked) >= self._most:
            raise Unanswered
        returned = [worker for worker in self._workers if not worker.is_blocked]
        returned.sort(key=lambda worker: worker.key is not None)
        if not returned or (returned[0].key is not None and len(self._workers) < self._most):
            returned.insert(0, _Worker())
            self._workers.append(returned[0])
        return returned[0]

    def _patience(self, now: float) -> float:
        self._saved_s = min(WAITING_MOST_S, self._saved_s + WAITING_SHARE * (now - self._saved_at))
        self._saved_at = now
        return min(PATIENCE_S, max(_QUICK_S, self._saved_s))


class _Worker(Generic[T]):
    """One thread, and its call."""

    def __init__(self) -> None:
        self.key: Hashable = None
        """None without a call."""
        self.group: Hashable = None
        self.is_blocked = False
        self._call: Callable[[], T]
        self._outcome: T | Exception
        # Locks that one thread acquires and the other one releases: an Event costs twice as much.
        self._begun, self._returned = threading.Lock(), threading.Lock()
        self._begun.acquire()
        self._returned.acquire()
        self.thread = threading.Thread(target=self._run, name="tcpwatch-blocking", daemon=True)
        self.thread.start()

    def begin(self, key: Hashable, group: Hashable, call: Callable[[], T]) -> None:
        if self.key is not None:
            self._returned.acquire()  # of the call before, at once
        self.key, self.group, self.is_blocked = key, group, True
        self._call = call
        self._begun.release()

    def has_returned(self, patience_s: float) -> bool:
        if self.is_blocked and patience_s > 0 and self._returned.acquire(timeout=patience_s):
            self._returned.release()
        return not self.is_blocked

    def result(self) -> T:
        """Return the result of a call that has returned, or raise its exception; the thread is free then."""
        self._returned.acquire()
        self.key, outcome = None, self._outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _run(self) -> None:
        while True:
            self._begun.acquire()
            try:
                self._outcome = self._call()
            except Exception as error:
                self._outcome = error
            self.is_blocked = False
            self._returned.release()


_ERROR = struct.Struct("=i")
_PIECE = 1 << 16


def in_child(call: Callable[[], bytes], patience_s: float, files: bool = False) -> bytes:
    """Return call(), made in a child process. Raises its OSError, or TimeoutError if it takes longer.

    With `files` it has standard input and the other open files, else none: it might hold them for ever. Other threads
    do not exist in the child: the call must not need what they hold.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # about those threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _answer(call, writer, files)
    try:
        os.close(writer)
        answer = _until_closed(reader, time.monotonic() + patience_s)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):  # SIGCHLD is ignored, as by the parent
            os.waitpid(child, os.WNOHANG)
    if answer is None:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {patience_s:g} s")
    (number,) = _ERROR.unpack_from(answer)
    if number:
        raise OSError(number, os.strerror(number))
    return answer[_ERROR.size :]


def _answer(call: Callable[[], bytes], writer: int, files: bool) -> NoReturn:
    """Write 0 and the result, or the number of the error."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2) if files else (0, 1, 2):
            os.dup2(nowhere, fd)
        if not files:
            os.closerange(3, writer)
            os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            answer = _ERROR.pack(0) + call()
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
        if not (piece := os.read(reader, _PIECE)):
            return answer or None
        answer += piece
    return None
