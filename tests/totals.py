"""How flows live on the host of the snapshots and golden outputs."""

from __future__ import annotations

from tcpwatch.model.flow_totals import FlowTotals, Spread, Totals


def totals(name: str = "", per_s: float = 60.0, p50_ms: float | None = 12.0, exact: float = 0.83) -> Totals:
    """Half of the flows live `p50_ms` at most, one in ten 28 times as long, one in a hundred 100 times."""
    if p50_ms is None:
        return Totals(name, 0.0, 0.0, Spread(), Spread())
    lifetime = Spread(int(60 * per_s), p50_ms, 28 * p50_ms, 100 * p50_ms, 0.1, 1e6)
    return Totals(name, per_s + 1, per_s, lifetime, Spread(lifetime.count, 5_321.0, 98_000.0, 1.5e6), exact)


FLOWS = FlowTotals(
    60.0,
    totals(),
    (totals(":443", 47.0), totals("10.0.0.7:5432", 12.4, 0.045, 1.0), totals("[2001:db8::7]:6379", 0.6, 182_000.0)),
    (totals("nginx[1234]", 47.0), totals("[@click=app.quit]x[/][802]", 12.4, 0.045, 1.0), totals("", 0.6, None)),
)
