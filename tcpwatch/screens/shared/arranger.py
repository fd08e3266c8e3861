"""Arranger: filters, sorts and groups in a thread of its own, so that a big table never holds up a key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tcpwatch.model.columns.columns import SocketColumn
from tcpwatch.model.query.arrangement import Arrangement, arrange
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.groups import GroupField, SocketGroups, group_sockets
from tcpwatch.model.sockets.rows import Rows


@dataclass(frozen=True, slots=True, eq=False)
class GroupArrangement:
    """Rows that pass a filter, grouped."""

    grouped: SocketGroups
    filter: Filter
    total: int
    """Rows, whether they pass or not."""


ArrangeResult = Arrangement | GroupArrangement


@dataclass(frozen=True, slots=True, eq=False)
class ArrangeRequest:
    """What is to be arranged; later requests have higher numbers."""

    number: int
    rows: Rows
    closed: Rows
    filter: Filter
    column: SocketColumn
    reverse: bool
    group_by: GroupField | None = None
    """Groups are wanted, instead of single sockets in an order."""

    def result(self) -> ArrangeResult:
        """The answer, computed here and now."""
        if self.group_by is None:
            return arrange(self.rows, self.closed, self.filter, self.column, self.reverse)
        passing = self.rows
        if self.filter.tests:  # else a copy for nothing
            passing = self.rows.take(np.flatnonzero(self.filter.mask(self.rows)))
        return GroupArrangement(group_sockets(passing, self.group_by), self.filter, len(self.rows))


ArrangeReply = tuple[ArrangeRequest, ArrangeResult | Exception]

Q = TypeVar("Q")
A = TypeVar("A")


class LatestRequestWorker(Generic[Q, A]):
    """Answers the latest request; those that came while it was busy with another, save the last, are forgotten."""

    def __init__(self, answer: Callable[[Q], A], deliver: Callable[[tuple[Q, A | Exception]], object]) -> None:
        """Both are called in the thread."""
        self._answer, self._deliver = answer, deliver
        self._latest: Q | None = None
        self._asked = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def submit(self, request: Q) -> None:
        """Arrange this as soon as what is being arranged is done."""
        self._latest = request
        if self._thread is None:
            # Not one of Textual's workers: their threads keep a process that wants to end.
            self._thread = threading.Thread(target=self._run, name="arranger", daemon=True)
            self._thread.start()
        self._asked.set()

    def stop(self) -> None:
        """End the thread; nothing is delivered afterwards but what is being arranged now."""
        self._stopped = True
        self._asked.set()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopped:
                return
            request, self._latest = self._latest, None
            if request is not None:
                self._deliver((request, self._answered(request)))

    def _answered(self, request: Q) -> A | Exception:
        """A bug here belongs to the UI, which can end the app; a dead thread would only leave an old picture."""
        try:
            return self._answer(request)
        except Exception as error:
            return error
