"""RecordTable: one row per record of any kind, for some thousands of them; text is made of those that are seen.

    table = RecordTable(COLUMNS, identity=lambda one: one.cookie, sort="queue", reverse=True)
    table.show(records)

and again each time there are other records. `table.record` is the one under the cursor; `CursorTable.Opened` comes
with Enter and `CursorTable.SortChanged` with another order, each with the `table` that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic

from tcpwatch.widgets.cursor_table import CursorTable
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.record_columns import R, RecordColumn, RecordLines, sorted_records
from tcpwatch.widgets.table_layout import Placed


class RecordTable(CursorTable[RecordColumn[R]], Generic[R]):
    """Shows records; the cursor is on one of them, told by its identity."""

    def __init__(
        self,
        columns: Sequence[RecordColumn[R]],
        identity: Callable[[R], Hashable],
        *,
        sort: str,
        reverse: bool = False,
        children: Callable[[R], Sequence[R]] = lambda record: (),
        mark: Callable[[R], str] = lambda record: " ",
        id: str | None = None,
    ) -> None:
        """`sort` is the key of the column to sort by at first; `children` are rows that stay behind their record.

        `mark` is one cell wide, and stands at the left edge.
        """
        super().__init__(next(column for column in columns if column.key == sort), reverse, id=id)
        self._identity_of, self._children = identity, children
        self._lines = RecordLines(columns, mark)
        self._given: Sequence[R] = ()
        self._records: list[R] = []
        self._places: dict[Hashable, int] = {}
        self._empty: Sequence[str] = ()
        self._measured: tuple[int, int] | None = None
        self._lines.ask(columns, sort, exact=False)

    @property
    def record(self) -> R | None:
        """The one under the cursor; None where there is no row."""
        return self._records[self._cursor] if self._cursor < len(self._records) else None

    @property
    def records(self) -> Sequence[R]:
        """All rows, from top to bottom."""
        return self._records

    def show(self, records: Sequence[R], empty: Sequence[str] = ()) -> None:
        """Show these; equal ones stay in this order. `empty` is what is said where there are none."""
        self._given, self._empty = records, empty
        self.show_again()

    def show_again(self) -> None:
        """The records are the same, but their children are others."""
        self._change(self._resort)

    def show_columns(self, columns: Sequence[RecordColumn[R]]) -> None:
        """Choose among these columns, as many as fit; those of the same keys stand for the ones before."""
        self.column = next((column for column in columns if column.key == self.column.key), self.column)
        self._ask(columns, self._lines.exact)

    def show_exact(self, exact: bool) -> None:
        """Numbers as they are, and no names, or as people like them."""
        self._ask(self._lines.columns, exact)

    def hold(self, identity: Hashable) -> None:
        """Put the cursor on this record, where it is shown."""
        if (place := self._place(identity)) is not None:
            self.move_to(place)

    # As CursorTable asks

    @property
    def _count(self) -> int:
        return len(self._records)

    def _identity(self, place: int) -> Hashable:
        return self._identity_of(self._records[place])

    def _place(self, identity: Hashable) -> int | None:
        return self._places.get(identity)

    @property
    def _sortable(self) -> Sequence[RecordColumn[R]]:
        return [column for column in self._lines.columns if column.sort is not None]

    @property
    def _placed(self) -> Sequence[Placed[RecordColumn[R]]]:
        return self._lines.placed

    def _set_room(self, room: int) -> None:
        self._lines.set_room(room)

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        if self._measured == (first, last):
            return False
        self._measured = first, last
        return self._lines.make_room(self._records[first:last], colours)

    def _row(self, place: int, cursor: bool, colours: Palette) -> Sequence[Piece]:
        return self._lines.pieces(self._records[place], cursor, colours)

    def _resort(self) -> None:
        self._records = sorted_records(self._given, self.column.sort, self.reverse, self._children)
        self._places = {self._identity_of(record): place for place, record in enumerate(self._records)}
        self._ask(self._lines.columns, self._lines.exact)

    def _ask(self, columns: Sequence[RecordColumn[R]], exact: bool) -> None:
        # What the rows are sorted by is worth seeing.
        self._lines.ask(columns, self.column.key, exact)
        self._measured = None
        self.refresh()

    def _instead(self, line: int, colours: Palette) -> Line:
        said = self._empty if not self._records else ()
        return ((f"   {said[line - 1]}", colours.plain),) if 0 < line <= len(said) else ()
