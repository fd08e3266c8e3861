"""TeardownLayout: the blocks of the teardown screen in one column, with short tables in pairs, or in two columns.

The number of rows of each table depends only on the size of the screen, so that nothing moves while figures change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcpwatch.model.view import View
from tcpwatch.screens.teardown import owners, ports
from tcpwatch.screens.teardown.owners import CLOSE_WAIT, FINAL_STATES_TABLE, HALF_CLOSED
from tcpwatch.screens.teardown.ports import EPHEMERAL_PORTS, TIME_WAIT_DESTINATIONS, TIME_WAIT_PORTS
from tcpwatch.screens.teardown.stalls import STALLED, stalled_table
from tcpwatch.screens.teardown.table import InlineBlock, InlineTable, RowPlace, beside, stacked, table_block
from tcpwatch.screens.teardown.time_wait import BLOCK_HEIGHT, chart_lines, time_wait_lines
from tcpwatch.widgets.lines import Line, fit
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import GUTTER

PAIRS_FROM, TWO_COLUMNS_FROM = 72, 120
"""Smallest widths with short tables in pairs, and with two columns."""
_TALL = 30
"""Smallest height with the table of stalled sockets in one column."""
_CHARTS_FROM = 40
_MIN_HEIGHT, _MAX_BARS = 21, 8
_ONE_COLUMN_ORDER = (EPHEMERAL_PORTS, CLOSE_WAIT, TIME_WAIT_PORTS, HALF_CLOSED, FINAL_STATES_TABLE)
_TWO_COLUMNS_ORDER = (
    TIME_WAIT_DESTINATIONS, TIME_WAIT_PORTS, EPHEMERAL_PORTS, CLOSE_WAIT, FINAL_STATES_TABLE, HALF_CLOSED, STALLED,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TeardownTables:
    """A View and its tables."""

    view: View
    tables: Mapping[str, InlineTable[Any]]

    @classmethod
    def of(cls, view: View) -> TeardownTables:
        """Build all tables of this View."""
        tables = (
            ports.time_wait_destinations_table(view), ports.time_wait_ports_table(view),
            ports.ephemeral_ports_table(view), owners.close_wait_table(view), owners.half_closed_table(view),
            owners.final_states_table(view), stalled_table(view),
        )  # fmt: skip
        return cls(view, {table.name: table for table in tables})

    def detail(self, place: RowPlace | None, exact: bool) -> str:
        """Return the detail of the row; empty if it does not exist any more."""
        table = self.tables[place[0]] if place else None
        record = table.record(place) if table and place else None
        return table.detail(record, exact) if table and record is not None else ""

    def filter(self, place: RowPlace) -> str:
        """Return the filter of the row's sockets; empty if the row does not exist any more."""
        table = self.tables[place[0]]
        record = table.record(place)
        return table.filter(record) if record is not None else ""


@dataclass(frozen=True, slots=True)
class TeardownLayout:
    """The screen for this width and height."""

    width: int
    height: int
    colours: Palette
    exact: bool

    @property
    def table_names(self) -> Sequence[str]:
        """The tables that are shown, in reading order."""
        if self.width >= TWO_COLUMNS_FROM:
            return _TWO_COLUMNS_ORDER
        return (*_ONE_COLUMN_ORDER, STALLED) if self.height >= _TALL else _ONE_COLUMN_ORDER

    def draw(self, tables: TeardownTables, cursor: RowPlace | None) -> InlineBlock:
        """Return all blocks, and a line with the detail of the row under the cursor."""
        body = self._columns(tables, cursor) if self.width >= TWO_COLUMNS_FROM else self._pairs(tables, cursor)
        detail = f"   {tables.detail(cursor, self.exact)}"
        return stacked(body, InlineBlock.of(((fit(detail, max(0, self.width - 1)), self.colours.plain),)))

    def _pairs(self, tables: TeardownTables, cursor: RowPlace | None) -> InlineBlock:
        height, tall, pairs = max(self.height, _MIN_HEIGHT), self.height >= _TALL, self.width >= PAIRS_FROM
        bars = min(_MAX_BARS, 1 + (height - _MIN_HEIGHT) // 6)
        # Titles, the line of the port range, the table of closing sockets, and the detail line.
        free = height - BLOCK_HEIGHT - bars - 8 - tall
        short = max(2, free // 5 if tall else free // 4)
        port_rows = free - short * (3 if tall else 2)
        cells = (self.width - GUTTER) // 2 if pairs else self.width
        left, right = (self._table(tables, name, short, cells, cursor) for name in (TIME_WAIT_PORTS, HALF_CLOSED))
        return stacked(
            self._time_wait(tables, self.width, bars),
            self._ports(tables, port_rows, cursor),
            self._table(tables, CLOSE_WAIT, short, self.width, cursor),
            beside(left, right, cells, self.colours) if pairs else stacked(left, right),
            self._table(tables, FINAL_STATES_TABLE, 2, self.width, cursor),
            *([self._table(tables, STALLED, short, self.width, cursor)] if tall else ()),
        )

    def _columns(self, tables: TeardownTables, cursor: RowPlace | None) -> InlineBlock:
        height, cells = max(self.height, _MIN_HEIGHT), (self.width - GUTTER) // 2
        bars = min(_MAX_BARS, 1 + (height - _MIN_HEIGHT) // 5)
        rows = BLOCK_HEIGHT + bars - 2
        charts = height // 8 if height >= _CHARTS_FROM else 0
        free = height - BLOCK_HEIGHT - bars - charts - 3
        port_rows = free * 2 // 5
        below = free - port_rows

        def table(name: str, rows: int) -> InlineBlock:
            return self._table(tables, name, rows, cells, cursor)

        return stacked(
            beside(
                self._time_wait(tables, cells, bars),
                stacked(table(TIME_WAIT_DESTINATIONS, rows - rows // 2), table(TIME_WAIT_PORTS, rows // 2)),
                cells,
                self.colours,
            ),
            self._ports(tables, port_rows, cursor),
            beside(
                stacked(table(CLOSE_WAIT, below - 4), table(FINAL_STATES_TABLE, 2)),
                stacked(table(HALF_CLOSED, (below - 2) // 2), table(STALLED, below - 2 - (below - 2) // 2)),
                cells,
                self.colours,
            ),
            *([self._charts(tables, cells, charts)] if charts else ()),
        )

    def _charts(self, tables: TeardownTables, cells: int, height: int) -> InlineBlock:
        left, right = (InlineBlock.of(*lines) for lines in chart_lines(tables.view, cells, height, self.colours))
        return beside(left, right, cells, self.colours)

    def _time_wait(self, tables: TeardownTables, width: int, bars: int) -> InlineBlock:
        return InlineBlock.of(*time_wait_lines(tables.view, width, bars, self.colours, self.exact))

    def _ports(self, tables: TeardownTables, rows: int, cursor: RowPlace | None) -> InlineBlock:
        reuse = tables.view.sample.sysctls.get("tcp_tw_reuse")
        line: Line = ports.range_line(tables.view.ephemeral_ports, reuse, self.width, self.colours)
        return self._table(tables, EPHEMERAL_PORTS, rows, self.width, cursor, line)

    def _table(
        self, tables: TeardownTables, name: str, rows: int, width: int, cursor: RowPlace | None, *below: Line
    ) -> InlineBlock:
        return table_block(tables.tables[name], rows, width, cursor, self.colours, self.exact, *below)
