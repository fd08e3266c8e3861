"""Lists of the largest sources, by address and by network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tcpwatch import units
from tcpwatch.model.listeners.syn_sources import TOP, PrefixKind, SynSource, SynSources
from tcpwatch.widgets.lines import Line, fit, overlay_style, title_rule
from tcpwatch.widgets.palette import Palette

SourcePlace = tuple[PrefixKind, int]
"""The grouping and the rank of a source: an item for the cursor."""

_MARK, _COUNT, _SHARE = 3, 7, 7
_NAME, _NAME6 = 16, 24
"""Cells for an IPv4 prefix, and for a typical IPv6 prefix."""
_MAX_NAME = 43
"""Cells for any prefix."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """Groupings one below another, with a title above them."""

    title: str
    groupings: tuple[PrefixKind, ...]
    heads: tuple[str, ...] = ()
    """Texts for the end of its title line; the first one that fits is shown."""

    def head(self, width: int) -> str:
        """Return the first text that fits, after a blank."""
        return next((f" {head}" for head in self.heads if head and len(self.title) + len(head) + 8 <= width), "")


_NETWORKS: Mapping[tuple[bool, bool], tuple[tuple[PrefixKind, ...], tuple[PrefixKind, ...]]] = {
    (True, False): (("/24",), ("/16",)),
    (False, True): (("/64",), ("/48",)),
    (True, True): (("/24", "/64"), ("/16", "/48")),
}
"""(IPv4 present, IPv6 present) → kinds of the smaller and of the larger networks."""


def source_columns(sources: SynSources | None, count: int) -> list[SourceColumn]:
    """Return the groupings in two or three columns; IPv4 networks unless all addresses are IPv6."""
    has_v6 = bool(sources and sources.top["/64"])
    has_v4 = bool(sources and sources.top["/24"]) or not has_v6
    small, large = _NETWORKS[has_v4, has_v6]
    addresses = SourceColumn("Addresses", ("address",), _address_heads(sources))
    spread = _spread_heads(sources)
    if count == 2:
        return [addresses, SourceColumn("Networks", small + large, spread)]
    titles = [f"Networks {' and '.join(kinds)}" for kinds in (small, large)]
    return [addresses, SourceColumn(titles[0], small, spread), SourceColumn(titles[1], large)]


def _address_heads(sources: SynSources | None) -> tuple[str, ...]:
    if sources is None or not sources.count:
        return ()
    distinct, share = units.plural(sources.distinct, "source"), units.share(sources.distinct_share)
    return f"{distinct} ({share} of half-open)", f"{distinct} ({share})", distinct


_NARROW_BITS, _WIDE_BITS = 2.0, 5.0
"""Entropies of 4 and of 32 addresses with equal shares."""


def _spread_heads(sources: SynSources | None) -> tuple[str, ...]:
    if sources is None or not sources.count:
        return ()
    bits = sources.entropy
    spread = f"source spread: {'narrow' if bits < _NARROW_BITS else 'wide' if bits >= _WIDE_BITS else 'medium'}"
    return f"{spread} ({bits:.1f} bits)", spread


def rows_per_prefix_kind(rows: int, groupings: int) -> list[int]:
    """Return the number of rows of each grouping in a column."""
    each, rest = divmod(rows, groupings)
    return [min(TOP, each + (at < rest)) for at in range(groupings)]


def source_places(sources: SynSources | None, column: SourceColumn, rows: int) -> list[SourcePlace | None]:
    """Return the source in each row of a column; None if the row is empty."""
    shown: list[SourcePlace | None] = []
    for grouping, room in zip(column.groupings, rows_per_prefix_kind(rows, len(column.groupings)), strict=True):
        listed = min(room, len(sources.top[grouping])) if sources else 0
        shown += [(grouping, rank) for rank in range(listed)] + [None] * (room - listed)
    return shown + [None] * (rows - len(shown))


def source_column_lines(
    sources: SynSources | None,
    column: SourceColumn,
    rows: int,
    width: int,
    cursor: SourcePlace | None,
    colours: Palette,
    exact: bool,
) -> list[Line]:
    """Return the title of the column and `rows` rows, in `width` cells."""
    lines = [title_rule(column.title, width, colours, column.head(width))]
    places = source_places(sources, column, rows)
    shown = [sources.top[place[0]][place[1]] if sources and place else None for place in places]
    longest = max((len(source.prefix) for source in shown if source), default=0)
    if any(source and ":" in source.prefix for source in shown):
        longest = max(longest, _NAME6)
    for place, source in zip(places, shown, strict=True):
        if source is None:
            lines.append(())
            continue
        marked = place == cursor
        line = _row(source, longest, width, marked, colours, exact)
        lines.append(overlay_style(line, width, colours.cursor) if marked else line)
    return lines


def _row(source: SynSource, longest: int, width: int, marked: bool, colours: Palette, exact: bool) -> Line:
    figure = units.count(source.count, exact)
    count = max(_COUNT, len(figure))  # millions as exact numbers make the bar shorter
    free = max(0, width - _MARK - 1 - count - _SHARE - 1)
    name = min(free, _MAX_NAME, max(_NAME, longest))
    return (
        (" ▸ " if marked else "   ", colours.strong),
        (fit(source.prefix, name, middle=True) + " ", colours.plain),
        (units.bar(source.share, free - name - 1) + " " * (free > name), colours.handshake),
        (fit(figure, count, right=True), colours.plain),
        (fit(_share(source.share), _SHARE, right=True) + " ", colours.dim),
    )


def _share(share: float) -> str:
    """Return the share in percent; never `0.00 %`."""
    return "<.01 %" if share < 0.00005 else units.share(share)
