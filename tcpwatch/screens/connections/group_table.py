"""GroupTable: one row per group of sockets; each grouping keeps its own cursor."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

from tcpwatch.model.query.groups import GroupField, SocketGroup, SocketGroups
from tcpwatch.screens.connections.group_columns import SOCKETS, columns_for
from tcpwatch.widgets.table.record_table import RecordTable


class GroupTable(RecordTable[SocketGroup]):
    """Shows SocketGroups; the cursor is on a group."""

    def __init__(self) -> None:
        super().__init__(columns_for(GroupField.PROCESS), lambda row: row.identity, sort=SOCKETS.key, reverse=True)
        self._by = GroupField.PROCESS
        self._left: dict[GroupField, Hashable | None] = {}
        """The group under the cursor when the grouping was left."""
        self._some_hidden = False

    def show_groups(
        self, grouped: SocketGroups, unsupported: Collection[str], filtered: bool, empty: Sequence[str] = ()
    ) -> None:
        """Show these groups; `filtered` if a filter hides sockets, and so perhaps groups."""
        if grouped.by is not self._by:
            self._turn_to(grouped.by)
        self._some_hidden = filtered
        self.show_columns(columns_for(grouped.by, unsupported))
        self.show(grouped.groups, empty)

    def _turn_to(self, by: GroupField) -> None:
        self._left[self._by] = self._held
        self._by, self._cursor = by, 0
        self._held, self._hidden = self._left.get(by), None
        self.scroll_to(y=0, animate=False)

    def row_of(self, identity: Hashable) -> SocketGroup | None:
        """Return the row of this group; None if it is not shown."""
        place = self._place(identity)
        return None if place is None else self.records[place]

    # CursorTable

    def _hides(self, identity: Hashable) -> bool:
        return self._some_hidden

    @property
    def _question(self) -> Hashable:
        return self._by
