"""Filters, sorts and groups in a background thread, so that large tables never delay a key."""

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
    """Groups of the rows that match a filter."""

    grouped: SocketGroups
    filter: Filter
    total: int
    """Number of rows, matching or not."""


ArrangeResult = Arrangement | GroupArrangement


@dataclass(frozen=True, slots=True, eq=False)
class ArrangeRequest:
    """Rows and their order; later requests have higher numbers."""

    number: int
    rows: Rows
    closed: Rows
    filter: Filter
    column: SocketColumn
    reverse: bool
    group_by: GroupField | None = None
    """Group the sockets by this field instead of sorting them."""

    def result(self) -> ArrangeResult:
        """Compute the result."""
        if self.group_by is None:
            return arrange(self.rows, self.closed, self.filter, self.column, self.reverse)
        passing = self.rows
        if self.filter.tests:  # avoids a copy
            passing = self.rows.take(np.flatnonzero(self.filter.mask(self.rows)))
        return GroupArrangement(group_sockets(passing, self.group_by), self.filter, len(self.rows))


ArrangeReply = tuple[ArrangeRequest, ArrangeResult | Exception]

Q = TypeVar("Q")
A = TypeVar("A")


class LatestRequestWorker(Generic[Q, A]):
    """Handles the latest request; older ones that arrived while it was busy are dropped."""

    def __init__(self, answer: Callable[[Q], A], deliver: Callable[[tuple[Q, A | Exception]], object]) -> None:
        """Both functions are called in the thread."""
        self._answer, self._deliver = answer, deliver
        self._latest: Q | None = None
        self._has_request = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def submit(self, request: Q) -> None:
        """Handle this request after the current one."""
        self._latest = request
        if self._thread is None:
            # Not a Textual worker: its thread would keep the process from exiting.
            self._thread = threading.Thread(target=self._run, name="arranger", daemon=True)
            self._thread.start()
        self._has_request.set()

    def stop(self) -> None:
        """End the thread after the current request."""
        self._stopped = True
        self._has_request.set()

    def _run(self) -> None:
        while True:
            self._has_request.wait()
            self._has_request.clear()
            if self._stopped:
                return
            request, self._latest = self._latest, None
            if request is not None:
                self._deliver((request, self._answered(request)))

    def _answered(self, request: Q) -> A | Exception:
        """Return the answer or the exception: the UI raises it, while a dead thread would leave an old screen."""
        try:
            return self._answer(request)
        except Exception as error:
            return error
