"""The blocks of the half-open screen: verdict, SYN queues, SYNs and cookies, age pyramid, ladder of repeats.

Each has the same height whatever the figures are, so that nothing below it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tcpwatch import units
from tcpwatch.model.finding import Severity
from tcpwatch.model.listeners.half_open import AGE_EDGES_S, RETRANSMIT_CLASSES, HalfOpenSummary
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.half_open_kinds import HalfOpenVerdict
from tcpwatch.model.states import State
from tcpwatch.model.trends import SYN_ARRIVALS
from tcpwatch.model.view import View
from tcpwatch.screens.shared.finding_lines import SEVERITY_SIGNS, severity_style
from tcpwatch.widgets.charts.area import area_lines
from tcpwatch.widgets.charts.bars import bar, sparkline
from tcpwatch.widgets.charts.meter import meter
from tcpwatch.widgets.lines import Line, fit, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import wrapped

TREND_S = 120
INDENT = "   "
_LONGEST = 146
"""Cells of the longest headline or reason as a rule; longer ones take a line more."""
_LABEL, _FIGURE, _COUNT = 18, 13, 9
_MOST_SPARK = 60


def verdict_lines(said: HalfOpenVerdict, named: bool, width: int, colours: Palette) -> list[Line]:
    """The word with its sign and the numbers, then why; `named` tells which listener it is about."""
    sign = SEVERITY_SIGNS.get(said.severity or Severity.INFO, "")
    style = severity_style(said.severity, colours) if said.severity else colours.strong
    head = f"{sign} {said.kind.value}"
    about = f" {said.subject.endpoint}" if named and said.subject else ""
    numbers, why = (wrapped(words, width - 4) for words in (f"{head}{about}: {said.headline}", said.why))
    reserved = -(-_LONGEST // max(1, width - 4))
    lines: list[Line] = [((" ", colours.plain), (head, style), (numbers[0].removeprefix(head), colours.strong))]
    lines += [((INDENT, colours.plain), (words, colours.strong)) for words in numbers[1:]]
    lines += [()] * (reserved - len(numbers))
    lines += [((INDENT, colours.plain), (words, colours.plain)) for words in why]
    return lines + [()] * (reserved - len(why))


# SYN queues --------------------------------------------------------------------------------------


def queue_line(one: Listener | None, view: View, width: int, colours: Palette, exact: bool) -> Line:
    """A listener's SYN queue against its limit, who sets that, and its last two minutes."""
    name, cap, spark = _queue_cells(width)
    if one is None:
        return ((INDENT + "No listener here.", colours.dim),)
    queue, history = one.syn_queue, view.queue_trend.syn_queue(one.cookie)
    length = max(0, width - len(INDENT) - name - 1 - 1 - _FIGURE - 1 - cap - spark - 1)
    return (
        (INDENT + fit(_queue_name(one, name), name, middle=True) + " ", colours.plain),
        *meter(queue.depth, queue.limit, length, _FIGURE, colours, exact),
        (" " + fit(one.syn_limit_source.value, cap), colours.dim),
        (sparkline(history, round(TREND_S / view.queue_trend.slot_s), spark, from_zero=True), colours.handshake),
    )


def _queue_name(one: Listener, cells: int) -> str:
    longest = f"SYN queue {one.endpoint}"
    return longest if len(longest) <= cells else f"SYN {one.endpoint}"


def _queue_cells(width: int) -> tuple[int, int, int]:
    """Cells for the name, for who sets the limit, and for the history."""
    if width < 72:
        return 20, 0, 0
    return (30, 20, min(_MOST_SPARK, width // 3)) if width >= 120 else (20, 20, width // 8)


# SYNs and cookies --------------------------------------------------------------------------------

_RATES = (
    ("SYNs/s", SYN_ARRIVALS), ("cookies/s sent", "SyncookiesSent"), ("cookies/s returned", "SyncookiesRecv"),
    ("cookies/s failed", "SyncookiesFailed"),
)  # fmt: skip
_FURTHER = (
    ("q full, cookies/s", "TCPReqQFullDoCookies"), ("q full, dropped/s", "TCPReqQFullDrop"),
    ("accept q full/s", "ListenOverflows"),
)  # fmt: skip


def rate_lines(view: View, width: int, colours: Palette, further: bool = False) -> list[Line]:
    """What the whole host gets and answers, per second, each with its last two minutes."""
    return [_rate_line(label, name, view, width, colours) for label, name in (*_RATES, *(_FURTHER if further else ()))]


def _rate_line(label: str, name: str, view: View, width: int, colours: Palette) -> Line:
    per_s = view.syn_arrivals_per_s if name == SYN_ARRIVALS else view.rates.get(name)
    spark = max(0, min(_MOST_SPARK, width - len(INDENT) - _LABEL - 1 - _COUNT - 1))
    history = view.rate_trend.per_s.get(name, ())
    slots = max(1, round(TREND_S / view.rate_trend.slot_s))
    return (
        (INDENT + fit(label, _LABEL) + " ", colours.plain if per_s else colours.dim),
        (fit(units.rate(per_s), _COUNT, right=True) + " ", colours.plain if per_s else colours.dim),
        (sparkline(history, slots, spark, from_zero=True), colours.handshake),
    )


def chart_lines(one: Listener | None, view: View, width: int, height: int, colours: Palette) -> list[list[Line]]:
    """The last two minutes: half-open connections of a listener, or of all, and the SYNs of the host."""
    trend, rates = view.state_trend, view.rate_trend
    depths, slot_s = trend.counts.get(State.SYN_RCVD, ()), trend.slot_s
    if one is not None:
        depths, slot_s = view.queue_trend.syn_queue(one.cookie), view.queue_trend.slot_s
    return [
        area_lines(title, values, max(1, round(TREND_S / slot)), width, height, colours.handshake, colours)
        for title, values, slot in (
            ("Half-open", depths, slot_s),
            ("SYNs/s", rates.per_s.get(SYN_ARRIVALS, ()), rates.slot_s),
        )
    ]


# Ages and repeats --------------------------------------------------------------------------------

_AGES = (*(f"{low}–{high} s" for low, high in pairwise(AGE_EDGES_S)), f"over {AGE_EDGES_S[-1]} s")
_TIMES = (
    "never",
    "once",
    *(f"{times} times" for times in range(2, RETRANSMIT_CLASSES - 1)),
    f"{RETRANSMIT_CLASSES - 1} or more",
)
_STEP = 9
BLOCK_HEIGHT = 1 + len(_AGES)
"""Lines of each of these two blocks."""


def age_lines(found: HalfOpenSummary | None, width: int, colours: Palette, exact: bool) -> list[Line]:
    """The age pyramid; `~` says how many of the ages are estimates."""
    lines = [title_rule("Age", width, colours, _age_head(found, width))]
    ages: Sequence[int | None] = found.ages if found else [None] * len(_AGES)
    sign = "~" if found and found.count and found.estimated == found.count else ""
    return lines + _bars(list(zip(_AGES, ages, strict=True)), width, colours, exact, sign)


def _age_head(found: HalfOpenSummary | None, width: int) -> str:
    if found is None or not found.count:
        return ""
    estimated = f"~{units.count(found.estimated)} estimated" if found.estimated else ""
    oldest = f"oldest {'~' if found.estimated else ''}{units.duration(found.oldest_s)}"
    longest = " · ".join(filter(None, (oldest, estimated)))
    said = longest if len(longest) + 14 <= width else estimated or oldest
    return f" {said}"


def ladder_lines(found: HalfOpenSummary | None, view: View, width: int, colours: Palette, exact: bool) -> list[Line]:
    """How often the SYN+ACK was repeated; the last line says how many repeats TCP_DEFER_ACCEPT holds back."""
    told = view.sample.capabilities.timers
    known = found if told else None
    share = f" {units.share(known.retransmitted_share)} of {units.count(known.count)}" if known and known.count else ""
    head = share if told else " not told"
    lines = [title_rule("SYN+ACK repeated", width, colours, head)]
    ladder: Sequence[int | None] = known.by_retransmits if known else [None] * RETRANSMIT_CLASSES
    lines += _bars(list(zip(_TIMES, ladder, strict=True)), width, colours, exact)
    late = known.deferred if known else None
    label = fit("held by TCP_DEFER_ACCEPT", max(0, width - len(INDENT) - _COUNT - 1))
    figure = fit(units.count(late, exact), _COUNT, right=True)
    return [*lines, ((INDENT + label + figure + " ", colours.plain if late else colours.dim),)]


def _bars(
    steps: Sequence[tuple[str, int | None]], width: int, colours: Palette, exact: bool, sign: str = ""
) -> list[Line]:
    """A bar for each step, of the largest one's length at most."""
    most = max((count or 0 for _, count in steps), default=0)
    length = max(0, width - len(INDENT) - _STEP - 1 - _COUNT - 1)
    lines: list[Line] = []
    for label, count in steps:
        figure = f"{sign if count else ''}{units.count(count, exact)}"
        lines.append((
            (INDENT + fit(label, _STEP, right=True) + " ", colours.plain if count else colours.dim),
            (bar((count or 0) / most if most else 0, length), colours.handshake),
            (fit(figure, _COUNT, right=True) + " ", colours.plain if count else colours.dim),
        ))  # fmt: skip
    return lines
