"""Filters, sorts and groups in a background thread, so that large tables never delay a key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from textual.widget import Widget

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


def arranged(
    rows: Rows, closed: Rows, filter_: Filter, column: SocketColumn, reverse: bool, group_by: GroupField | None
) -> ArrangeResult:
    """Return the rows that match, sorted, or with `group_by` grouped by this field."""
    if group_by is None:
        return arrange(rows, closed, filter_, column, reverse)
    passing = rows.take(np.flatnonzero(filter_.mask(rows))) if filter_.tests else rows  # avoids a copy
    return GroupArrangement(group_sockets(passing, group_by), filter_, len(rows))


A = TypeVar("A")


class LatestRequestWorker(Generic[A]):
    """Computes what a widget shows, and shows it unless a later result is shown already.

    The thread handles the latest request; older ones that arrived while it was busy are dropped.
    """

    def __init__(self, widget: Widget, show: Callable[[A], object]) -> None:
        """`show` is called in the UI's loop."""
        self._widget, self._show = widget, show
        self._requested = self._shown = 0
        """Numbers of the latest request, and of the one whose result is shown."""
        self._latest: tuple[int, Callable[[], A]] | None = None
        self._has_request = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def request(self, compute: Callable[[], A], in_thread: bool) -> None:
        """Show the result of `compute`, now or when the thread has it."""
        self._requested += 1
        if not in_thread:
            self._shown = self._requested
            self._show(compute())
            return
        self._latest = self._requested, compute
        if self._thread is None:
            # Not a Textual worker: its thread would keep the process from exiting.
            self._thread = threading.Thread(target=self._run, name="arranger", daemon=True)
            self._thread.start()
        self._has_request.set()

    def forget(self) -> None:
        """Do not show the results of earlier requests."""
        self._shown = self._requested

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
            latest, self._latest = self._latest, None
            if latest is not None:
                number, compute = latest
                self._widget.call_later(self._receive, number, _result(compute))

    def _receive(self, number: int, result: A | Exception) -> None:
        if isinstance(result, Exception):
            raise result
        if number > self._shown:
            self._shown = number
            self._show(result)


def _result(compute: Callable[[], A]) -> A | Exception:
    """Return the result or the exception: the UI raises it, while a dead thread would leave an old screen."""
    try:
        return compute()
    except Exception as error:
        return error
