"""TablePage: a page with a table that can be filtered and exported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from tcpwatch import units
from tcpwatch.model.query.filter import Filter
from tcpwatch.screens.shared.export import ExportFinished, start_export
from tcpwatch.screens.shared.filter_line import FilterLine
from tcpwatch.screens.shared.page import Page
from tcpwatch.widgets.table.cursor_table import CursorTable


def no_match_lines(total: int, noun: str) -> tuple[str, str]:
    """Return what is shown in place of rows when a filter hides them all."""
    return f"None of {units.count(total)} {noun} match the filter.", "/ edits the filter, Esc clears it."


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
        """Show what passes the filter, which is another."""
        raise NotImplementedError

    @property
    def visible_table(self) -> CursorTable[Any]:
        """The table that is seen, and takes the keys."""
        return self.table

    @property
    def filter(self) -> Filter:
        """The filter that a person asked for."""
        return self.query_one(FilterLine).filter

    def set_filter(self, filter_text: str) -> None:
        """Show what passes this filter; one that cannot be understood is shown with the reason."""
        self.query_one(FilterLine).set_text(filter_text)

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        """Another filter."""
        message.stop()
        self.refilter()
        self.refresh_bindings()

    def on_filter_line_dismissed(self, message: FilterLine.Dismissed) -> None:
        """The keys go to the table again."""
        message.stop()
        self.visible_table.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc steps back from a filter, where there is one; `/` is a letter like others while one is typed."""
        if action == "clear_filter":
            return bool(self.filter.text)
        return action != "filter" or self.visible_table.has_focus

    def action_filter(self) -> None:
        """Type a filter."""
        self.query_one(FilterLine).open()

    def action_clear_filter(self) -> None:
        """Show all."""
        self.set_filter("")

    def export(self, name: str, what: str, blocks: Iterable[str]) -> None:
        """Write these into a file in the current directory, and say so; `what` they are: `12 listeners`."""
        path = Path.cwd() / name
        start_export(path, blocks, lambda error: self.post_message(ExportFinished(path, what, error)))

    def on_export_finished(self, message: ExportFinished) -> None:
        """Say where it is, or why it is not."""
        message.stop()
        self.notify(message.text, severity="error" if message.error else "information", markup=False)
