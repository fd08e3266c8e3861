"""Groups on the Connections page: the grouping, the groups that were opened, and their title."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tcpwatch.model.query.groups import GroupField, SocketGroup
from tcpwatch.screens.connections.group_columns import ALL_COLUMNS
from tcpwatch.screens.shared.arranger import GroupArrangement
from tcpwatch.screens.shared.table_page import filter_pieces, no_match_lines, sort_pieces
from tcpwatch.units import count, plural
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.lines import Sorting
from tcpwatch.widgets.table.record_columns import RecordColumn


@dataclass(frozen=True, slots=True)
class OpenedGroup:
    """A group that was opened to show its sockets."""

    by: GroupField
    """The grouping in which it was opened."""
    outer_filter: str
    """The filter of the groups."""
    filter: str
    """The filter of the groups with the terms of this group."""

    @classmethod
    def of(cls, row: SocketGroup, before: str) -> OpenedGroup:
        """Return the group of this row below the filter `before`; terms that it ends with are not repeated."""
        terms = row.filter
        known = f" {before}".endswith(f" {terms}")
        return cls(row.by, before, before if known else f"{before} {terms}".strip())

    def covers(self, filter_text: str) -> bool:
        """Return whether this filter is the group's, or a narrower one."""
        return f"{filter_text} ".startswith(f"{self.filter} ")


class GroupNavigation:
    """Current position: sockets or groups, perhaps inside groups that were opened one inside the other."""

    def __init__(self) -> None:
        self.by: GroupField | None = None
        """The grouping; None for single sockets."""
        self._opened: list[OpenedGroup] = []

    def current_group(self, filter_text: str) -> OpenedGroup | None:
        """Return the group whose sockets this filter shows."""
        last = self._opened[-1] if self._opened else None
        return last if last is not None and last.covers(filter_text) else None

    def allows(self, action: str, filter_text: str) -> bool:
        """Return whether Esc does this action: it leaves a group, else clears the filter, else ends grouping."""
        if action == "leave_group":
            return self.current_group(filter_text) is not None
        if action == "clear_filter":
            return bool(filter_text) and self.current_group(filter_text) is None
        return self.by is not None and not filter_text

    def change_grouping(self, step: int, filter_text: str, unsupported: Collection[str]) -> None:
        """Select the next or previous grouping, counted from that of the group opened last."""
        inside = self.current_group(filter_text)
        by = inside.by if inside is not None and self.by is None else self.by
        ways = [None, *(way for way in GroupField if way is not GroupField.CGROUP or "cgroup_id" not in unsupported)]
        self.by = ways[(ways.index(by) + step) % len(ways)]
        if inside is None:
            self._opened.clear()

    def enter(self, row: SocketGroup, filter_text: str) -> str:
        """Open a group, and return the filter of its sockets."""
        if self.current_group(filter_text) is None:
            self._opened.clear()
        self._opened.append(OpenedGroup.of(row, filter_text))
        self.by = None
        return self._opened[-1].filter

    def leave(self) -> str:
        """Leave the group, and return the filter of the list of groups."""
        group = self._opened.pop()
        self.by = group.by
        return group.outer_filter

    def reset(self) -> None:
        """Show single sockets outside any group."""
        self._opened.clear()
        self.by = None


def not_opened_reason(group: SocketGroup) -> str:
    """Return why the group cannot be opened."""
    return f"no filter selects the sockets of this group: {group.name}"


def group_count_text(shown: GroupArrangement) -> str:
    """Return `12 groups`, or `500 largest of 12,000 groups` if only those are listed."""
    listed, total = len(shown.grouped.groups), shown.grouped.count
    return f"{count(listed)} largest of {count(total)} groups" if listed < total else plural(total, "group")


def title_line(shown: GroupArrangement, sorting: Sorting[RecordColumn[SocketGroup]], colours: Palette) -> Line:
    """Return the title: grouping, numbers of groups and sockets, filter, order."""
    of_all = f"{count(shown.grouped.sockets)} of " if shown.filter.text else ""
    pieces: list[Piece] = [
        (f" by {shown.grouped.by.value}: ", colours.key),
        (f"{group_count_text(shown)} of {of_all}{plural(shown.total, 'socket')}", colours.strong),
    ]
    return (*pieces, *filter_pieces(shown.filter, colours), *sort_pieces(sorting, colours))


def empty_lines(shown: GroupArrangement) -> Sequence[str]:
    """Return the lines shown if there are no groups."""
    if not shown.total:
        return ("No TCP sockets.",)
    return no_match_lines(shown.total, "sockets")


def group_help_sections() -> Sequence[Section]:
    """Return what the help says about this screen."""
    return [
        Section("Groups", [
            Entry("", "Sockets that match the filter, grouped by process (the lowest pid if several hold a socket), "
                  "peer, service (the peer's address and port), local port, state, or cgroup."),
            Entry("", "Enter shows the sockets of a group: its terms are added to the filter. Esc goes back."),
            *(Entry(column.title, column.help) for column in ALL_COLUMNS),
        ], 10),
    ]  # fmt: skip
