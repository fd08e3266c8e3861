"""The text of a table's visible lines: made for few places at a time, in columns as wide as their texts want."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from tcpwatch.model.arrange import Arrangement, Line
from tcpwatch.model.columns import IN_TABLE, Column
from tcpwatch.widgets.table_layout import Placed, laid_out

_KEPT = 1024
"""Lines that are remembered; a person who scrolls through a million leaves no more behind."""


class TableTexts:
    """Lines of an Arrangement. Columns widen for texts that come in sight, and narrow only with a new question."""

    def __init__(self) -> None:
        self.arrangement: Arrangement | None = None
        self.placed: tuple[Placed[Column], ...] = ()
        self.columns: Sequence[Column] = IN_TABLE
        self.exact = False
        self._room = 0
        self._wants: dict[str, int] = {}
        self._lines: dict[int, Line] = {}

    def show(self, arrangement: Arrangement) -> None:
        """Take these rows; another filter or sort is a new question."""
        old, self.arrangement = self.arrangement, arrangement
        asked = (arrangement.filter, arrangement.column, arrangement.reverse)
        if old is None or asked != (old.filter, old.column, old.reverse):
            self._wants.clear()
        self._lay_out()

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Of these columns, those that fit."""
        self.columns = columns
        self._lay_out()

    def set_exact(self, exact: bool) -> None:
        """Numbers as they are, and no names, or as people like them."""
        self.exact = exact
        self._wants.clear()
        self._lay_out()

    def set_room(self, room: int) -> None:
        """So many cells for all columns together."""
        if room != self._room:
            self._room = room
            self._lay_out()

    def prepare(self, first: int, last: int) -> bool:
        """Make the lines for the places `first` … `last - 1`; True if that moved the columns."""
        before = self.placed
        while self._fill(first, last):
            self._lay_out()
        return self.placed != before

    def line(self, place: int) -> Line | None:
        """The line at a place that was prepared; None beyond the last."""
        return self._lines.get(place)

    def _lay_out(self) -> None:
        self._lines.clear()
        # What the rows are sorted by is worth seeing.
        asked = self.arrangement.column.key if self.arrangement is not None else ""
        self.placed = laid_out(self.columns, self._room, self._wants, asked)

    def _fill(self, first: int, last: int) -> bool:
        """Make what is missing; True if a text wants a wider column and there may be room for it."""
        if self.arrangement is None:
            return False
        missing = [place for place in range(first, min(last, len(self.arrangement))) if place not in self._lines]
        if not missing:
            return False
        if len(self._lines) > _KEPT:
            self._lines.clear()
            missing = [first, last - 1]
        shown = [placed.column for placed in self.placed]
        lines = self.arrangement.lines(missing[0], missing[-1] + 1, shown, self.exact)
        self._lines.update(enumerate(lines, missing[0]))
        return self._note_wants(lines)

    def _note_wants(self, lines: Sequence[Line]) -> bool:
        more = False
        for i, placed in enumerate(self.placed):
            column = placed.column
            longest = max((cell_len(line.cells[i]) for line in lines), default=0)
            want = min(longest - column.width, column.grow)
            if want > self._wants.get(column.key, 0):
                self._wants[column.key] = want
                more = True
        return more
