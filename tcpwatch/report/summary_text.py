"""`tcpwatch summary` as text: states with bars, listeners with their queues, changed counters."""

from __future__ import annotations

from collections.abc import Mapping

from tcpwatch import units
from tcpwatch.model.columns.socket_values import owner_text
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.rules.remarks import remarks
from tcpwatch.model.sockets.flow_totals import PERCENTILES
from tcpwatch.model.states import STATE_ORDER
from tcpwatch.model.view import View
from tcpwatch.report import check
from tcpwatch.report.ansi import BOLD, FULL_COLOUR, STATE_COLOURS, coloured, fitted
from tcpwatch.report.summary_json import rfc3339

WIDTH = 80
"""Cells of a line without a terminal."""
LISTENERS_SHOWN = 20
"""The fullest listeners come first; --json has all of them."""
_LIFETIME_FIGURES = (*zip(PERCENTILES, PERCENTILES, strict=True), ("shortest", "least"), ("longest", "most"))
"""(Word, field of a Distribution)."""
_NAME, _NUMBER, _QUEUE, _DROPS, _OWNER = 13, 11, 17, 9, 13


def as_text(
    view: View,
    rates: Mapping[str, float] | None = None,
    width: int | None = None,
    exact: bool = False,
    colour: bool = False,
) -> str:
    """Return the summary in lines of at most `width` cells; `rates` is None after a single poll."""
    room = min(width or WIDTH, 120)
    parts = [
        _head(view),
        [check.finding_text(finding, colour) for finding in view.findings],
        _states(view, room, exact, colour),
        _limits(view, exact),
        [] if rates is None else _flows(view, room),
        _listeners(view, room, colour),
        [] if rates is None else _rates(rates, colour),
    ]
    return "\n".join("".join(f"{line.rstrip()}\n" for line in part) for part in parts if part)


def _head(view: View) -> list[str]:
    sample = view.sample
    source = sample.source
    lines = [f"{sample.host} · {source.kind} · {source.privilege_text} · {rfc3339(sample.time)}"]
    if not sample.completeness.complete:
        lines.append(f"incomplete: {sample.completeness.words}")
    return [*lines, *remarks(sample)]


def _states(view: View, room: int, exact: bool, colour: bool) -> list[str]:
    most = max(1, *view.counts.values())
    cells = max(0, room - 2 - _NAME - _NUMBER - 2)
    lines = [coloured("Sockets".ljust(_NAME + 2) + units.count(len(view.rows), exact).rjust(_NUMBER), BOLD, colour)]
    for state in STATE_ORDER:
        count, code = view.counts.get(state, 0), STATE_COLOURS[state]
        name = coloured(state.name.ljust(_NAME), code, colour)
        drawn = coloured(units.bar(count / most, cells).rstrip(), code, colour)
        lines.append(f"  {name}{units.count(count, exact).rjust(_NUMBER)}  {drawn}")
    return lines


def _limits(view: View, exact: bool) -> list[str]:
    figures = (("half-open", view.half_open.count, None), ("TIME_WAIT", view.time_wait.value, view.time_wait.limit))
    lines = []
    for name, value, limit in figures:
        of = f" of {units.count(limit, exact)} ({units.share(value, limit)})" if limit else ""
        lines.append(f"  {name.ljust(_NAME)}{units.count(value, exact).rjust(_NUMBER)}{of}")
    return lines


def _flows(view: View, room: int) -> list[str]:
    """Return `flows  opened 61/s  ended 60/s  lifetime p50 12 ms  p90 340 ms  p99 1.2 s  shortest ...  longest ...`.

    On a narrow screen, `shortest` and `longest` are on a second line.
    """
    if view.flow_totals is None:
        return []
    totals = view.flow_totals.all
    words = [f"{name} {totals.lifetime_text(figure)}" for name, figure in _LIFETIME_FIGURES]
    percentiles, extremes = ("  ".join(part) for part in (words[:-2], words[-2:]))
    head = f"flows  opened {units.rate(totals.opened_per_s)}/s  ended {units.rate(totals.ended_per_s)}/s  lifetime "
    line = f"{head}{percentiles}  {extremes}"
    return [line] if len(line) <= room else [head + percentiles, " " * len(head) + extremes]


def _listeners(view: View, room: int, colour: bool) -> list[str]:
    shown = view.listeners[:LISTENERS_SHOWN]
    rest = 2 + 2 * _QUEUE + _DROPS + 2
    name = max(20, min(max([len(listener.endpoint) for listener in shown], default=0), room - rest - _OWNER))
    owner = max(_OWNER, room - rest - name)
    title = "Listeners".ljust(name + 2) + "accept queue".rjust(_QUEUE) + "SYN queue".rjust(_QUEUE)
    lines = [coloured(f"{title}{'drops'.rjust(_DROPS)}  process", BOLD, colour)]
    for listener in shown:
        queues = _queue(listener.accept_queue, colour) + _queue(listener.syn_queue, colour)
        drops, process = units.count(listener.drops).rjust(_DROPS), fitted(_owner(listener), owner)
        lines.append(f"  {fitted(listener.endpoint, name)}{queues}{drops}  {process}")
    if len(view.listeners) > len(shown):
        lines.append(f"  … and {len(view.listeners) - len(shown):,} more (--json has all of them)")
    return lines


def _queue(queue: Queue, colour: bool) -> str:
    words = units.UNKNOWN
    if queue.depth is not None:
        words = f"{queue.depth:,} of {units.UNKNOWN if queue.limit is None else f'{queue.limit:,}'}"
    words = words.rjust(_QUEUE)
    return coloured(words, FULL_COLOUR if queue.share >= 1 else None, colour)


def _owner(listener: Listener) -> str:
    return units.UNKNOWN if listener.owner is None else owner_text(listener.owner)


def _rates(rates: Mapping[str, float], colour: bool) -> list[str]:
    """Return the counters that increased, the fastest first."""
    increased = sorted((name for name, rate in rates.items() if rate > 0), key=lambda name: (-rates[name], name))
    lines = [coloured("Counters, per second", BOLD, colour)]
    width = max(map(len, increased), default=0)
    lines += [f"  {name.ljust(width)}{_rate(rates[name]).rjust(_NUMBER)}" for name in increased]
    return lines if increased else [*lines, "  none"]


def _rate(per_second: float) -> str:
    """Return the rate of a counter that increased, never as 0."""
    return units.rate(per_second) if per_second >= 0.1 else "<0.1"
