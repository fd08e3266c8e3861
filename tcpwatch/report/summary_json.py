"""`tcpwatch summary` as a JSON object; its keys are a public contract."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.remarks import rules_without_data
from tcpwatch.model.sockets.flow_totals import DECADES, PERCENTILES, Distribution, FlowTotals, Totals
from tcpwatch.model.states import STATE_ORDER
from tcpwatch.model.view import View
from tcpwatch.report import check

RATE_DIGITS = 3
_MS_DIGITS = 3


def summary(view: View, rates: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return the facts of a View; `rates` is counter → increase per second, None after a single poll.

    Unknown values are None. `time` is RFC 3339 in UTC, queues count connections, `drops` counts segments; `flows` need
    more than one poll.
    """
    sample = view.sample
    return {
        "time": rfc3339(sample.time),
        "host": sample.host,
        "source": {
            "kind": sample.source.kind,
            "privilege": sample.source.privilege,
            "capabilities": None if sample.source.capabilities is None else list(sample.source.capabilities),
            "complete": sample.completeness.complete,
            "missing": list(sample.completeness.missing),
            "forged_events": sample.destroyed.forged if sample.destroyed else None,
        },
        "sockets": len(view.rows),
        "states": {state.name: view.counts.get(state, 0) for state in STATE_ORDER},
        "half_open": view.half_open.count,
        "time_wait": {"count": view.time_wait.value, "limit": view.time_wait.limit},
        "listeners": list(map(_listener, view.listeners)),
        "counters": dict(sample.counters),
        "rates": {name: round(rate, RATE_DIGITS) for name, rate in (rates or {}).items()},
        "findings": [check.finding_object(finding) for finding in view.findings],
        "flows": None if rates is None or view.flow_totals is None else _flows(view.flow_totals),
        "other_namespaces": sample.other_namespaces,
        "rules_without_data": {rule.name: list(needs) for rule, needs in rules_without_data(sample).items()},
    }


def as_json(facts: Mapping[str, Any]) -> str:
    """Return one line in ASCII."""
    return json.dumps(facts) + "\n"


def rfc3339(unix_s: float) -> str:
    """Return the time as `2023-11-14T22:13:20.000Z`."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flows(flows: FlowTotals) -> dict[str, Any]:
    return {
        **_totals(flows.all),
        "window_s": round(flows.window_s, RATE_DIGITS),
        "by_service": [{"name": service.name or None, **_totals(service)} for service in flows.by_service],
        "by_process": [{"name": process.name or None, **_totals(process)} for process in flows.by_process],
    }


def _totals(totals: Totals) -> dict[str, Any]:
    """Return the figures of some flows; lifetimes that are not `exact` are upper bounds."""
    return {
        "opened_per_s": round(totals.opened_per_s, RATE_DIGITS),
        "ended_per_s": round(totals.ended_per_s, RATE_DIGITS),
        "lifetime_ms": _distribution(totals.lifetime_ms, ("shortest", "longest"), _MS_DIGITS),
        "bytes": _distribution(totals.bytes, ("smallest", "largest"), None),
        "exact": round(totals.exact, RATE_DIGITS),
    }


def _distribution(distribution: Distribution, extremes: tuple[str, str], digits: int | None) -> dict[str, Any]:
    """Return a distribution; `histogram` is a list of [upper bound or None, count]."""
    figures = {name: getattr(distribution, name) for name in PERCENTILES}
    figures |= dict(zip(extremes, (distribution.least, distribution.most), strict=True))
    bounds, counts = (*DECADES, None), distribution.histogram or [0] * (len(DECADES) + 1)
    return {
        **{name: None if figure is None else round(figure, digits) for name, figure in figures.items()},
        "histogram": [list(part) for part in zip(bounds, counts, strict=True)],
    }


def _processes(processes: Iterable[Process]) -> list[dict[str, Any]]:
    return [{"process": process.name, "pid": process.pid} for process in sorted(processes, key=lambda it: it.pid)]


def _listener(listener: Listener) -> dict[str, Any]:
    first = listener.owner.processes[0] if listener.owner else None
    accept, syn = listener.accept_queue, listener.syn_queue
    return {
        "local_address": listener.local_address,
        "local_port": listener.local_port,
        "interface": listener.interface or None,
        "process": first.name if first else None,
        "pid": first.pid if first else None,
        "held_by": _processes(listener.owner.processes) if listener.owner else None,
        "accepted_by": _processes(listener.accepted_by) or None,
        "accept_queue": {"depth": accept.depth, "limit": accept.limit},
        "syn_queue": {"depth": syn.depth, "limit": syn.limit},
        "drops": listener.drops,
    }
