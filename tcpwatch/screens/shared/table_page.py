"""TablePage: a page with a table that can be filtered and exported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from typing_extensions import override

from tcpwatch import units
from tcpwatch.model.query.filter import Filter
from tcpwatch.screens.shared.clipboard import to_clipboard
from tcpwatch.screens.shared.export import Export, export_is_running
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.page import FlowSelected, Page
from tcpwatch.units.printable import printable
from tcpwatch.widgets.lines import Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.table.cursor_table import CursorTable
from tcpwatch.widgets.table.layout import C
from tcpwatch.widgets.table.lines import Sorting


def no_match_lines(total: int, noun: str) -> tuple[str, str]:
    """Return what is shown in place of rows when a filter hides them all."""
    return f"None of {units.count(total)} {noun} match the filter.", "/ edits the filter, Esc clears it."


def filter_pieces(filter_: Filter, colours: Palette) -> list[Piece]:
    """Return ` · filter state:tw` for a title; nothing without a filter."""
    return [(" · filter ", colours.dim), (printable(filter_.text), colours.plain)] if filter_.text else []


def sort_pieces(sorting: Sorting[C], colours: Palette) -> list[Piece]:
    """Return ` · sort State ▲` for a title."""
    return [(" · sort ", colours.dim), (f"{sorting.column.title} {sorting.arrow}", colours.plain)]


class TablePage(Page):
    """A subclass composes the table and a FilterLine below it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter"),
        Binding("escape", "clear_filter", "clear the filter", show=False),
        Binding("x", "export", "export as CSV", show=False),
        Binding("c", "copy", "copy the row", show=False),
    ]
    table: CursorTable[Any]

    def refilter(self) -> None:
        """Apply the filter again."""
        raise NotImplementedError

    @override
    def show_exact(self, exact: bool) -> None:
        self.table.show_exact(exact)

    @property
    def visible_table(self) -> CursorTable[Any]:
        """The table on screen, which has the focus."""
        return self.table

    @property
    def table_has_keys(self) -> bool:
        """Whether keys go to the table; `has_focus` lags behind, so that a key could be lost as two tables change."""
        return self.screen.focused is self.visible_table

    @property
    def filter(self) -> Filter:
        """The current filter."""
        return self.query_one(FilterLine).filter

    def set_filter(self, filter_text: str) -> None:
        """Filter by this text; an invalid filter is shown with its error."""
        self.query_one(FilterLine).set_text(filter_text)

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        """Apply the new filter."""
        message.stop()
        self.refilter()
        self.refresh_bindings()

    def on_filter_line_dismissed(self, message: FilterLine.Dismissed) -> None:
        """Focus the table again."""
        message.stop()
        self.visible_table.focus()

    def on_cursor_table_opened(self, message: CursorTable.Opened) -> None:
        """Open the flow of the row, whose identity is the cookie."""
        message.stop()
        if isinstance(message.identity, int):
            self.post_message(FlowSelected(message.identity))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable Esc while there is a filter, and `/` unless a filter is being typed."""
        if action == "clear_filter":
            return bool(self.filter.text)
        return action != "filter" or self.table_has_keys

    def action_filter(self) -> None:
        """Open the filter line."""
        self.query_one(FilterLine).open()

    def action_clear_filter(self) -> None:
        """Clear the filter."""
        self.set_filter("")

    def copy(self, text: str) -> None:
        """Send the text of a row to the clipboard."""
        to_clipboard(self, "row", text)

    def export(self, name: str, what: str, blocks: Iterable[str]) -> None:
        """Write a new file and report it; `what` describes the content: `12 listeners`."""
        if export_is_running():
            self.notify("the previous export is still being written", severity="warning", markup=False)
            return
        Export(name, what, blocks, lambda export: self.call_later(self._report_export, export))

    def _report_export(self, export: Export) -> None:
        self.notify(export.report(), severity="error" if export.failed else "information", markup=False)
