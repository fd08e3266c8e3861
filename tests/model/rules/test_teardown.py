"""The rules about how connections end, about ports and about memory, on made-up hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_ELSEWHERE, UNKNOWN_PERMISSION
from tcpwatch.model.analyses.port_facts import FailedConnects
from tcpwatch.model.finding import Candidate, Severity
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.rules import ephemeral_ports, stalls, teardown
from tcpwatch.model.rules.registry import RuleFunction
from tcpwatch.model.view import Gauge, View
from tests.sentences.recorder import note
from tests.support.views import Sock, make_rows, make_sample, make_view, sock, view_of

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
Said = list[tuple[str, Severity]]


def said(rule: RuleFunction, view: View, limits: Thresholds = DEFAULT) -> Said:
    return [(str(one.finding.subject), one.finding.severity) for one in rule(view, limits)]


def only(rule: RuleFunction, view: View) -> Candidate:
    (one,) = rule(view, DEFAULT)
    return one


# TIME_WAIT, orphans, memory: gauges against limits


def known(**rates: float | None) -> dict[str, float]:
    """The rates of counters; None: the kernel does not have the counter."""
    return {name: rate for name, rate in rates.items() if rate is not None}


@pytest.mark.parametrize(
    ("value", "limit", "overflow", "expected"),
    [
        (0, 100, 0.0, []),
        (80, 100, 0.0, []),
        (81, 100, 0.0, [WARNING]),
        (100, 100, 3.0, [CRITICAL]),
        (5, None, 0.0, []),
        (5, None, 3.0, [CRITICAL]),
        (5, None, 0.5, [CRITICAL]),
        (81, 100, None, [WARNING]),
    ],
)
def test_time_wait(value: int, limit: int | None, overflow: float | None, expected: list[Severity]) -> None:
    view = make_view(time_wait=Gauge(value, limit), rates=known(TCPTimeWaitOverflow=overflow))
    assert said(teardown.time_wait_buildup, view) == [("host web-1", one) for one in expected]
    at_once = [one.immediate_severity for one in teardown.time_wait_buildup(view, DEFAULT)]
    assert at_once == [CRITICAL if overflow else None] * len(expected)


@pytest.mark.parametrize(
    ("value", "killed", "expected"),
    [
        (25, 0.0, []), (26, 0.0, [WARNING]), (50, 0.0, [WARNING]), (51, 0.0, [CRITICAL]), (0, 0.5, [CRITICAL]),
        (26, None, [WARNING]),
    ],
)  # fmt: skip
def test_orphans(value: int, killed: float | None, expected: list[Severity]) -> None:
    view = make_view(orphans=Gauge(value, 100), rates=known(TCPAbortOnMemory=killed))
    assert said(teardown.orphans, view) == [("host web-1", one) for one in expected]
    assert said(teardown.orphans, make_view(orphans=Gauge(value, None))) == [], "where the limit is not known"


def test_orphans_that_the_kernel_kills() -> None:
    view = make_view(orphans=Gauge(40, 100), rates={"TCPAbortOnMemory": 3.0})
    finding = only(teardown.orphans, view).finding
    note([finding])
    assert finding.headline == "40 orphans, 40 % of tcp_max_orphans, 3/s killed"


@pytest.mark.parametrize(
    ("pages", "pruned", "expected"),
    [
        (60, 0.0, []), (61, 0.0, [WARNING]), (90, 0.0, [WARNING]), (91, 0.0, [CRITICAL]), (1, 0.5, [WARNING]),
        (61, 0.5, [CRITICAL]), (61, None, [WARNING]),
    ],
)  # fmt: skip
def test_memory(pages: int, pruned: float | None, expected: list[Severity]) -> None:
    view = make_view(memory_pages=Gauge(pages, 100), rates=known(PruneCalled=pruned))
    view = replace(view, sample=replace(view.sample, sysctls={"tcp_mem_pressure": 60}))
    assert said(stalls.tcp_memory, view) == [("host web-1", one) for one in expected]


# By process


def leaking(old: int, young: int, queue: int = 0, limit: int | None = None, growing: bool = False) -> View:
    socks = [
        sock("CLOSE_WAIT", "10.0.0.1:80", f"192.0.2.1:{at + 1}", process="app", pid=7, recv_queue=queue,
             state_age_s=60 if at < old else 59)
        for at in range(old + young)
    ]  # fmt: skip
    rows = make_rows(socks)
    sample = make_sample(rows, descriptor_limits={} if limit is None else {7: limit})
    view = view_of(rows, make_rows([]), sample=sample)
    processes = tuple(replace(one, growing=growing) for one in view.teardown.close_wait)
    return replace(view, teardown=replace(view.teardown, close_wait=processes))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"old": 19, "young": 99}, []),
        ({"old": 20, "young": 0}, [WARNING]),
        ({"old": 20, "young": 0, "limit": 41}, [WARNING]),
        ({"old": 20, "young": 0, "limit": 40}, [CRITICAL]),
        ({"old": 20, "young": 0, "growing": True}, [CRITICAL]),
        ({"old": 19, "young": 0, "growing": True}, []),
    ],
)
def test_close_wait(facts: dict[str, Any], expected: list[Severity]) -> None:
    assert said(teardown.close_wait_leak, leaking(**facts)) == [("process app[7]", one) for one in expected]


@pytest.mark.parametrize(("queue", "words"), [(0, "leaks"), (1, "does not read EOF"), (2, "reads neither")])
def test_why_it_is_in_close_wait(queue: int, words: str) -> None:
    finding = only(teardown.close_wait_leak, leaking(20, 0, queue)).finding
    assert words in finding.why
    assert finding.headline.startswith("20 CLOSE_WAIT; application ")


@pytest.mark.parametrize(
    ("facts", "cause", "restart"),
    [
        ({"queue": 0}, "without close()", "Restart the process to free the sockets."),
        ({"queue": 1}, "from reading", "Restart the process to free the sockets."),
        ({"queue": 9, "growing": True}, "from reading", "; otherwise it will run out of file descriptors."),
    ],
)
def test_advice_about_close_wait(facts: dict[str, Any], cause: str, restart: str) -> None:
    look, free = only(teardown.close_wait_leak, leaking(20, 0, **facts)).finding.advice
    assert cause in look
    assert free.endswith(restart)


def test_headline_of_several_kinds_of_close_wait() -> None:
    view = leaking(20, 0)
    (process,) = view.teardown.close_wait
    mixed = replace(process, eof_seen=15, data_pending=5, limit=40, share=0.5, oldest_s=75.0)
    view = replace(view, teardown=replace(view.teardown, close_wait=(mixed,)))
    assert only(teardown.close_wait_leak, view).finding.headline == (
        "20 CLOSE_WAIT (15 EOF seen, 5 data pending), oldest 1 m 15 s, 50 % of fd limit"
    )


def waiting(count: int, **facts: Any) -> list[Sock]:
    given = {"inode": 9, "uid": 33, "user": "www", "age_s": 90.0, **facts}
    return [sock("CLOSE_WAIT", "10.0.0.1:80", f"192.0.2.1:{at}", cookie=at, **given) for at in range(1, count + 1)]


def test_a_leak_in_many_processes_of_one_program() -> None:
    many = [replace(one, process="worker", pid=100 + at) for at, one in enumerate(waiting(60))]
    finding = only(teardown.close_wait_leak, make_view(*many)).finding
    assert str(finding.subject) == "program worker of www"
    assert finding.headline == (
        "60 CLOSE_WAIT in 60 processes; application read EOF but has not closed, oldest 1 m 30 s"
    )
    assert finding.evidence["processes"].value == 60
    assert finding.filter == 'state:close-wait process:"worker" user:33'
    few = [replace(one, pid=100 + at % 2) for at, one in enumerate(many)]
    assert only(teardown.close_wait_leak, make_view(*few)).finding.filter == "state:close-wait pid:100,101"


def test_a_leak_whose_owner_is_not_visible() -> None:
    hidden = waiting(30, owner_code=UNKNOWN_PERMISSION)
    listener = sock("LISTEN", "0.0.0.0:80", cookie=999)
    finding = only(teardown.close_wait_leak, make_view(listener, *hidden)).finding
    assert str(finding.subject) == "listener *:80"
    assert finding.headline == (
        "30 CLOSE_WAIT; application read EOF but has not closed, oldest 1 m 30 s, owner unknown: not all processes can "
        "be read (root can)"
    )
    assert finding.filter == "state:close-wait lport:80 -inode:0"
    finding = only(teardown.close_wait_leak, make_view(*hidden)).finding
    assert (str(finding.subject), finding.filter) == ("user www", "state:close-wait user:33 -inode:0")
    some = [replace(one, process="app" if one.cookie == 1 else None, pid=7) for one in hidden]
    assert "owner of 29 unknown" in only(teardown.close_wait_leak, make_view(*some)).finding.headline


def test_half_closed_in_several_processes_and_without_a_visible_owner() -> None:
    def held(at: int, **facts: Any) -> Sock:
        return sock("FIN_WAIT_2", "10.0.0.1:80", f"192.0.2.1:{at}", state_age_s=300, **facts)

    workers = [held(at, process="app", pid=at) for at in range(1, 31)]
    candidate = only(teardown.half_closed, make_view(*workers))
    assert str(candidate.finding.subject) == "program app of root"
    assert candidate.finding.headline == "30 half-closed in FIN_WAIT_2 in 30 processes, oldest 5 m 00 s"
    hidden = [held(at, inode=at, owner_code=UNKNOWN_ELSEWHERE) for at in range(1, 4)]
    candidate = only(teardown.half_closed, make_view(*hidden))
    assert str(candidate.finding.subject) == "user root"
    assert "owner unknown: no visible process holds it" in candidate.finding.headline
    assert candidate.finding.filter == "state:fin-wait-2 user:0 -inode:0"


def test_half_closed() -> None:
    def view(age_s: float) -> View:
        return make_view(sock("FIN_WAIT_2", "10.0.0.1:80", "192.0.2.1:1", process="app", pid=7, state_age_s=age_s))

    assert said(teardown.half_closed, view(299)) == []
    assert said(teardown.half_closed, view(300)) == [("process app[7]", WARNING)]
    assert only(teardown.half_closed, view(300)).finding.headline == "1 half-closed in FIN_WAIT_2, oldest 5 m 00 s"


# Ports


def clients(
    count: int, exhausted_in_s: float | None = None, remote: str = "192.0.2.1:443", local: str = "10.0.0.1"
) -> View:
    chosen = [*range(1000, 1100, 2), *range(1001, 1100, 2)][:count]  # in the order in which connect() takes them
    socks = [sock("ESTAB", f"{local}:{port}", remote, role="client", process="app", pid=7) for port in chosen]
    rows = make_rows(socks)
    knobs = {"ip_local_port_range_low": 1000, "ip_local_port_range_high": 1099}
    view = view_of(rows, make_rows([]), sample=make_sample(rows, sysctls=knobs))
    assert view.ephemeral_ports is not None
    changed = tuple(replace(one, runs_out_in_s=exhausted_in_s) for one in view.ephemeral_ports.destinations)
    return replace(view, ephemeral_ports=replace(view.ephemeral_ports, destinations=changed))


@pytest.mark.parametrize(
    ("count", "exhausted_in_s", "expected"),
    [
        (0, None, []), (49, 1.0, []), (50, None, [WARNING]), (79, 5.0, [WARNING]), (80, None, [WARNING]),
        (80, 5.0, [CRITICAL]), (94, None, [WARNING]), (95, None, [CRITICAL]), (100, None, [CRITICAL]),
    ],
)  # fmt: skip
def test_ports(count: int, exhausted_in_s: float | None, expected: list[Severity]) -> None:
    found = said(ephemeral_ports.port_exhaustion, clients(count, exhausted_in_s))
    assert found == [("destination 192.0.2.1:443 from 10.0.0.1", one) for one in expected]


def port_view(*socks: Sock, **knobs: int) -> View:
    rows = make_rows(socks)
    known = {"ip_local_port_range_low": 1000, "ip_local_port_range_high": 1099, **knobs}
    return view_of(rows, make_rows([]), sample=make_sample(rows, sysctls=known))


def client(port: int, host: int = 1, state: str = "ESTAB", left_s: float = 0.0) -> Sock:
    timer = "timewait" if left_s else ""
    return sock(state, f"10.0.0.1:{port}", f"192.0.2.{host}:443", role="client", timer=timer, timer_s=left_s)


@pytest.mark.parametrize(
    ("count", "expected"), [(49, []), (50, [WARNING]), (94, [WARNING]), (95, [CRITICAL]), (100, [CRITICAL])]
)
def test_ports_that_bind_has_chosen(count: int, expected: list[Severity]) -> None:
    chosen = [*range(1001, 1100, 2), *range(1000, 1100, 2)][:count]  # in the order in which bind() takes them
    view = port_view(*(client(port, 1 + at % 10) for at, port in enumerate(chosen)))
    assert said(ephemeral_ports.port_exhaustion, view) == [("host web-1", one) for one in expected]
    if expected:
        assert only(ephemeral_ports.port_exhaustion, view).finding.headline == (
            f"{count} % of all 100 ports in use, {count} by connections to 10 destinations, {100 - count} unused"
        )


def test_ports_that_listeners_hold() -> None:
    listeners = [sock("LISTEN", f"0.0.0.0:{1000 + at}", role="listener") for at in range(60)]
    finding = only(ephemeral_ports.port_exhaustion, port_view(*listeners, client(1099))).finding
    assert finding.headline == (
        "61 % of all 100 ports in use, 60 held by bind(), 1 by connections to 1 destination, 39 unused"
    )
    assert (finding.severity, finding.filter) == (WARNING, "lport:1000-1099")


def test_a_destination_that_the_range_does_not_explain() -> None:
    listeners = [sock("LISTEN", f"0.0.0.0:{1001 + 2 * at}", role="listener") for at in range(30)]
    few = [client(1000 + 2 * at) for at in range(40)]
    assert said(ephemeral_ports.port_exhaustion, port_view(*listeners, *few)) == [("host web-1", WARNING)]
    many = [client(1000 + 2 * at) for at in range(50)]
    assert said(ephemeral_ports.port_exhaustion, port_view(*listeners, *many)) == [
        ("host web-1", WARNING),
        ("destination 192.0.2.1:443 from 10.0.0.1", WARNING),
    ]


def test_a_gapless_block_of_ports() -> None:
    finding = only(ephemeral_ports.port_exhaustion, port_view(*(client(1030 + at) for at in range(20)))).finding
    assert (finding.severity, finding.headline) == (WARNING, "all 20 usable ports from 1030 to 1049 are used")
    assert "IP_LOCAL_PORT_RANGE" in finding.why


def test_time_waits_of_which_nothing_is_known() -> None:
    waits = [client(1000 + at, state="TIME_WAIT", left_s=30.0) for at in range(60)]
    assert said(ephemeral_ports.port_exhaustion, port_view(*waits, tcp_tw_reuse=1)) == []
    finding = only(ephemeral_ports.port_exhaustion, port_view(*waits, tcp_tw_reuse=1, tcp_timestamps=0)).finding
    assert finding.severity is WARNING
    assert finding.headline == "0 % of 100 ports used, at most 100 left, 60 TIME_WAIT perhaps not reusable"


def test_failed_connects_are_critical_at_once() -> None:
    view = port_view(client(1000))
    assert view.ephemeral_ports is not None
    (one,) = view.ephemeral_ports.destinations
    calls = FailedConnects(("10.0.0.1", "192.0.2.9", 80), 4)
    changed = replace(view.ephemeral_ports, destinations=(replace(one, failed=3),), failed=(calls,))
    first, second = ephemeral_ports.port_exhaustion(replace(view, ephemeral_ports=changed), DEFAULT)
    assert first.finding.headline == "connect() fails with EADDRNOTAVAIL, 1.0 % of 100 ports used, 99 left"
    assert second.finding.headline == "connect() fails with EADDRNOTAVAIL, 0 of 100 ports held by bind()"
    assert str(second.finding.subject) == "destination 192.0.2.9:80 from 10.0.0.1"
    assert (first.immediate_severity, second.immediate_severity) == (CRITICAL, CRITICAL)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"tcp_tw_reuse": 0}, "With net.ipv4.tcp_tw_reuse=1 connect() takes the port of a TIME_WAIT after one second."),
        ({"tcp_tw_reuse": 0, "tcp_tw_reuse_delay": 5000}, "takes the port of a TIME_WAIT after 5 s."),
        ({"tcp_tw_reuse": 1, "tcp_tw_reuse_delay": 60_000}, "keeps the port of a TIME_WAIT for 1 m 00 s."),
    ],
)
def test_advice_about_time_waits(knobs: dict[str, int], words: str) -> None:
    view = port_view(*(client(1000 + at, state="TIME_WAIT", left_s=30.0) for at in range(60)), **knobs)
    assert words in " ".join(only(ephemeral_ports.port_exhaustion, view).finding.advice)


def test_unknown_port_range() -> None:
    assert said(ephemeral_ports.port_exhaustion, make_view(sock("ESTAB", "10.0.0.1:1000", "192.0.2.1:443"))) == []


def test_headline_of_ports() -> None:
    assert only(ephemeral_ports.port_exhaustion, clients(80, 5.0)).finding.headline == (
        "80 % of 100 ports used, 20 left, runs out in 5 s, app[7]"
    )


def test_when_a_port_is_free_again_matters_once_none_is_left() -> None:
    def headline(used: int, waiting: int) -> str:
        view = clients(used)
        assert view.ephemeral_ports is not None
        (one,) = view.ephemeral_ports.destinations
        one = replace(one, time_wait=waiting, next_free_s=12.5 if waiting else None)
        view = replace(view, ephemeral_ports=replace(view.ephemeral_ports, destinations=(one,)))
        return only(ephemeral_ports.port_exhaustion, view).finding.headline

    assert headline(100, 30) == "100 % of 100 ports used, 0 left, 30 TIME_WAIT, next free in 12 s, app[7]"
    assert headline(100, 0) == "100 % of 100 ports used, 0 left, app[7]"
    assert headline(99, 30) == "99 % of 100 ports used, 1 left, 30 TIME_WAIT, app[7]"


# Filters


def one(state: str, local: str, remote: str, **facts: Any) -> list[Sock]:
    return [sock(state, local, remote, **facts)]


LEAK = one("CLOSE_WAIT", "10.0.0.1:80", "192.0.2.1:1", process="app", pid=7)
SELECTED: dict[str, tuple[RuleFunction, View, list[Sock]]] = {
    "ports": (ephemeral_ports.port_exhaustion, clients(60), one("TIME_WAIT", "10.0.0.1:1001", "192.0.2.1:443")),
    "ports, IPv6": (
        ephemeral_ports.port_exhaustion, clients(60, remote="[2001:db8::1]:443", local="[::1]"),
        one("ESTAB", "[::1]:1001", "[2001:db8::1]:443"),
    ),
    "close-wait-leak": (teardown.close_wait_leak, leaking(20, 0), LEAK),
    "orphans": (
        teardown.orphans, make_view(orphans=Gauge(99, 100)),
        one("FIN_WAIT_1", "10.0.0.1:80", "192.0.2.1:1") + one("LAST_ACK", "10.0.0.1:80", "192.0.2.1:2"),
    ),
    "TIME_WAIT": (
        teardown.time_wait_buildup, make_view(time_wait=Gauge(99, 100)), one("TIME_WAIT", "10.0.0.1:80", "192.0.2.1:1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SELECTED)
def test_the_filter_selects_the_affected_sockets(name: str) -> None:
    rule, view, concerned = SELECTED[name]
    other = sock("ESTAB", "10.9.9.9:9", "198.51.100.9:9", process="other", pid=9)
    mask = Filter.parse(only(rule, view).finding.filter).mask(make_rows([*concerned, other]))
    assert mask.tolist() == [True] * len(concerned) + [False]
