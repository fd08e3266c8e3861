"""Clock times and durations as text, with no more digits than are known: a poll's tenths, a trace's microseconds."""

from __future__ import annotations

import time

from tcpwatch import units
from tcpwatch.model.lifecycle.history import Moment, StatePeriod, begins_with_last_ack
from tcpwatch.model.lifecycle.transitions import Origin

UNKNOWN_DURATION = "unknown"


def is_exact(moment: Moment) -> bool:
    """Return whether an event or the trace reported it, so that its milliseconds are meaningful."""
    return moment.origin is not Origin.POLL


def has_unknown_slack(moment: Moment) -> bool:
    """Return whether it may have been earlier by an unknown time."""
    return moment.slack_s != moment.slack_s


def clock(unix: float, fine: bool = False) -> str:
    """Return `22:13:00.4`, or if `fine` `22:13:00.412`; truncated, not rounded, like a clock."""
    parts, digits = (1000, 3) if fine else (10, 1)
    whole, part = divmod(int(unix * parts + 1e-3), parts)
    return time.strftime("%H:%M:%S", time.localtime(whole)) + f".{part:0{digits}}"


def moment_clock(moment: Moment) -> str:
    """Return the clock time, with milliseconds where they are known."""
    return clock(moment.time, is_exact(moment))


def elapsed_text(begin: Moment, end: Moment | None, now: float) -> str:
    """Return the time from `begin` to `end`, or until now."""
    seconds = max(0.0, (end.time if end else now) - begin.time)
    fine = end is not None and is_exact(end) and is_exact(begin)
    return units.precise_duration(seconds) if fine else units.duration(seconds)


def began_earlier(period: StatePeriod) -> bool:
    """Return whether only an upper bound of its beginning is known."""
    return period.began_earlier or has_unknown_slack(period.begin)


def duration_unknown(period: StatePeriod, first: bool) -> bool:
    """Return whether its duration is unknown; `first`: it is the first period of its flow."""
    if begins_with_last_ack(period, first):
        return True
    return began_earlier(period) and period.end is not None and period.end.time <= period.begin.time


def duration_text(period: StatePeriod, now: float, first: bool) -> str:
    """Return how long a state lasted, with `at least` or `at most` where its beginning or end is not known."""
    if duration_unknown(period, first):
        return UNKNOWN_DURATION
    words = elapsed_text(period.begin, period.end, now)
    if began_earlier(period):
        return f"at least {words}"
    return f"at most {words}" if period.end is not None and has_unknown_slack(period.end) else words


def origin_text(moment: Moment) -> str:
    """Return `trace`, `destroy event`, `polled ±1.0 s`, or `polled` for the first poll."""
    if moment.origin is not Origin.POLL:
        return "trace" if moment.origin is Origin.TRACE else "destroy event"
    slack = moment.slack_s
    if has_unknown_slack(moment) or slack == 0:
        return "polled"
    return f"polled ±{slack:.1f} s" if slack < 9.95 else f"polled ±{units.duration(slack)}"
