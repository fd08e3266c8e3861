"""The members of one queue: a heading and a table."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from typing_extensions import override

from tcpwatch.model.listeners.queue_detail import QueueMembers
from tcpwatch.screens.queue.columns import QueueMember, queue_members
from tcpwatch.widgets.lines import Line, Lines, fit, title_rule
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
        self.heading = _Heading(self)

    @override
    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.table

    def show(self, queue: QueueMembers | None, words: str, empty: Sequence[str]) -> None:
        """Show these members; `words` follow their number in the heading."""
        self.heading.show_count(queue, words)
        self.table.show(queue_members(queue) if queue else [], empty)


class _Heading(Lines):
    """The title with the number of members."""

    DEFAULT_CSS = "_Heading { height: 1; overflow: hidden; }"

    def __init__(self, pane: QueuePane) -> None:
        super().__init__()
        self._pane, self._words = pane, ""

    def show_count(self, queue: QueueMembers | None, words: str) -> None:
        """Show the number of members."""
        self._words = ""
        if queue is not None:
            shown = len(queue.rows)
            first = f", first {shown:,} listed" if shown < queue.total else ""
            self._words = f": {queue.total:,}{words}{first}"
        self.redraw()

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        sorting = self._pane.table.sorting
        if sorting.choosing:
            return [sort_hint_line(sorting, colours)]
        return [title_rule(fit(self._pane.title + self._words, width - 8).rstrip(), width, colours)]
