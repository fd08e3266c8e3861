"""How often flows end, how long they lived and what they carried, held against flows that are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.tracker import LifecycleStep
from tcpwatch.model.sockets.flow_totals import DECADES, FlowTotals, FlowTotalsCounter
from tcpwatch.model.states import Role
from tests.support.totals import totals
from tests.support.views import NOW, make_rows, sock


def ended(lives_ms: Sequence[float], carried: Sequence[int | None], slack_ms: float = 0.0) -> LifecycleStep:
    """These flows of a server at :443, without an owner; None: the kernel did not tell what it carried."""
    made = np.zeros(len(lives_ms), RECORD)
    made["row"] = make_rows([sock("ESTAB", "10.0.0.1:443", "10.0.0.2:9")]).table[0]
    made["role"], made["owner"], made["end"] = Role.SERVER, -1, np.array(lives_ms) / 1000
    made["begin_slack"] = slack_ms / 1000
    made["info_bytes"] = [one is not None for one in carried]
    made["info"]["tcpi_bytes_received"] = [one or 0 for one in carried]
    nothing = made[:0]
    return LifecycleStep(nothing["row"], nothing["role"], nothing["owner"], made)


def counted(lived: LifecycleStep) -> FlowTotals:
    tally = FlowTotalsCounter()
    tally.step(NOW, None, Archive())
    return tally.step(NOW + 10, lived, Archive())


def test_a_histogram_counts_by_decade_exactly() -> None:
    carried = [0, *DECADES, *(bound - 1 for bound in DECADES[1:]), 10**12]
    told = counted(ended([1.0] * len(carried), carried)).all.bytes
    truth = [sum(low <= one < high for one in carried) for low, high in _parts()]
    assert told.histogram == tuple(truth) and len(truth) == len(DECADES) + 1
    assert told.count == len(carried) == sum(truth)


def _parts() -> list[tuple[float, float]]:
    return list(zip((0, *DECADES), (*DECADES, float("inf")), strict=True))


def test_percentiles_and_extremes_are_within_six_percent() -> None:
    lives_ms = np.geomspace(0.05, 3e6, 999)
    told = counted(ended(lives_ms.tolist(), [None] * len(lives_ms))).all
    life = told.lifetime_ms
    for figure, truth in ((life.p50, 0.5), (life.p90, 0.9), (life.p99, 0.99), (life.least, 0.0), (life.most, 1.0)):
        assert figure == pytest.approx(np.quantile(lives_ms, truth, method="inverted_cdf"), rel=0.06)
    assert (told.bytes.count, told.bytes.p50, told.bytes.histogram) == (0, None, ())
    assert told.exact == 1.0 and told.ended_per_s == pytest.approx(99.9)


def test_what_began_earlier_perhaps_is_counted_at_its_longest() -> None:
    told = counted(ended([5.0] * 4, [1] * 4, slack_ms=95.1)).all
    assert told.exact == 0.0
    assert told.lifetime_ms.histogram == (0, 0, 0, 4, 0, 0, 0, 0, 0, 0)


def test_by_service_and_without_owner() -> None:
    told = counted(ended([0.0], [7]))
    (service,) = told.by_service
    assert service.name == ":443" and service.lifetime_ms.most == 0.0
    assert told.by_process == ()


def test_the_last_minute_counts_and_rates_are_of_the_time_that_is_told() -> None:
    tally = FlowTotalsCounter()
    for second in range(200):
        lived = ended([1.0] * 3, [1] * 3) if second < 100 else None
        told = tally.step(NOW + second, lived, Archive())
        assert 0 < told.window_s <= 65 or second == 0
        if second == 99:
            assert told.all.ended_per_s * told.window_s == pytest.approx(told.all.lifetime_ms.count)
            assert told.all.ended_per_s == pytest.approx(3.0, rel=0.05)
    assert (told.all.ended_per_s, told.by_service) == (0.0, ())


def test_lifetimes_that_are_not_exact_are_upper_bounds() -> None:
    assert totals(exact=1.0).lifetime_text("p90") == "336 ms"
    assert totals(exact=0.999).lifetime_text("p90") == "≤336 ms"
    assert totals(p50_ms=None).lifetime_text("p90") == "–"
