"""Groups on the page of connections: the ways to group, the groups that were opened, and what is said of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tcpwatch.model.query.groups import GroupField, GroupRow, SocketGroup
from tcpwatch.screens.connections.group_columns import ALL_COLUMNS
from tcpwatch.screens.shared.arranger import GroupArrangement
from tcpwatch.screens.shared.table_page import no_match_lines
from tcpwatch.units import count, plural
from tcpwatch.units.printable import printable
from tcpwatch.widgets.lines import Line, Piece
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.table.lines import Sorting
from tcpwatch.widgets.table.record_columns import RecordColumn


@dataclass(frozen=True, slots=True)
class OpenedGroup:
    """A group whose sockets are shown."""

    by: GroupField
    """The groups that it was among."""
    outer_filter: str
    """The filter that these passed."""
    filter: str
    """The same, with the group's terms."""

    @classmethod
    def of(cls, row: GroupRow, before: str) -> OpenedGroup:
        """The group of this row, among groups of what passes that filter; what that ends with is not said twice."""
        terms = row.group.filter
        known = f" {before}".endswith(f" {terms}")
        return cls(row.by, before, before if known else f"{before} {terms}".strip())

    def covers(self, filter_text: str) -> bool:
        """Whether this filter still is the group's, or one that asks for more."""
        return f"{filter_text} ".startswith(f"{self.filter} ")


class GroupNavigation:
    """Where a person is: sockets or groups of them, perhaps inside groups that were opened, each inside another."""

    def __init__(self) -> None:
        self.by: GroupField | None = None
        """How sockets are grouped; None for single ones."""
        self._opened: list[OpenedGroup] = []

    def current_group(self, filter_text: str) -> OpenedGroup | None:
        """The group whose sockets these are."""
        last = self._opened[-1] if self._opened else None
        return last if last is not None and last.covers(filter_text) else None

    def allows(self, action: str, filter_text: str) -> bool:
        """Which of its meanings Esc has: it takes back a group that was opened, then a filter, then grouping."""
        if action == "leave_group":
            return self.current_group(filter_text) is not None
        if action == "clear_filter":
            return bool(filter_text) and self.current_group(filter_text) is None
        return self.by is not None and not filter_text

    def change_grouping(self, step: int, filter_text: str, untold: Collection[str]) -> None:
        """Group in the next way, or the one before; inside a group, in the next but the one that it is from."""
        inside = self.current_group(filter_text)
        by = inside.by if inside is not None and self.by is None else self.by
        ways = [None, *(way for way in GroupField if way is not GroupField.CGROUP or "cgroup_id" not in untold)]
        self.by = ways[(ways.index(by) + step) % len(ways)]
        if inside is None:
            self._opened.clear()

    def enter(self, row: GroupRow, filter_text: str) -> str:
        """Go into a group; returns the filter of its sockets."""
        if self.current_group(filter_text) is None:
            self._opened.clear()
        self._opened.append(OpenedGroup.of(row, filter_text))
        self.by = None
        return self._opened[-1].filter

    def leave(self) -> str:
        """Go back to the groups among which it was; returns their filter."""
        group = self._opened.pop()
        self.by = group.by
        return group.outer_filter

    def reset(self) -> None:
        """Be among the single sockets, inside no group."""
        self._opened.clear()
        self.by = None


def not_opened_reason(group: SocketGroup) -> str:
    """Why Enter shows no sockets."""
    return f"no filter selects the sockets of this group: {group.name}"


def group_count_text(shown: GroupArrangement) -> str:
    """Return `12 groups`, or `500 largest of 12,000 groups` if only those are listed."""
    listed, total = len(shown.grouped.groups), shown.grouped.count
    return f"{count(listed)} largest of {count(total)} groups" if listed < total else plural(total, "group")


def title_line(shown: GroupArrangement, sorting: Sorting[RecordColumn[GroupRow]], colours: Palette) -> Line:
    """Kind of groups, how many of how many sockets, filter, sort."""
    of_all = f"{count(shown.grouped.sockets)} of " if shown.filter.text else ""
    pieces: list[Piece] = [
        (f" by {shown.grouped.by.value}: ", colours.key),
        (f"{group_count_text(shown)} of {of_all}{plural(shown.total, 'socket')}", colours.strong),
    ]
    if shown.filter.text:
        pieces += [(" · filter ", colours.dim), (printable(shown.filter.text), colours.plain)]
    pieces += [(" · sort ", colours.dim), (f"{sorting.column.title} {sorting.arrow}", colours.plain)]
    return tuple(pieces)


def empty_lines(shown: GroupArrangement) -> Sequence[str]:
    """What is said in place of groups."""
    if not shown.total:
        return ("No TCP sockets.",)
    return no_match_lines(shown.total, "sockets")


def group_help_sections() -> Sequence[Section]:
    """For the help."""
    return [
        Section("Groups", [
            Entry("", "Sockets that pass the filter, taken together by process (of several that hold a socket the "
                  "lowest pid), peer, service (the peer's address and port), local port, state, or cgroup."),
            Entry("", "Enter shows the sockets of a group: its terms are added to the filter. Esc goes back."),
            *(Entry(column.title, column.help) for column in ALL_COLUMNS),
        ], 10),
    ]  # fmt: skip
