"""Blocks of the half-open screen: verdict, SYN queues, SYNs and cookies, ages, and SYN+ACK retransmits.

The height of a block does not depend on its figures, so that nothing below it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tcpwatch import units
from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.half_open import AGE_EDGES_S, RETRANSMIT_CLASSES, HalfOpenSummary
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.half_open.verdict_kinds import HalfOpenVerdict
from tcpwatch.model.states import State
from tcpwatch.model.trends import SYN_ARRIVALS, TREND_S
from tcpwatch.model.view import View
from tcpwatch.screens.shared.finding_lines import SEVERITY_SIGNS, severity_style
from tcpwatch.widgets.charts.area import area_lines
from tcpwatch.widgets.charts.bars import sparkline
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, fit, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import wrapped

INDENT = "   "
_RESERVED = 146
"""Cells reserved for a headline or a reason; longer ones take more lines."""
_LABEL, _WIDE_LABEL, _FIGURE, _COUNT = 18, 26, 13, 9
_MAX_SPARK = 60


def verdict_lines(verdict: HalfOpenVerdict, named: bool, width: int, colours: Palette) -> list[Line]:
    """Return the verdict with its figures, then the reason; with `named` also the listener it is about."""
    sign = SEVERITY_SIGNS.get(verdict.severity or Severity.INFO, "")
    style = severity_style(verdict.severity, colours) if verdict.severity else colours.strong
    head = f"{sign} {verdict.kind.value}"
    subject = f" {verdict.subject.endpoint}" if named and verdict.subject else ""
    headline, why = (wrapped(text, width - 4) for text in (f"{head}{subject}: {verdict.headline}", verdict.why))
    reserved = -(-_RESERVED // max(1, width - 4))
    lines: list[Line] = [((" ", colours.plain), (head, style), (headline[0].removeprefix(head), colours.strong))]
    lines += [((INDENT, colours.plain), (text, colours.strong)) for text in headline[1:]]
    lines += [()] * (reserved - len(headline))
    lines += [((INDENT, colours.plain), (text, colours.plain)) for text in why]
    return lines + [()] * (reserved - len(why))


# SYN queues --------------------------------------------------------------------------------------


def queue_line(listener: Listener | None, view: View, width: int, colours: Palette, exact: bool) -> Line:
    """Return a listener's SYN queue and its limit, what sets the limit, and the last two minutes."""
    name, source, spark = _queue_cells(width)
    if listener is None:
        return ((INDENT + "No listener.", colours.dim),)
    queue, history = listener.syn_queue, view.queue_trend.syn_queue(listener.cookie)
    length = max(0, width - len(INDENT) - name - 1 - 1 - _FIGURE - 1 - source - spark - 1)
    return (
        (INDENT + fit(_queue_name(listener, name), name, middle=True) + " ", colours.plain),
        *meter(queue.depth, queue.limit, length, _FIGURE, colours, exact),
        (" " + fit(listener.syn_limit_source.value, source), colours.dim),
        (sparkline(history, TREND_S, spark, from_zero=True), colours.handshake),
    )


def _queue_name(listener: Listener, cells: int) -> str:
    name = f"SYN queue {listener.endpoint}"
    return name if len(name) <= cells else f"SYN {listener.endpoint}"


def _queue_cells(width: int) -> tuple[int, int, int]:
    """Return the cells for the name, for what sets the limit, and for the history."""
    if width < 72:
        return 20, 0, 0
    return (30, 20, min(_MAX_SPARK, width // 3)) if width >= 120 else (20, 20, width // 8)


# SYNs and cookies --------------------------------------------------------------------------------

_RATES = (
    ("SYNs/s", SYN_ARRIVALS), ("cookies/s sent", "SyncookiesSent"), ("cookies/s returned", "SyncookiesRecv"),
    ("cookies/s failed", "SyncookiesFailed"),
)  # fmt: skip
_FULL_QUEUE_RATES = (
    ("SYN queue full → cookies/s", "TCPReqQFullDoCookies"), ("SYN queue full → dropped/s", "TCPReqQFullDrop"),
    ("accept overflows/s", "ListenOverflows"),
)  # fmt: skip


def rate_lines(view: View, width: int, colours: Palette, full_queues: bool = False) -> list[Line]:
    """Return rates of the whole host, each with its last two minutes; `full_queues`: also those of full queues."""
    rates = (*_RATES, *(_FULL_QUEUE_RATES if full_queues else ()))
    return [_rate_line(label, name, view, width, colours) for label, name in rates]


def _rate_line(label: str, name: str, view: View, width: int, colours: Palette) -> Line:
    per_s = view.syn_arrivals_per_s if name == SYN_ARRIVALS else view.rates.get(name)
    wide = width >= 50
    cells = _WIDE_LABEL if wide else _LABEL
    spark = max(0, min(_MAX_SPARK, width - len(INDENT) - cells - 1 - _COUNT - 1))
    style = colours.plain if per_s else colours.dim
    return (
        (INDENT + fit(label if wide else label.replace(" queue", "").replace(" → ", "→"), cells) + " ", style),
        (fit(units.rate(per_s), _COUNT, right=True) + " ", style),
        (sparkline(view.rate_trend.get(name, ()), TREND_S, spark, from_zero=True), colours.handshake),
    )


def chart_lines(listener: Listener | None, view: View, width: int, height: int, colours: Palette) -> list[list[Line]]:
    """Return charts of the last two minutes: half-open connections of a listener or of all, and SYNs of the host."""
    depths = view.queue_trend.syn_queue(listener.cookie) if listener else view.state_trend.get(State.SYN_RCVD, ())
    return [
        area_lines(title, values, TREND_S, width, height, colours.handshake, colours)
        for title, values in (("Half-open", depths), ("SYNs/s", view.rate_trend.get(SYN_ARRIVALS, ())))
    ]


# Ages and retransmits ----------------------------------------------------------------------------

_AGES = (*(f"{low}–{high} s" for low, high in pairwise(AGE_EDGES_S)), f"over {AGE_EDGES_S[-1]} s")
_TIMES = (
    "never",
    "once",
    *(f"{times} times" for times in range(2, RETRANSMIT_CLASSES - 1)),
    f"{RETRANSMIT_CLASSES - 1} or more",
)
_STEP = 9
_SHARE_OF_FROM = 39
"""Smallest width of the block with `88 % of 1.23 M` in its title."""
BLOCK_HEIGHT = 1 + len(_AGES)
"""Lines of each of the two blocks."""


def age_lines(half_open: HalfOpenSummary | None, width: int, colours: Palette, exact: bool) -> list[Line]:
    """Return the connections by age; `~` marks estimates."""
    lines = [title_rule("Age", width, colours, _age_head(half_open, width))]
    ages: Sequence[int | None] = half_open.ages if half_open else [None] * len(_AGES)
    sign = "~" if half_open and half_open.count and half_open.estimated == half_open.count else ""
    return lines + _bars(list(zip(_AGES, ages, strict=True)), width, colours, exact, sign)


def _age_head(half_open: HalfOpenSummary | None, width: int) -> str:
    if half_open is None or not half_open.count:
        return ""
    estimated = f"~{units.count(half_open.estimated)} estimated" if half_open.estimated else ""
    oldest = f"oldest {'~' if half_open.estimated else ''}{units.duration(half_open.oldest_s)}"
    both = " · ".join(filter(None, (oldest, estimated)))
    return f" {both if len(both) + 14 <= width else estimated or oldest}"


def retransmit_lines(
    half_open: HalfOpenSummary | None, view: View, width: int, colours: Palette, exact: bool
) -> list[Line]:
    """Return the connections by SYN+ACK retransmits; the last line counts those held back by TCP_DEFER_ACCEPT."""
    known = half_open if view.sample.capabilities.timers else None
    head = "" if view.sample.capabilities.timers else " unknown"
    if known and known.count:
        head = f" {units.share(known.retransmitted_share)}"
        head += f" of {units.count(known.count)}" if width >= _SHARE_OF_FROM else ""
    lines = [title_rule("SYN+ACK retransmits", width, colours, head)]
    counts: Sequence[int | None] = known.by_retransmits if known else [None] * RETRANSMIT_CLASSES
    lines += _bars(list(zip(_TIMES, counts, strict=True)), width, colours, exact)
    deferred = known.deferred if known else None
    label = fit("held by TCP_DEFER_ACCEPT", max(0, width - len(INDENT) - _COUNT - 1))
    figure = fit(units.count(deferred, exact), _COUNT, right=True)
    return [*lines, ((INDENT + label + figure + " ", colours.plain if deferred else colours.dim),)]


def _bars(
    steps: Sequence[tuple[str, int | None]], width: int, colours: Palette, exact: bool, sign: str = ""
) -> list[Line]:
    """Return a bar for each step, in proportion to the largest count."""
    largest = max((count or 0 for _, count in steps), default=0)
    length = max(0, width - len(INDENT) - _STEP - 1 - _COUNT - 1)
    lines: list[Line] = []
    for label, count in steps:
        figure = f"{sign if count else ''}{units.count(count, exact)}"
        lines.append((
            (INDENT + fit(label, _STEP, right=True) + " ", colours.plain if count else colours.dim),
            (units.bar((count or 0) / largest if largest else 0, length), colours.handshake),
            (fit(figure, _COUNT, right=True) + " ", colours.plain if count else colours.dim),
        ))  # fmt: skip
    return lines
