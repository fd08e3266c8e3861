"""SocketTable: one row per socket; a million rows scroll as a hundred do, since only what is seen becomes text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

from rich.cells import cell_len

from tcpwatch.model.columns.columns import BY_KEY, IN_TABLE, SocketColumn
from tcpwatch.model.query import arrangement as arrange
from tcpwatch.model.query.arrangement import Arrangement
from tcpwatch.widgets import lines
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.lines import empty_lines, row_pieces


class SocketTable(CursorTable[SocketColumn]):
    """Shows an Arrangement; the cursor is on a flow. Whoever gave the Arrangement gives another for another order."""

    def __init__(self) -> None:
        super().__init__(IN_TABLE, BY_KEY["state"], reverse=False)
        self.arrangement: Arrangement | None = None
        """What is shown; None before the first."""
        self._texts: dict[int, arrange.SocketLine] = {}

    def show(self, arrangement: Arrangement) -> None:
        """Show these rows."""
        self._change(lambda: setattr(self, "arrangement", arrangement))

    @property
    def cursor_cookie(self) -> int | None:
        """The flow under the cursor; None where there is no row."""
        return self._identity(self._cursor) if self._cursor < self._count else None

    # As CursorTable asks

    @property
    def _count(self) -> int:
        return len(self.arrangement or ())

    def _identity(self, place: int) -> int:
        assert self.arrangement is not None
        return self.arrangement.cookie(place)

    def _place(self, identity: Hashable) -> int | None:
        return self.arrangement.place(cast(int, identity)) if self.arrangement is not None else None

    def _hides(self, identity: Hashable) -> bool:
        return self.arrangement is not None and self.arrangement.rows.find(cast(int, identity)) is not None

    @property
    def _question(self) -> Hashable:
        shown = self.arrangement
        return None if shown is None else (shown.filter, shown.reverse)

    @property
    def _sorted_by(self) -> SocketColumn | None:
        return self.arrangement.column if self.arrangement is not None else None

    def _prepare(self, first: int, last: int, colours: Palette) -> bool:
        assert self.arrangement is not None
        columns = [placed.column for placed in self._layout.placed]
        texts = self.arrangement.lines(first, last, columns, self.exact)
        self._texts = dict(enumerate(texts, first))
        longest = (max(cell_len(one.cells[i]) for one in texts) for i in range(len(columns)))
        return self._layout.widen(zip(columns, longest, strict=True))

    def _row(self, place: int, colours: Palette) -> lines.Line:
        return tuple(row_pieces(self._texts[place], self._layout.placed, colours))

    def _why_empty(self) -> Sequence[str]:
        return empty_lines(self.arrangement)
