"""Clock times and durations, as exact as they are known: tenths where polls tell, down to microseconds in a trace."""

from __future__ import annotations

import time

from tcpwatch import units
from tcpwatch.model.lifecycle.history import Moment, StatePeriod, begins_with_last_ack
from tcpwatch.model.lifecycle.transitions import Origin

UNKNOWN_DURATION = "not told"


def is_exact(moment: Moment) -> bool:
    """An event told it, so that its milliseconds mean something."""
    return moment.origin is not Origin.POLL


def has_unknown_slack(moment: Moment) -> bool:
    """It may have been earlier, and nobody knows how much."""
    return moment.slack_s != moment.slack_s


def clock(unix: float, fine: bool = False) -> str:
    """`22:13:00.4`, fine: `22:13:00.412`; cut and not rounded, as clocks are."""
    parts, digits = (1000, 3) if fine else (10, 1)
    whole, part = divmod(int(unix * parts + 1e-3), parts)
    return time.strftime("%H:%M:%S", time.localtime(whole)) + f".{part:0{digits}}"


def moment_clock(moment: Moment) -> str:
    """With the milliseconds where they are known."""
    return clock(moment.time, is_exact(moment))


def elapsed_text(begin: Moment, end: Moment | None, now: float) -> str:
    """The time from one to the other, or till now."""
    seconds = max(0.0, (end.time if end else now) - begin.time)
    fine = end is not None and is_exact(end) and is_exact(begin)
    return units.precise_duration(seconds) if fine else units.duration(seconds)


def began_earlier(stretch: StatePeriod) -> bool:
    """Its beginning is not known, only that it was before `begin`."""
    return stretch.began_earlier or has_unknown_slack(stretch.begin)


def duration_unknown(stretch: StatePeriod, first: bool) -> bool:
    """Nothing is known of how long it lasted; `first`: it is the first of its flow."""
    if begins_with_last_ack(stretch, first):
        return True
    return began_earlier(stretch) and stretch.end is not None and stretch.end.time <= stretch.begin.time


def duration_text(stretch: StatePeriod, now: float, first: bool) -> str:
    """How long a state lasted, with `at least` or `at most` where one of its ends is not known."""
    if duration_unknown(stretch, first):
        return UNKNOWN_DURATION
    words = elapsed_text(stretch.begin, stretch.end, now)
    if began_earlier(stretch):
        return f"at least {words}"
    return f"at most {words}" if stretch.end is not None and has_unknown_slack(stretch.end) else words


def origin_text(moment: Moment) -> str:
    """`trace`, `destroy event`, `polled ±1.0 s`, `polled` where it was like that when we came."""
    if moment.origin is not Origin.POLL:
        return "trace" if moment.origin is Origin.TRACE else "destroy event"
    slack = moment.slack_s
    if has_unknown_slack(moment) or slack == 0:
        return "polled"
    return f"polled ±{slack:.1f} s" if slack < 9.95 else f"polled ±{units.duration(slack)}"
