"""Ephemeral ports in use toward each destination, on made-up tables and on the real kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.analyses.ephemeral_ports import EphemeralPorts, PortForecast, ephemeral_ports
from tcpwatch.model.states import Role
from tests.support.views import Sock, make_rows, make_sample, sock

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
        client(101, role="server"),  # its listener has gone; the port is held all the same
        sock("CLOSED", "10.0.0.1:102"),
        sock("SYN_RCVD", "10.0.0.1:103", A, role="server"),  # holds nothing but its listener's port
        client(104), client(105),
    ]  # fmt: skip
    found = ports(socks, reserved=((105, 106), (108, 200)))
    assert (found.range.reserved, found.range.held, found.range.usable) == (4, 3, 3)
    (one,) = found.destinations
    assert (one.used, one.usable, one.free) == (1, 3, 2), "a reserved port that somebody bound is none of connect()'s"


def test_a_kernel_that_does_not_tell_its_range() -> None:
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
        (1, 0, "10.0.0.1 192.0.2.1", 0),
        (2, 1, "10.0.0.1 192.0.2.1", 0),
        (2, 1, "127.0.0.1 127.0.0.1", 1),
        (2, 1, "[::1] [::1]", 1),
        (2, 1, "[2001:db8::1] [2001:db8::2]", 0),
    ],
)
def test_what_tcp_tw_reuse_lets_go(mode: int, timestamps: int, ends: str, reusable: int) -> None:
    local, remote = ends.split()
    socks = [waits(100, 59.5, f"{remote}:80", local), waits(101, 58.9, f"{remote}:80", local)]
    (one,) = ports(socks, tcp_tw_reuse=mode, tcp_timestamps=timestamps).destinations
    assert (one.used, one.reusable, one.free) == (2 - reusable, reusable, 8 + reusable)


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
    assert not ports(odd[:49], 1000, 2000).bound_before_connect, "too few to tell"
    both = [client(1000 + at) for at in range(600)]
    assert not ports(both, 1000, 2000).bound_before_connect, "half of them are used toward one destination"


def test_when_they_will_be_exhausted() -> None:
    trend = PortForecast()

    def step(second: float, count: int) -> float | None:
        told = trend.step(second, ports([client(100 + at) for at in range(count)], high=199))
        assert told is not None and told.fullest is not None
        return told.fullest.runs_out_in_s

    assert step(0, 10) is None
    assert step(1, 20) is None, "too short to tell"
    assert step(2, 30) == pytest.approx(70 / 10)
    assert step(30, 90) == pytest.approx(10 / (80 / 30))
    assert step(70, 90) == pytest.approx(10 / (60 / 68)), "over the last minute"
    assert step(140, 90) is None, "it does not grow any more"
    assert step(141, 50) is None


def test_a_destination_that_comes_later_began_with_none() -> None:
    trend = PortForecast()
    trend.step(0, ports([client(100)]))
    told = trend.step(2, ports([client(100), *(client(100 + at, B) for at in range(4))]))
    assert told is not None
    assert {one.remote: one.runs_out_in_s for one in told.destinations} == {A: None, B: 3.0}


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
