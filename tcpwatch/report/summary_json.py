"""`tcpwatch summary` for programs: one object that says how the host's TCP is; its keys are a public contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.sockets.flow_totals import DECADES, PERCENTILES, Distribution, FlowTotals, Totals
from tcpwatch.model.states import STATE_ORDER
from tcpwatch.model.view import View
from tcpwatch.report import check

RATE_DIGITS = 3
_MS_DIGITS = 3
"""Lives are told to the microsecond."""


def summary(view: View, rates: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The facts of a View; `rates` (counter → increase per second) only where it was watched for a while.

    None stands for what is not known. `time` is RFC 3339 in UTC, queues count connections, `drops` segments; `flows`
    need more than one look.
    """
    sample = view.sample
    return {
        "time": rfc3339(sample.time),
        "host": sample.host,
        "source": {
            "kind": sample.source.kind,
            "privilege": sample.source.privilege,
            "complete": sample.completeness.complete,
        },
        "sockets": len(view.rows),
        "states": {state.name: view.counts.get(state, 0) for state in STATE_ORDER},
        "half_open": view.half_open.count,
        "time_wait": {"count": view.time_wait.value, "limit": view.time_wait.limit},
        "listeners": [_listener(one) for one in view.listeners],
        "counters": dict(sample.counters),
        "rates": {name: round(rate, RATE_DIGITS) for name, rate in (rates or {}).items()},
        "findings": [check.finding_object(finding) for finding in view.findings],
        "flows": None if rates is None or view.flow_totals is None else _flows(view.flow_totals),
    }


def as_json(facts: Mapping[str, Any]) -> str:
    """One line, in ASCII."""
    return json.dumps(facts) + "\n"


def rfc3339(unix_s: float) -> str:
    """`2023-11-14T22:13:20.000Z`."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flows(flows: FlowTotals) -> dict[str, Any]:
    """Of all flows, and of the busiest services and processes."""
    return {
        **_totals(flows.all),
        "window_s": round(flows.window_s, RATE_DIGITS),
        "by_service": [{"name": one.name or None, **_totals(one)} for one in flows.by_service],
        "by_process": [{"name": one.name or None, **_totals(one)} for one in flows.by_process],
    }


def _totals(totals: Totals) -> dict[str, Any]:
    """Lifetimes that are not `exact` are at most what is told."""
    return {
        "opened_per_s": round(totals.opened_per_s, RATE_DIGITS),
        "ended_per_s": round(totals.ended_per_s, RATE_DIGITS),
        "lifetime_ms": _spread(totals.lifetime_ms, ("shortest", "longest"), _MS_DIGITS),
        "bytes": _spread(totals.bytes, ("smallest", "largest"), None),
        "exact": round(totals.exact, RATE_DIGITS),
    }


def _spread(spread: Distribution, extremes: tuple[str, str], digits: int | None) -> dict[str, Any]:
    """`histogram`: what each part ends below, None for the last, and how many flows are in it."""
    figures = {name: getattr(spread, name) for name in PERCENTILES}
    figures |= dict(zip(extremes, (spread.least, spread.most), strict=True))
    bounds, counts = (*DECADES, None), spread.histogram or [0] * (len(DECADES) + 1)
    return {
        **{name: None if figure is None else round(figure, digits) for name, figure in figures.items()},
        "histogram": [list(part) for part in zip(bounds, counts, strict=True)],
    }


def _listener(one: Listener) -> dict[str, Any]:
    first = one.owner.processes[0] if one.owner else None
    accept, syn = one.accept_queue, one.syn_queue
    return {
        "local_address": one.local_address,
        "local_port": one.local_port,
        "process": first.name if first else None,
        "pid": first.pid if first else None,
        "accept_queue": {"depth": accept.depth, "limit": accept.limit},
        "syn_queue": {"depth": syn.depth, "limit": syn.limit},
        "drops": one.drops,
    }
