"""Flow totals of the host of the snapshots and golden outputs."""

from __future__ import annotations

from tcpwatch.model.sockets.flow_totals import DECADES, Distribution, FlowTotals, Totals


def totals(name: str = "", per_s: float = 60.0, p50_ms: float | None = 12.0, exact: float = 0.83) -> Totals:
    """Half of the flows last `p50_ms` at most, one in ten 28 times as long, one in a hundred 100 times."""
    if p50_ms is None:
        return Totals(name, 0.0, 0.0, Distribution(), Distribution())
    p90_ms, p99_ms, least, most = (factor * p50_ms for factor in (28, 100, 1 / 120, 340))
    lifetime = Distribution(int(60 * per_s), p50_ms, p90_ms, p99_ms, least, most, _histogram(p50_ms))
    carried = Distribution(lifetime.count, 5_321.0, 98_000.0, 1.5e6, 0.0, 2.3e8, (3, 0, 9, 210, 1500, 700, 80, 4, 1, 1))
    return Totals(name, per_s + 1, per_s, lifetime, carried, exact)


def _histogram(p50_ms: float) -> tuple[int, ...]:
    """Most are in the median's decade, few in those around it."""
    middle = sum(p50_ms >= bound for bound in DECADES)
    around = {-2: 1, -1: 700, 0: 1500, 1: 300, 2: 40, 3: 1}
    counts = [0] * (len(DECADES) + 1)
    for distance, count in around.items():
        counts[min(max(middle + distance, 0), len(DECADES))] += count
    return tuple(counts)


FLOWS = FlowTotals(
    60.0,
    totals(),
    (totals(":443", 47.0), totals("10.0.0.7:5432", 12.4, 0.045, 1.0), totals("[2001:db8::7]:6379", 0.6, 182_000.0)),
    (totals("nginx[1234]", 47.0), totals("[@click=app.quit]x[/][802]", 12.4, 0.045, 1.0), totals("", 0.6, None)),
)
