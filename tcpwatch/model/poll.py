"""Counters of two samples as rates per second."""

from __future__ import annotations

from tcpwatch.kernel.proc.counters import is_gauge
from tcpwatch.sample import Sample


def rates(before: Sample, after: Sample) -> dict[str, float]:
    """Increase per second of every counter that both samples have.

    Gauges have no rate. A counter that went backwards was reset (a new namespace, a driver): it has none either.
    """
    elapsed_s = after.monotonic - before.monotonic
    if elapsed_s <= 0:
        return {}
    both = before.counters.keys() & after.counters.keys()
    steps = {name: after.counters[name] - before.counters[name] for name in sorted(both) if not is_gauge(name)}
    return {name: step / elapsed_s for name, step in steps.items() if step >= 0}
