"""Ephemeral ports in use toward each destination, on made-up tables and on the real kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.analyses.ephemeral_ports import (
    Destination,
    EphemeralPortAnalysis,
    EphemeralPorts,
    ephemeral_ports,
)
from tcpwatch.model.poll import Poll
from tcpwatch.model.states import Role, State
from tcpwatch.sample import Capabilities
from tests.support.polls import first_poll, polls
from tests.support.views import Sock, make_rows, make_sample, make_table, sock

A, B = "192.0.2.1:443", "192.0.2.2:443"


def client(port: int, remote: str = A, local: str = "10.0.0.1", state: str = "ESTAB", **facts: object) -> Sock:
    return sock(state, f"{local}:{port}", remote, **{"role": "client", **facts})  # type: ignore[arg-type]


def waits(port: int, left_s: float, remote: str = A, local: str = "10.0.0.1", role: str = "client") -> Sock:
    return client(port, remote, local, "TIME_WAIT", timer="timewait", timer_s=left_s, role=role)


def ports(
    socks: Sequence[Sock], low: int = 100, high: int = 109, reserved: tuple[tuple[int, int], ...] = (), **sysctls: int
) -> EphemeralPorts:
    knobs = {"ip_local_port_range_low": low, "ip_local_port_range_high": high, "tcp_timestamps": 1, **sysctls}
    rows = make_rows(socks)
    found = ephemeral_ports(rows, make_sample(rows, sysctls=knobs, reserved_ports=reserved))
    assert found is not None
    return found


def forecast(analysis: EphemeralPortAnalysis, second: float, socks: Sequence[Sock], high: int = 109) -> EphemeralPorts:
    knobs = {"ip_local_port_range_low": 100, "ip_local_port_range_high": high}
    rows = make_rows(socks)
    found = analysis.step(first_poll(make_sample(rows, monotonic=second, sysctls=knobs), rows))
    assert found is not None
    return found


def used(found: EphemeralPorts) -> dict[str, int]:
    return {f"{one.remote} from {one.local_address}": one.used for one in found.destinations}


@pytest.mark.parametrize(
    ("socks", "expected"),
    [
        ([], {}),
        ([client(104, role="server")], {}),
        ([client(9), client(104)], {f"{A} from 10.0.0.1": 1}),
        ([client(99), client(100), client(109), client(110)], {f"{A} from 10.0.0.1": 2}),
        ([client(100), client(101), client(101, B)], {f"{A} from 10.0.0.1": 2, f"{B} from 10.0.0.1": 1}),
        ([client(100), client(101, "192.0.2.1:80")], {f"{A} from 10.0.0.1": 1, "192.0.2.1:80 from 10.0.0.1": 1}),
        ([client(100), client(100, local="10.0.0.2")], {f"{A} from 10.0.0.1": 1, f"{A} from 10.0.0.2": 1}),
        (
            [client(100, "[2001:db8::1]:443", "[::1]"), client(101, "[2001:db8::2]:443", "[::1]")],
            {"[2001:db8::1]:443 from ::1": 1, "[2001:db8::2]:443 from ::1": 1},
        ),
        ([client(100, state="SYN_SENT"), client(101, state="CLOSE_WAIT"), waits(102, 5)], {f"{A} from 10.0.0.1": 3}),
    ],
)
def test_each_destination_has_ports_of_its_own(socks: list[Sock], expected: dict[str, int]) -> None:
    assert used(ports(socks)) == expected


def test_what_connect_may_not_choose() -> None:
    socks = [
        sock("LISTEN", "0.0.0.0:100", role="listener"),
        client(101, role="server"),  # its listener is closed; the port is still held
        sock("CLOSED", "10.0.0.1:102"),
        sock("SYN_RCVD", "10.0.0.1:103", A, role="server"),  # holds nothing but its listener's port
        client(104), client(105),
    ]  # fmt: skip
    found = ports(socks, reserved=((105, 106), (108, 200)))
    assert (found.range.reserved, found.range.held, found.range.usable) == (4, 3, 3)
    (one,) = found.destinations
    assert (one.used, one.usable, one.free) == (1, 3, 2), "a reserved port that somebody bound is none of connect()'s"


def test_a_kernel_without_a_known_range() -> None:
    rows = make_rows([client(100)])
    assert ephemeral_ports(rows, make_sample(rows)) is None


def test_time_waits_pin_ports_until_they_end() -> None:
    (one,) = ports([waits(100, 30.0), waits(101, 12.5), client(102)]).destinations
    assert (one.used, one.time_wait, one.reusable, one.free, one.next_free_s) == (3, 2, 0, 7, 12.5)


@pytest.mark.parametrize(
    ("mode", "timestamps", "ends", "reusable"),
    [
        (0, 1, "10.0.0.1 192.0.2.1", 0),
        (1, 1, "10.0.0.1 192.0.2.1", 1),  # the one that is older than a second
        (1, 0, "10.0.0.1 192.0.2.1", 1),  # they may have had timestamps
        (2, 1, "10.0.0.1 192.0.2.1", 0),
        (2, 1, "127.0.0.1 127.0.0.1", 1),
        (2, 1, "[::1] [::1]", 1),
        (2, 1, "[2001:db8::1] [2001:db8::2]", 0),
        (2, 0, "127.0.0.1 127.0.0.1", 1),
        (2, 1, "127.0.0.1 10.0.0.2", 1),  # one loopback address is enough
        (2, 1, "10.0.0.1 127.0.0.1", 1),
        (2, 1, "127.0.0.1 127.255.255.255", 1),
        (2, 1, "10.0.0.1 126.255.255.255", 0),
        (2, 1, "10.0.0.1 128.0.0.1", 0),
        (2, 1, "[2001:db8::9] [::2]", 0),
        (2, 1, "[2001:db8::9] [::]", 0),
        (2, 1, "[2001:db8::9] [2001:db8::1]", 0),
        (2, 1, "[::1] [2001:db8::1]", 1),
        (2, 1, "[2001:db8::9] [0:0:0:1::1]", 0),
        (2, 1, "[2001:db8::9] [::ffff:127.0.0.1]", 1),
        (2, 1, "[2001:db8::9] [::ffff:127.255.0.9]", 1),
        (2, 1, "[2001:db8::9] [::ffff:126.0.0.1]", 0),
        (2, 1, "[2001:db8::9] [::ffff:128.0.0.1]", 0),
        (2, 1, "[2001:db8::9] [::127.0.0.1]", 0),
        (2, 1, "[2001:db8::9] [1::ffff:127.0.0.1]", 0),
        (2, 1, "[2001:db8::9] [0:0:0:1:0:ffff:127.0.0.1]", 0),
    ],
)
def test_what_tcp_tw_reuse_lets_go(mode: int, timestamps: int, ends: str, reusable: int) -> None:
    local, remote = ends.split()
    socks = [waits(100, 59.5, f"{remote}:80", local), waits(101, 58.9, f"{remote}:80", local)]
    (one,) = ports(socks, tcp_tw_reuse=mode, tcp_timestamps=timestamps).destinations
    assert (one.used, one.reusable, one.free) == (2 - reusable, reusable, 8 + reusable)


def test_a_time_wait_is_reusable_once_it_is_a_second_old() -> None:
    for left_s, reusable in ((59.001, 0), (59.0, 1), (58.999, 1), (0.0, 1)):
        (one,) = ports([waits(100, left_s), client(101)], tcp_tw_reuse=1).destinations
        assert (one.reusable, one.time_wait, one.used) == (reusable, 1 - reusable, 2 - reusable)
        assert one.next_free_s == left_s
    rows = make_rows([waits(100, 5.0)])
    no_reuse_known = {"ip_local_port_range_low": 100, "ip_local_port_range_high": 109}
    found = ephemeral_ports(rows, make_sample(rows, sysctls=no_reuse_known))
    assert found is not None and found.destinations[0].reusable == 0


def test_no_time_wait_is_no_port_that_gets_free() -> None:
    assert [one.next_free_s for one in ports([client(100), waits(101, 3.0, B)]).destinations] == [None, 3.0]
    (one,) = ports([waits(100, 4.0), waits(101, 3.0), client(102)]).destinations
    assert one.next_free_s == 3.0


def test_ports_at_both_ends_of_what_is_reserved() -> None:
    found = ports([client(port) for port in (103, 104, 106, 107)], reserved=((104, 106), (1, 100)))
    assert found.range.reserved == 4
    assert found.destinations[0].used == 2
    assert found.range.usable == 6


def test_a_range_that_is_used_up() -> None:
    (one,) = ports([client(100), client(101)], 100, 101).destinations
    assert (one.free, one.share, one.usable) == (0, 1.0, 2)
    empty = replace(one, usable=0)
    assert (empty.free, empty.share) == (0, 1.0)
    assert replace(one, usable=1, used=0).share == 0.0


def test_fifty_destinations_are_shown_the_fullest_first() -> None:
    socks = [client(100 + at, f"192.0.2.{host}:443") for host in range(1, 53) for at in range(1 + host % 3)]
    found = ports(socks)
    assert (found.count, len(found.destinations), found.in_use) == (52, 50, len(socks))
    assert [one.used for one in found.destinations] == [3] * 17 + [2] * 18 + [1] * 15
    assert found.destinations[0].remote == "192.0.2.11:443", "in the order of their text where as many are used"


def test_ports_in_use_count_double_before_reusable_ones() -> None:
    many = [client(100 + at, f"192.0.2.{host}:443") for host in range(1, 51) for at in range(2)]
    reusable = [waits(100 + at, 5.0, "192.0.2.99:443") for at in range(3)]
    found = ports([*reusable, *many], tcp_tw_reuse=1)
    assert "192.0.2.99:443" not in {one.remote for one in found.destinations}
    both = [*reusable, waits(103, 5.0, "192.0.2.99:443"), waits(104, 5.0, "192.0.2.99:443"), *many]
    found = ports(both, tcp_tw_reuse=1)
    assert found.destinations[-1].remote == "192.0.2.99:443"
    assert (found.destinations[-1].used, found.destinations[-1].reusable) == (0, 5)


def test_whose_ports_they_are_where_some_have_no_owner() -> None:
    socks = [client(100 + at) for at in range(5)] + [client(105, process="app", pid=7)]
    (one,) = ports(socks).destinations
    assert one.process == "app[7]"
    assert ports(socks[:5]).destinations[0].owner is None
    assert ports(socks[:5]).destinations[0].process == ""


def test_the_fullest_first_and_whose_it_is() -> None:
    socks = [client(100 + at, A, process="app", pid=7) for at in range(3)]
    socks += [client(100 + at, B, process="other", pid=8) for at in range(4)]
    found = ports([*socks, client(109, B, process="app", pid=7)])
    assert [(one.remote, one.used, one.process) for one in found.destinations] == [(B, 5, "other[8]"), (A, 3, "app[7]")]
    assert found.fullest == found.destinations[0]
    assert (found.count, found.in_use) == (2, 8)


def test_the_sign_of_bind_before_connect() -> None:
    odd = [client(1001 + 2 * at, f"192.0.2.{at}:443") for at in range(60)]
    even = [client(1000 + 2 * at, f"192.0.2.{at}:443") for at in range(60)]
    assert ports(odd, 1000, 2000).bound_before_connect
    assert not ports(even, 1000, 2000).bound_before_connect
    assert not ports(odd[:49], 1000, 2000).bound_before_connect, "too few for a verdict"
    assert ports(odd[:50], 1000, 2000).bound_before_connect
    assert not ports(odd[:50] + even[:50], 1000, 2000).bound_before_connect, "as many as not"
    assert ports(odd[:50] + even[:49], 1000, 2000).bound_before_connect
    assert ports(odd[:50] + even[:50], 1000, 2000).other_parity_share == 0.5
    assert ports([], 1000, 2000).other_parity_share == 0.0
    half_used = [client(1001 + 2 * at) for at in range(50)]
    assert not ports(half_used, 1001, 1100).bound_before_connect
    assert not ports(half_used, 1000, 1099).bound_before_connect, "half of them are used toward one destination"
    assert ports(half_used, 1000, 1101).bound_before_connect
    both = [client(1000 + at) for at in range(600)]
    assert not ports(both, 1000, 2000).bound_before_connect, "half of them are used toward one destination"


def test_when_they_will_be_exhausted() -> None:
    analysis = EphemeralPortAnalysis()

    def step(second: float, count: int) -> float | None:
        fullest = forecast(analysis, second, [client(100 + at) for at in range(count)], high=199).fullest
        assert fullest is not None
        return fullest.runs_out_in_s

    assert step(0, 10) is None
    assert step(1, 20) is None, "too short for a verdict"
    assert step(2, 30) == pytest.approx(70 / 10)
    assert step(30, 90) == pytest.approx(10 / (80 / 30))
    assert step(70, 90) == pytest.approx(10 / (60 / 68)), "over the last minute"
    assert step(140, 90) is None, "it does not grow any more"
    assert step(141, 50) is None


def test_a_destination_that_comes_later_began_with_none() -> None:
    analysis = EphemeralPortAnalysis()
    forecast(analysis, 0, [client(100)])
    found = forecast(analysis, 2, [client(100), *(client(100 + at, B) for at in range(4))])
    assert {one.remote: one.runs_out_in_s for one in found.destinations} == {A: None, B: 3.0}


def test_the_trend_is_taken_over_a_minute() -> None:
    analysis = EphemeralPortAnalysis()

    def step(second: float, count: int) -> float | None:
        fullest = forecast(analysis, second, [client(100 + at) for at in range(count)], high=299).fullest
        assert fullest is not None
        return fullest.runs_out_in_s

    assert [step(second, 10 + 2 * second) for second in range(3)] == [None, None, pytest.approx(186 / 2)]
    for second in range(3, 61):
        assert step(second, 10 + 2 * min(second, 59)) is not None
    assert step(61, 128) == pytest.approx(72 / (116 / 60)), "the first second is forgotten"
    assert step(61.5, 130) == pytest.approx(70 / (118 / 60.5))
    assert step(62.0, 130) == pytest.approx(70 / (116 / 60))


def test_after_a_pause_what_is_older_than_a_minute_is_forgotten() -> None:
    analysis, fullest = EphemeralPortAnalysis(), None
    for second, count in ((0, 0), (30, 20), (95, 33)):
        fullest = forecast(analysis, second, [client(100 + at) for at in range(count)], high=199).fullest
    assert fullest is not None
    assert fullest.runs_out_in_s == pytest.approx(67 / (13 / 65))


def test_of_what_was_not_among_the_fullest_nothing_is_known() -> None:
    fifty = [client(100, f"192.0.2.{host}:443") for host in range(1, 51)]
    newcomer = [client(100 + at, "198.51.100.1:443") for at in range(4)]
    for before, expected in ((fifty, None), (fifty[:49], 3.0)):
        analysis = EphemeralPortAnalysis()
        assert analysis.step(first_poll(make_sample(make_rows([])))) is None
        forecast(analysis, 0, before)
        fullest = forecast(analysis, 2, [*before, *newcomer]).fullest
        assert fullest is not None
        assert (fullest.remote, fullest.runs_out_in_s) == ("198.51.100.1:443", expected)


ENDS = st.tuples(
    st.integers(100, 120),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "[2001:db8::1]"]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([80, 443]),
    st.sampled_from([Role.CLIENT, Role.SERVER]),
)


@given(st.lists(ENDS, max_size=40, unique=True), st.integers(100, 110), st.integers(110, 120))
def test_it_counts_as_a_dictionary_does(ends: list[tuple[int, str, int, int, Role]], low: int, high: int) -> None:
    held = {port for port, *_, role in ends if role is Role.SERVER}
    counts: dict[str, int] = {}
    socks = []
    for port, local, host, rport, role in ends:
        remote = f"[2001:db8::9:{host}]:{rport}" if "[" in local else f"192.0.2.{host}:{rport}"
        socks.append(replace(client(port, remote, local), role=role))
        if role is Role.CLIENT and low <= port <= high and port not in held:
            key = f"{remote} from {local.strip('[]')}"
            counts[key] = counts.get(key, 0) + 1
    found = ports(socks, low, high)
    assert used(found) == counts
    assert found.range.held == len([port for port in held if low <= port <= high])


CLIENTS = st.builds(
    "{} {} {} {}".format, st.integers(100, 103), st.sampled_from(("ESTAB", "ESTAB", "TIME_WAIT", "CLOSE_WAIT")),
    st.sampled_from((A, B)), st.sampled_from(("", "eth0")),
)  # fmt: skip


@given(st.lists(st.lists(CLIENTS, max_size=3), min_size=1, max_size=2), st.lists(st.integers(0, 1), max_size=4))
def test_ports_that_are_kept_equal_ports_counted_anew(worlds: list[list[str]], order: list[int]) -> None:
    samples = []
    for at, world in enumerate(order):
        words = [each.split(" ") for each in worlds[world % len(worlds)]]
        socks = [
            sock(state, f"10.0.0.1:{port}", remote, cookie=1 + number, interface=device, process="app", pid=7 + number)
            for number, (port, state, remote, device) in enumerate(words)
        ]
        sysctls = {"ip_local_port_range_low": 100, "ip_local_port_range_high": 110 + world}
        samples.append(make_sample(make_rows(socks), monotonic=at / 10, sysctls=sysctls))
    analysis = EphemeralPortAnalysis()
    for poll in polls(*samples):
        kept, anew = analysis.step(poll), ephemeral_ports(poll.rows, poll.sample)
        assert kept is not None
        assert anew is not None
        for name in ("range", "destinations", "count", "in_use", "distinct", "not_by_connect", "owner"):
            assert getattr(kept, name) == getattr(anew, name)


def fullest(found: EphemeralPorts) -> Destination:
    assert found.fullest is not None
    return found.fullest


def test_mapped_clients_use_the_same_ports() -> None:
    (one,) = ports([client(100), client(101, mapped=True), client(102, mapped=True)]).destinations
    assert (one.used, one.remote_address, one.exact) == (3, "192.0.2.1", True)


def test_how_many_ports_are_left_is_known_within_bounds() -> None:
    one = fullest(ports([client(100), client(101), client(101, B), client(102, B), client(103, B)]))
    assert (one.remote, one.used, one.free, one.free_least, one.free_text) == (B, 3, 7, 6, "at most 7")
    one = fullest(ports([client(100), client(101), client(101, B)]))
    assert (one.used, one.free, one.exact, one.free_text) == (2, 8, True, "8"), "its own ports are used in any case"
    (one,) = ports([client(100), waits(101, 5.0)], tcp_tw_reuse=1).destinations
    assert (one.used, one.reusable, one.unproven, one.free, one.free_least) == (1, 1, 1, 9, 8)
    (one,) = ports([client(port) for port in range(100, 110)], 100, 110).destinations
    assert (one.free, one.free_least) == (1, 0), "connect() does not try every port of an odd number"


def test_bound_sockets_that_are_not_visible_may_hold_any_port() -> None:
    rows = make_rows([client(100)])
    knobs = {"ip_local_port_range_low": 100, "ip_local_port_range_high": 109}
    found = ephemeral_ports(rows, make_sample(rows, sysctls=knobs, capabilities=Capabilities(bound=False)))
    assert found is not None
    one = fullest(found)
    assert (one.free, one.free_least, one.free_text) == (9, 0, "at most 9")


def test_ports_of_sockets_bound_to_a_device() -> None:
    plain = [client(port) for port in (100, 101, 102)]
    on_device = [client(port, interface="eth0") for port in (102, 103)]
    found = {one.interface: one for one in ports([*plain, *on_device]).destinations}
    assert (found[""].used, found["eth0"].used) == (3, 4), "a caller on the device may use the ports of neither"
    (one,) = ports(on_device).destinations
    assert (one.used, one.interface) == (2, "eth0")
    other = ports([*on_device, client(104, interface="eth1")])
    assert {one.interface: one.used for one in other.destinations} == {"eth0": 2, "eth1": 1}


@pytest.mark.parametrize(("delay_ms", "reusable"), [(None, 1), (1, 2), (1000, 1), (30_000, 1), (59_000, 0)])
def test_the_delay_of_reuse(delay_ms: int | None, reusable: int) -> None:
    socks = [waits(100, 2.0), waits(101, 59.5)]
    found = (
        ports(socks, tcp_tw_reuse=1) if delay_ms is None else ports(socks, tcp_tw_reuse=1, tcp_tw_reuse_delay=delay_ms)
    )
    (one,) = found.destinations
    assert one.reusable == reusable


def test_a_repeated_fin_does_not_make_a_time_wait_younger() -> None:
    again = replace(waits(100, 60.0), state_age_s=31.0)
    (one,) = ports([again], tcp_tw_reuse=1, tcp_tw_reuse_delay=30_000).destinations
    assert one.reusable == 1


def test_ports_that_bind_has_chosen() -> None:
    five = [client(100 + at, f"192.0.2.{1 + at % 5}:443") for at in range(10)]
    found = ports(five)
    assert (found.distinct, found.not_by_connect, found.occupied, found.occupied_share) == (10, 5, 10, 1.0)
    assert found.chosen_by_bind
    assert found.meter == (10, 10)
    even = ports([client(100 + 2 * (at % 5), f"192.0.2.{1 + at}:443") for at in range(10)])
    assert (even.distinct, even.not_by_connect, even.chosen_by_bind, even.meter) == (5, 0, False, (1, 10))
    half = ports([client(100 + at) for at in range(5)])
    assert (half.not_by_connect, half.chosen_by_bind) == (0, False), "half of the range is used: connect() takes any"


def test_ports_that_destinations_share_were_chosen_by_connect() -> None:
    odd = [client(1001 + 2 * at, f"192.0.2.{host}:443") for host in (1, 2) for at in range(host, 200)]
    assert ports(odd, 1000, 1999).not_by_connect == 0, "each has used more than half of the range before"
    few = [client(1001 + 2 * at, B) for at in range(199)] + [client(1001 + 2 * at) for at in range(180, 380)]
    assert ports(few, 1000, 1999).not_by_connect == 380


def test_a_gapless_block() -> None:
    block = [client(140 + at) for at in range(20)]
    assert fullest(ports(block, 100, 199)).block == (140, 159)
    assert fullest(ports(block[1:], 100, 199)).block is None, "it may be chance"
    assert fullest(ports([*block[:7], *block[8:], client(160)], 100, 199)).block is None
    assert fullest(ports([*block, client(170)], 100, 199)).block is None
    assert fullest(ports(block, 100, 139 + 20)).block == (140, 159)
    assert fullest(ports(block, 120, 159)).block is None, "half of the range"
    around = ports([client(port) for port in range(140, 161) if port != 150], 100, 199, reserved=((150, 150),))
    assert fullest(around).block == (140, 160)


# Facts from events


def world(sample_socks: Sequence[Sock], second: float, **facts: object) -> Poll:
    rows = make_rows(sample_socks)
    knobs = {"ip_local_port_range_low": 100, "ip_local_port_range_high": 109, "tcp_tw_reuse": 1}
    return first_poll(make_sample(rows, monotonic=second, sysctls=knobs, **facts), rows)


def destroyed(*socks: Sock, options: Sequence[int] = ()) -> DestroyedSockets:
    infos = np.zeros(len(socks), uapi.TCP_INFO)
    infos["tcpi_options"] = options or 0
    return DestroyedSockets(make_table(socks), infos, np.zeros(len(socks)), uapi.TCP_INFO.itemsize)


def traced(*changes: tuple[int, State, State, int, int], lost: int = 0) -> TraceEvents:
    """Changes of state (socket, old, new, local port), or the end of a socket (old is new) with its cookie."""
    events = np.zeros(len(changes), TRACE_EVENT)
    events["time"] = 1.0
    for event, (socket, old, new, port, cookie) in zip(events, changes, strict=True):
        event["socket"], event["old"], event["new"], event["sport"], event["dport"] = socket, old, new, port, 443
        event["kind"] = TraceEventKind.DESTROYED if old == new else TraceEventKind.STATE
        event["family"], event["cookie"] = uapi.AF_INET, cookie
        event["src"][:4], event["dst"][:4] = (10, 0, 0, 1), (192, 0, 2, 1)
    return TraceEvents(events, lost)


def test_timestamps_are_those_of_the_destroyed_socket() -> None:
    analysis = EphemeralPortAnalysis()
    socks = [replace(waits(100 + at, 50.0), cookie=11 + at) for at in range(4)]
    ends = [replace(socks[0], cookie=11), replace(socks[1], cookie=12), replace(socks[2], cookie=99)]
    found = analysis.step(world(socks, 1.0, destroyed=destroyed(*ends, options=(3, 2, 2))))
    for second in (2.0, 3.0):
        assert found is not None
        one = fullest(found)
        assert (one.reusable, one.unproven, one.without_timestamps, one.used) == (2, 1, 2, 2)
        found = analysis.step(world(socks, second, destroyed=destroyed()))


def test_an_event_that_comes_after_the_sample() -> None:
    analysis = EphemeralPortAnalysis()
    analysis.step(world([], 1.0, destroyed=destroyed(replace(waits(100, 60.0), cookie=5), options=(0,))))
    found = analysis.step(world([replace(waits(100, 59.9), cookie=5)], 2.0, destroyed=destroyed()))
    assert found is not None and fullest(found).without_timestamps == 1


def test_a_traced_connect_with_a_port_called_bind() -> None:
    analysis = EphemeralPortAnalysis()
    events = traced((1, State.CLOSED, State.SYN_SENT, 101, 0), (2, State.CLOSED, State.SYN_SENT, 0, 0))
    socks = [client(100, cookie=1), client(101, cookie=2), client(102, B, cookie=3)]
    for second in (1.0, 2.0):
        found = analysis.step(world(socks, second, trace_events=events))
        assert found is not None and (found.range.held, found.range.usable) == (1, 9)
        assert {one.remote: one.used for one in found.destinations} == {A: 1, B: 1}
        events = traced()
    found = analysis.step(world([client(101, B, cookie=9)], 3.0, trace_events=events))
    assert found is not None and found.range.held == 0, "another connection uses the port now"


def test_a_kernel_address_that_was_ours_before() -> None:
    analysis = EphemeralPortAnalysis()
    events = traced(
        (1, State.CLOSED, State.CLOSED, 0, 71),  # the end of a socket of this namespace
        (1, State.CLOSED, State.SYN_SENT, 0, 0), (1, State.SYN_SENT, State.CLOSED, 0, 0),
        (1, State.CLOSED, State.CLOSED, 0, 72), (1, State.CLOSED, State.CLOSED, 0, 73),
    )  # fmt: skip
    mine = destroyed(sock("CLOSED", "0.0.0.0:0", cookie=71), sock("CLOSED", "0.0.0.0:0", cookie=73))
    found = analysis.step(world([client(100)], 1.0, trace_events=events, destroyed=mine))
    assert found is not None and found.failed == ()
    failed = traced((5, State.SYN_SENT, State.CLOSED, 0, 0))
    analysis.step(world([], 2.0, trace_events=failed, destroyed=destroyed()))
    later = traced((5, State.CLOSED, State.CLOSED, 0, 71), lost=1)
    found = analysis.step(world([], 3.0, trace_events=later, destroyed=mine))
    assert found is not None and found.failed == (), "its end may be among the lost events"


def test_a_traced_connect_without_a_port_failed() -> None:
    analysis = EphemeralPortAnalysis()
    calls = traced(
        (1, State.CLOSED, State.SYN_SENT, 0, 0), (1, State.SYN_SENT, State.CLOSED, 0, 0),
        (2, State.CLOSED, State.SYN_SENT, 0, 0), (2, State.SYN_SENT, State.CLOSED, 0, 0),
        (3, State.SYN_SENT, State.CLOSED, 105, 0),  # refused
    )  # fmt: skip
    ends = traced((1, State.CLOSED, State.CLOSED, 0, 71), (2, State.CLOSED, State.CLOSED, 0, 72))
    mine = destroyed(sock("CLOSED", "0.0.0.0:0", cookie=71))  # socket 2 is of another namespace
    socks = [client(100)]
    assert analysis.step(world(socks, 1.0, trace_events=calls, destroyed=destroyed())) is not None
    later = (
        (2.0, ends, destroyed(), 0), (3.0, traced(), mine, 1), (31.0, traced(), mine, 1),
        (32.0, traced(), destroyed(), 0),
    )  # fmt: skip
    for second, events, gone, failed in later:
        found = analysis.step(world(socks, second, trace_events=events, destroyed=gone))
        assert found is not None
        assert (fullest(found).failed, len(found.failed)) == (failed, failed)
