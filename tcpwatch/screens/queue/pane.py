"""The members of one queue: a heading and a table."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from typing_extensions import override

from tcpwatch.model.listeners.queue_detail import QueueMembers
from tcpwatch.screens.queue.columns import QueueMember, queue_members
from tcpwatch.widgets.lines import CallbackLines, Line, fit, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.cursor_table import sort_hint_line
from tcpwatch.widgets.table.record_columns import RecordColumn
from tcpwatch.widgets.table.record_table import RecordTable


class QueuePane(Vertical):
    """The heading and the table."""

    DEFAULT_CSS = "QueuePane { height: 1fr; width: 1fr; }"

    def __init__(self, title: str, columns: Sequence[RecordColumn[QueueMember]]) -> None:
        super().__init__()
        self.title = title
        self.table: RecordTable[QueueMember] = RecordTable(
            columns, identity=lambda member: member.cookie, sort="age", reverse=True
        )
        self.heading, self._count = CallbackLines(self._heading_lines), ""

    @override
    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.table

    def show(self, queue: QueueMembers | None, words: str, empty: Sequence[str]) -> None:
        """Show these members; `words` follow their number in the heading."""
        self._count = ""
        if queue is not None:
            shown = len(queue.rows)
            first = f", first {shown:,} listed" if shown < queue.total else ""
            self._count = f": {queue.total:,}{words}{first}"
        self.heading.redraw()
        self.table.show(queue_members(queue) if queue else [], empty)

    def _heading_lines(self, width: int, colours: Palette) -> Sequence[Line]:
        sorting = self.table.sorting
        if sorting.choosing:
            return [sort_hint_line(sorting, colours)]
        return [title_rule(fit(self.title + self._count, width - 8).rstrip(), width, colours)]
