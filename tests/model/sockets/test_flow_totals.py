"""Rates, lifetimes and bytes of flows, compared with known flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.lifecycle.archive import RECORD, Archive
from tcpwatch.model.lifecycle.tracker import NOTHING_HAPPENED, LifecycleStep
from tcpwatch.model.sockets import flow_totals
from tcpwatch.model.sockets.flow_totals import DECADES, FlowTotals, FlowTotalsCounter
from tcpwatch.model.states import Role
from tests.support.polls import first_poll
from tests.support.totals import totals
from tests.support.views import NOW, make_rows, make_sample, sock


def ended(lifetimes_ms: Sequence[float], carried: Sequence[int | None], slack_ms: float = 0.0) -> LifecycleStep:
    """These flows of a server at :443, without an owner; None: the kernel did not report its bytes."""
    made = np.zeros(len(lifetimes_ms), RECORD)
    made["row"] = make_rows([sock("ESTAB", "10.0.0.1:443", "10.0.0.2:9")]).table[0]
    made["role"], made["owner"], made["end"] = Role.SERVER, -1, np.array(lifetimes_ms) / 1000
    made["begin_slack"] = slack_ms / 1000
    made["info_bytes"] = [one is not None for one in carried]
    made["info"]["tcpi_bytes_received"] = [one or 0 for one in carried]
    nothing = made[:0]
    return LifecycleStep(nothing["row"], nothing["role"], nothing["owner"], nothing["owner"], made)


def counted(lifecycle: LifecycleStep) -> FlowTotals:
    counter = FlowTotalsCounter()
    _step(counter, NOW, NOTHING_HAPPENED)
    return _step(counter, NOW + 10, lifecycle)


_NOTHING_DESTROYED = DestroyedSockets(np.empty(0, uapi.SOCKET), np.empty(0, uapi.TCP_INFO), np.empty(0), 0)


def _step(counter: FlowTotalsCounter, monotonic: float, lifecycle: LifecycleStep) -> FlowTotals:
    sample = make_sample(make_rows([]), monotonic=monotonic, destroyed=_NOTHING_DESTROYED)
    totals = counter.step(first_poll(sample), lifecycle)
    assert totals is not None
    return totals


def test_a_histogram_counts_by_decade_exactly() -> None:
    carried = [0, *DECADES, *(bound - 1 for bound in DECADES[1:]), 10**12]
    result = counted(ended([1.0] * len(carried), carried)).all.bytes
    truth = [sum(low <= one < high for one in carried) for low, high in _parts()]
    assert result.histogram == tuple(truth) and len(truth) == len(DECADES) + 1
    assert result.count == len(carried) == sum(truth)


def _parts() -> list[tuple[float, float]]:
    return list(zip((0, *DECADES), (*DECADES, float("inf")), strict=True))


def test_percentiles_and_extremes_are_within_six_percent() -> None:
    lifetimes_ms = np.geomspace(0.05, 3e6, 999)
    result = counted(ended(lifetimes_ms.tolist(), [None] * len(lifetimes_ms))).all
    life = result.lifetime_ms
    for figure, truth in ((life.p50, 0.5), (life.p90, 0.9), (life.p99, 0.99), (life.least, 0.0), (life.most, 1.0)):
        assert figure == pytest.approx(np.quantile(lifetimes_ms, truth, method="inverted_cdf"), rel=0.06)
    assert (result.bytes.count, result.bytes.p50, result.bytes.histogram) == (0, None, ())
    assert result.exact == 1.0 and result.ended_per_s == pytest.approx(99.9)


def test_what_began_earlier_perhaps_is_counted_at_its_longest() -> None:
    result = counted(ended([5.0] * 4, [1] * 4, slack_ms=95.1)).all
    assert result.exact == 0.0
    assert result.lifetime_ms.histogram == (0, 0, 0, 4, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("lifetime_ms", [1e9, 1e30])
def test_a_very_long_lifetime_counts_in_the_last_part_of_the_histogram(lifetime_ms: float) -> None:
    result = counted(ended([lifetime_ms], [1])).all
    assert result.lifetime_ms.histogram == (*[0] * len(DECADES), 1)


def test_an_idle_host_has_no_flows() -> None:
    result = counted(NOTHING_HAPPENED)
    assert (result.window_s, result.by_service, result.by_process) == (10.0, (), ())
    assert (result.all.opened_per_s, result.all.ended_per_s, result.all.lifetime_ms.count) == (0.0, 0.0, 0)


def record(
    local: str, remote: str, role: Role, owner: int = -1, life_s: float = 1.0, slack_s: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray[Any, Any]:
    """A record of one closed connection that ended at NOW."""
    made = np.zeros(1, RECORD)
    made["row"] = make_rows([sock("ESTAB", local, remote)]).table[0]
    made["role"], made["owner"], made["begin"], made["end"] = role, owner, NOW - life_s, NOW
    made["begin_slack"], made["end_slack"] = slack_s
    return made


def lifecycle_step(*ended_records: np.ndarray[Any, Any], opened: Sequence[np.ndarray[Any, Any]] = ()) -> LifecycleStep:
    over = np.concatenate([np.zeros(0, RECORD), *ended_records])
    begun = np.concatenate([np.zeros(0, RECORD), *opened])
    return LifecycleStep(
        np.ascontiguousarray(begun["row"]), begun["role"].copy(), begun["owner"].copy(), begun["owner"][:0], over
    )


A_CLIENT = "10.0.0.1:9000", "192.0.2.7:443", Role.CLIENT
A_SERVER = "10.0.0.1:443", "192.0.2.7:9000", Role.SERVER


def test_a_lifetime_is_the_end_minus_the_beginning() -> None:
    result = counted(
        lifecycle_step(record(*A_SERVER, life_s=2.0), record(*A_SERVER, life_s=1.5, slack_s=(0.5, 0.0)))
    ).all
    assert [result.lifetime_ms.least, result.lifetime_ms.most] == pytest.approx([2000, 2000], rel=0.06)
    assert result.exact == 0.5


@pytest.mark.parametrize(
    ("slack_s", "exact"), [((0.0, 0.0), 1.0), ((0.1, 0.0), 0.0), ((0.0, 0.1), 0.0), ((0.1, 0.1), 0.0)]
)
def test_a_lifetime_is_exact_where_both_ends_are(slack_s: tuple[float, float], exact: float) -> None:
    assert counted(lifecycle_step(record(*A_SERVER, slack_s=slack_s))).all.exact == exact


def test_received_and_sent_bytes_are_added() -> None:
    one = record(*A_SERVER)
    one["info_bytes"], one["info"]["tcpi_bytes_received"], one["info"]["tcpi_bytes_acked"] = 1, 702, 303
    one["control_received"], one["control_acked"] = 1, 2
    assert counted(lifecycle_step(one)).all.bytes.most == pytest.approx(1000, rel=0.06)


def test_each_service_and_each_process_has_figures_of_its_own() -> None:
    owners = [Owner((Process(pid, name, name, 0, "root", NOW),)) for pid, name in ((7, "app"), (8, "web"))]
    archive, tally = Archive(owners=owners, owners_from=100), FlowTotalsCounter()
    other_port = "10.0.0.1:9001", "192.0.2.7:444", Role.CLIENT
    other_host = "10.0.0.1:9002", "192.0.2.8:443", Role.CLIENT
    v6 = "[2001:db8::1]:9003", "[2001:db8::7]:443", Role.CLIENT
    over = [record(*A_SERVER, 101, life_s) for life_s in (0.1, 1.0, 1.0)]
    over += [record(*A_CLIENT, 100, 10.0), record(*A_CLIENT, 100, 10.0, (0.1, 0.0)), record(*v6, -1, 50.0)]
    opened = [record(*other_port, 100), record(*other_port, 100), record(*other_host, 99), record(*A_SERVER, -1)]
    _step(tally, NOW, NOTHING_HAPPENED)
    result = _step(tally, NOW + 10, replace(lifecycle_step(*over, opened=opened), archive=archive))
    assert (result.window_s, result.all.ended_per_s, result.all.opened_per_s, result.all.name) == (10.0, 0.6, 0.4, "")
    assert result.all.exact == pytest.approx(5 / 6)
    assert [(one.name, one.ended_per_s, one.opened_per_s, one.exact) for one in result.by_service] == [
        (":443", 0.3, 0.1, 1.0),
        ("192.0.2.7:443", 0.2, 0.0, 0.5),
        ("[2001:db8::7]:443", 0.1, 0.0, 1.0),
        ("192.0.2.7:444", 0.0, 0.2, 1.0),
        ("192.0.2.8:443", 0.0, 0.1, 1.0),
    ]
    assert [(one.name, one.ended_per_s, one.opened_per_s) for one in result.by_process] == [
        ("web[8]", 0.3, 0.0), ("app[7]", 0.2, 0.2), ("", 0.0, 0.1),
    ]  # fmt: skip
    spread = [one.lifetime_ms for one in result.by_service]
    assert [one.count for one in spread] == [3, 2, 1, 0, 0]
    assert [one.least for one in spread[:3]] == [pytest.approx(ms, rel=0.06) for ms in (100, 10_000, 50_000)]
    assert [one.most for one in spread[:3]] == [pytest.approx(ms, rel=0.06) for ms in (1000, 10_100, 50_000)]


def test_the_first_owner_of_all_is_a_process() -> None:
    owner = Owner((Process(7, "app", "app", 0, "root", NOW),))
    served = lifecycle_step(record(*A_SERVER, owner=0), record(*A_SERVER, owner=-1))
    result = counted(replace(served, archive=Archive(owners=[owner])))
    assert [(one.name, one.ended_per_s) for one in result.by_process] == [("app[7]", 0.1)]


def test_the_busiest_twenty_are_shown() -> None:
    over = [record(f"10.0.0.1:{port}", "192.0.2.7:9", Role.SERVER) for port in range(1, 26) for _ in range(port)]
    result = counted(lifecycle_step(*over))
    assert [one.name for one in result.by_service] == [f":{port}" for port in range(25, 5, -1)]
    assert result.all.lifetime_ms.count == sum(range(26))


def test_of_two_services_with_as_many_ends_the_one_that_opens_more_comes_first() -> None:
    tally = FlowTotalsCounter()
    both = _step(tally, NOW, lifecycle_step(record(*A_SERVER), record(*A_CLIENT)))
    assert [one.name for one in both.by_service] == [":443", "192.0.2.7:443"]
    result = _step(tally, NOW + 1, lifecycle_step(opened=[record(*A_CLIENT)]))
    assert [one.name for one in result.by_service] == ["192.0.2.7:443", ":443"]


def test_only_so_many_services_get_a_name_in_one_step() -> None:
    tally = FlowTotalsCounter()
    _step(tally, NOW, NOTHING_HAPPENED)
    over = [record(f"10.0.0.1:{port}", "192.0.2.7:9", Role.SERVER) for port in range(1, 503)]
    _step(tally, NOW + 1, lifecycle_step(*over))
    last_two = [over[-1]] * 3 + [over[-2]] * 2
    result = _step(tally, NOW + 2, lifecycle_step(*last_two))
    assert result.all.lifetime_ms.count == 507
    assert [(one.name, one.lifetime_ms.count) for one in result.by_service[:3]] == [(":502", 3), (":501", 2), (":1", 1)]


def test_very_many_services_are_forgotten_and_the_total_stays() -> None:
    tally = FlowTotalsCounter()
    _step(tally, NOW, NOTHING_HAPPENED)
    table = np.zeros(500, RECORD)
    table["row"] = make_rows([sock("ESTAB", "10.0.0.1:1", "192.0.2.7:9")]).table[0]
    table["role"], table["owner"], table["end"] = Role.SERVER, -1, NOW
    for step in range(40):
        table["row"]["idiag_sport"] = 1 + 500 * step + np.arange(500)
        result = _step(
            tally,
            NOW + 1,
            LifecycleStep(table["row"][:0], table["role"][:0], table["owner"][:0], table["owner"][:0], table),
        )
        assert len(result.by_service) == 20
    result = _step(tally, NOW + 2, lifecycle_step(record(*A_SERVER)))
    assert [one.name for one in result.by_service] == [":443"]
    assert result.all.lifetime_ms.count == 20_001


@pytest.mark.parametrize(("later_s", "seen"), [(59.9, 1), (64.9, 1), (65.0, 0), (70.0, 0)])
def test_a_minute_is_remembered_in_slots_of_five_seconds(later_s: float, seen: int) -> None:
    tally = FlowTotalsCounter()
    _step(tally, 0.0, lifecycle_step(record(*A_SERVER)))
    for second in (4.9, 5.0, 10.0, 60.0):
        result = _step(tally, second, NOTHING_HAPPENED)
        assert result.window_s == second
        assert result.all.lifetime_ms.count == 1
    assert _step(tally, later_s, NOTHING_HAPPENED).all.lifetime_ms.count == seen


def test_the_first_step_divides_by_nearly_nothing_and_not_by_zero() -> None:
    result = _step(FlowTotalsCounter(), NOW, lifecycle_step(record(*A_SERVER)))
    assert (result.window_s, result.all.ended_per_s) == (0.001, 1000.0)


def test_by_service_and_without_owner() -> None:
    result = counted(ended([0.0], [7]))
    (service,) = result.by_service
    assert service.name == ":443" and service.lifetime_ms.most == 0.0
    assert result.by_process == ()


def test_totals_and_rates_are_of_the_last_minute() -> None:
    tally = FlowTotalsCounter()
    for second in range(200):
        lifecycle = ended([1.0] * 3, [1] * 3) if second < 100 else NOTHING_HAPPENED
        result = _step(tally, NOW + second, lifecycle)
        assert 0 < result.window_s <= 65 or second == 0
        if second == 99:
            assert result.all.ended_per_s * result.window_s == pytest.approx(result.all.lifetime_ms.count)
            assert result.all.ended_per_s == pytest.approx(3.0, rel=0.05)
    assert (result.all.ended_per_s, result.by_service) == (0.0, ())


def test_lifetimes_that_are_not_exact_are_upper_bounds() -> None:
    assert totals(exact=1.0).lifetime_text("p90") == "336 ms"
    assert totals(exact=0.999).lifetime_text("p90") == "≤336 ms"
    assert totals(p50_ms=None).lifetime_text("p90") == "–"


def test_counts_that_are_dropped_do_not_make_rates_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many counts of services, those from the last step on are kept."""
    monkeypatch.setattr(flow_totals, "_COUNTS", 1)
    counter = FlowTotalsCounter()
    for second in range(10):
        found = _step(counter, NOW + second, ended([5.0] * 20, [1] * 20))
    assert sum(len(part) for slot in counter._slots for key, (part, _) in slot.counts.items() if key[0] != "all") <= 10
    (service,) = found.by_service
    assert service.ended_per_s == pytest.approx(20, rel=0.2)
    assert found.all.ended_per_s == pytest.approx(20, rel=0.2)
