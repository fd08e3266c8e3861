"""RecordTable: one row per record of any type, for some thousands of them; only rows in sight become text.

    table = RecordTable(COLUMNS, identity=lambda record: record.cookie, sort="queue", reverse=True)
    table.show(records)

Call `show` again for other records. `table.record` is the one under the cursor; Enter sends `CursorTable.Opened`, and
another order sends `CursorTable.SortChanged`, each with its `table`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Generic

from tcpwatch.widgets.lines import Line
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.record_columns import R, RecordColumn, longest_text, record_pieces, sorted_records


class RecordTable(CursorTable[RecordColumn[R]], Generic[R]):
    """Shows records; the cursor follows the identity of its record."""

    def __init__(
        self,
        columns: Sequence[RecordColumn[R]],
        identity: Callable[[R], Hashable],
        *,
        sort: str,
        reverse: bool = False,
        children: Callable[[R], Sequence[R]] = lambda record: (),
        mark: Callable[[R], str] = lambda record: " ",
    ) -> None:
        """`sort` is the key of the column to sort by at first; `children` returns rows that follow their record.

        `mark` returns the sign at the left edge, one cell wide.
        """
        super().__init__(columns, next(column for column in columns if column.key == sort), reverse)
        self._identity_of, self._children, self._mark = identity, children, mark
        self._given: Sequence[R] = ()
        self._records: list[R] = []
        self._places: dict[Hashable, int] = {}
        self._empty: Sequence[str] = ()
        self._filtered: Collection[Hashable] = ()

    @property
    def record(self) -> R | None:
        """The record under the cursor; None if there is no row."""
        return self._records[self._cursor] if self._cursor < len(self._records) else None

    @property
    def records(self) -> Sequence[R]:
        """All records, from top to bottom."""
        return self._records

    def show(self, records: Sequence[R], empty: Sequence[str] = (), filtered: Collection[Hashable] = ()) -> None:
        """Show these records; equal ones stay in this order. `empty` has the lines shown if there are none.

        `filtered` has the identities that a filter hides: the cursor returns to its record when the filter is cleared.
        """
        self._given, self._empty, self._filtered = records, empty, filtered
        self.update_children()

    def update_children(self) -> None:
        """Ask for the children of the records again."""
        self._change(self._resort)

    def move_to_record(self, identity: Hashable) -> None:
        """Move the cursor to this record if it is shown."""
        if (place := self._place(identity)) is not None:
            self.move_to(place)

    # CursorTable

    @property
    def _count(self) -> int:
        return len(self._records)

    def _identity(self, place: int) -> Hashable:
        return self._identity_of(self._records[place])

    def _place(self, identity: Hashable) -> int | None:
        return self._places.get(identity)

    def _hides(self, identity: Hashable) -> bool:
        return identity in self._filtered

    @property
    def _sortable(self) -> Sequence[RecordColumn[R]]:
        return [column for column in self.columns if column.sort is not None]

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        records, growing = self._records[first:last], filter(self._layout.may_widen, self.columns)
        return self._layout.widen([(column, longest_text(column, records, self.exact, colours)) for column in growing])

    def _row(self, place: int, colours: Palette) -> Line:
        record = self._records[place]
        return tuple(record_pieces(record, self._mark(record), self._layout.placed, self.exact, colours))

    def _why_empty(self) -> Sequence[str]:
        return self._empty

    def _resort(self) -> None:
        self._records = sorted_records(self._given, self.column.sort, self.reverse, self._children)
        self._places = {self._identity_of(record): place for place, record in enumerate(self._records)}
