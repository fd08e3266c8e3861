"""Rules about queues, on invented hosts: subject, severity, and no findings about healthy queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.finding import Candidate, Figure, Severity
from tcpwatch.model.listeners.accept_stalls import AcceptStall
from tcpwatch.model.listeners.queue_limits import Queue
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.rules.half_open.verdict import half_open_verdict
from tcpwatch.model.rules.queues.accept_queue import accept_queue_full, accept_stalled
from tcpwatch.model.rules.queues.syn_flood import syn_flood
from tcpwatch.model.rules.queues.syn_queue import syn_queue_full
from tcpwatch.model.view import View
from tests.support.views import Sock, make_rows, make_sample, sock, view_of

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class Host:
    """Listeners as `endpoint accept/limit`, with the number of half-open connections and of the retransmitted."""

    listening: Mapping[str, tuple[int, int]]
    rates: Mapping[str, float] = field(default_factory=dict)
    syncookies: int = 1
    sysctls: Mapping[str, int] = field(default_factory=dict)
    peaks: Mapping[int, int] = field(default_factory=dict)
    """Cookie (1 for the first listener) → peak."""
    dropping: tuple[str, ...] = ()
    """Endpoints whose own drops rise."""
    drops_per_s: float = 8.0
    """By how much."""
    syn_peak: int = 0
    """Least peak of each SYN queue in the last seconds."""

    def view(self) -> View:
        socks: list[Sock] = []
        for number, spec in enumerate(self.listening, 1):
            end, _, queue = spec.rpartition(" ")
            depth, _, limit = queue.partition("/")
            one = sock("LISTEN", end.split()[-1], recv_queue=int(depth), send_queue=int(limit), process="nginx", pid=7)
            socks.append(replace(one, cookie=number))
        for end, (count, repeated) in zip(self.listening, self.listening.values(), strict=True):
            local = end.split()[-2].replace("0.0.0.0", "10.0.0.1").replace("[::]", "[2001:db8::1]")
            remote = "[2001:db8::9]" if "[" in local else "192.0.2.9"
            socks += [
                sock("SYN_RCVD", local, f"{remote}:{len(socks) + at + 1}", retransmits=int(at < repeated))
                for at in range(count)
            ]
        numbered = [one if one.cookie else replace(one, cookie=1000 + at) for at, one in enumerate(socks)]
        rows = make_rows(numbered)
        sysctls = {"tcp_syncookies": self.syncookies, "somaxconn": 4096, **self.sysctls}
        sample = make_sample(rows, sysctls=sysctls, accept_queue_peaks=self.peaks)
        view = view_of(rows, make_rows([]), 2, sample=sample, rates=self.rates)
        listeners = tuple(
            replace(
                one,
                drops_per_s=self.drops_per_s if one.endpoint in self.dropping else 0.0,
                syn_peak=max(one.syn_peak, self.syn_peak),
            )
            for one in view.listeners
        )
        return replace(view, listeners=listeners)


COOKIES = {"TCPReqQFullDoCookies": 900.0, "SyncookiesSent": 900.0, "SyncookiesRecv": 0.0}
HONEST = {"TCPReqQFullDoCookies": 900.0, "SyncookiesSent": 900.0, "SyncookiesRecv": 850.0}
DROPS = {"TCPReqQFullDrop": 500.0, "ListenDrops": 500.0}
OVERFLOWS = {"ListenOverflows": 38.0, "ListenDrops": 38.0}

SYN = {
    "empty": (Host({"0.0.0.0:80 0/10": (0, 0)}), {}),
    "79 %": (Host({"0.0.0.0:80 0/100": (79, 79)}), {}),
    "80 %": (Host({"0.0.0.0:80 0/100": (80, 0)}), {("syn-queue-full", "*:80"): WARNING}),
    "at the limit": (Host({"0.0.0.0:80 0/10": (10, 0)}), {("syn-queue-full", "*:80"): WARNING}),
    "over the limit, all fresh": (Host({"0.0.0.0:80 0/10": (11, 0)}), {("syn-queue-full", "*:80"): CRITICAL}),
    "over the limit, half repeated": (Host({"0.0.0.0:80 0/10": (11, 5)}), {("syn-queue-full", "*:80"): CRITICAL}),
    "over the limit, most repeated": (
        Host({"0.0.0.0:80 0/10": (11, 6)}),
        {("syn-queue-full", "*:80"): CRITICAL, ("syn-flood", "*:80"): CRITICAL},
    ),
    "most repeated, but the application does not accept": (
        Host({"0.0.0.0:80 11/10": (11, 11)}), {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "cookies that do not come back": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, COOKIES),
        {("syn-queue-full", "*:80"): CRITICAL, ("syn-flood", "*:80"): CRITICAL},
    ),
    "cookies that come back": (Host({"0.0.0.0:80 0/10": (10, 0)}, HONEST), {("syn-queue-full", "*:80"): CRITICAL}),
    "few cookies": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, {"TCPReqQFullDoCookies": 9.0, "SyncookiesSent": 9.0}),
        {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "half of the flood has just expired": (
        Host({"0.0.0.0:80 0/100": (52, 40)}, COOKIES, syn_peak=101),
        {("syn-queue-full", "*:80"): CRITICAL, ("syn-flood", "*:80"): CRITICAL},
    ),
    "it was full, and is over": (Host({"0.0.0.0:80 0/100": (52, 40)}, syn_peak=101), {}),
    "SYNs are dropped": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, DROPS, 0, dropping=("*:80",)), {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "SYNs are dropped at another listener": (
        Host({"0.0.0.0:80 0/10": (10, 0), "0.0.0.0:81 0/10": (10, 0)}, DROPS, 0, dropping=("*:81",)),
        {("syn-queue-full", "*:80"): WARNING, ("syn-queue-full", "*:81"): CRITICAL},
    ),
    "SYNs are dropped at a listener that seems to have room": (
        Host({"0.0.0.0:80 0/10": (10, 0), "0.0.0.0:81 0/10": (0, 0)}, DROPS, 0, dropping=("*:81",)),
        {("syn-queue-full", "*:80"): WARNING, ("syn-queue-full", "web-1"): CRITICAL},
    ),
    "a flood beside a burst of honest clients": (
        Host({"0.0.0.0:443 0/100": (101, 99), "127.0.0.1:8080 0/10": (11, 0)}, COOKIES),
        {
            ("syn-queue-full", "*:443"): CRITICAL, ("syn-flood", "*:443"): CRITICAL,
            ("syn-queue-full", "127.0.0.1:8080"): CRITICAL,
        },
    ),
    "a flooded queue that has just lost half, beside a burst of honest clients": (
        Host({"0.0.0.0:443 0/100": (101, 40), "127.0.0.1:8080 0/10": (11, 0)}, COOKIES),
        {("syn-queue-full", "*:443"): CRITICAL, ("syn-queue-full", "127.0.0.1:8080"): CRITICAL},
    ),
    "unreturned cookies of one of two listeners": (
        Host({"0.0.0.0:443 0/100": (101, 9), "127.0.0.1:8080 0/10": (11, 0)}, COOKIES),
        {
            ("syn-queue-full", "*:443"): CRITICAL, ("syn-queue-full", "127.0.0.1:8080"): CRITICAL,
            ("syn-flood", "web-1"): CRITICAL,
        },
    ),
    "cookies always": (Host({"0.0.0.0:80 0/10": (0, 0)}, COOKIES, 2), {("syn-flood", "web-1"): CRITICAL}),
    "cookies always, and they come back": (Host({"0.0.0.0:80 0/10": (0, 0)}, HONEST, 2), {}),
    "the sick one of two": (
        Host({"0.0.0.0:80 0/10": (11, 11), "0.0.0.0:81 0/10": (2, 2)}, COOKIES),
        {("syn-queue-full", "*:80"): CRITICAL, ("syn-flood", "*:80"): CRITICAL},
    ),
    "IPv6": (
        Host({"[::]:80 0/10": (11, 11)}),
        {("syn-queue-full", "*:80"): CRITICAL, ("syn-flood", "*:80"): CRITICAL},
    ),
    "a group counts as one": (
        Host({"0.0.0.0:80 0/10": (11, 11), "second 0.0.0.0:80 0/10": (0, 0)}), {},
    ),
    "full between two polls, cookies sent": (
        Host({"0.0.0.0:80 0/10": (0, 0)}, HONEST), {("syn-queue-full", "web-1"): WARNING},
    ),
    "full between two polls, SYNs dropped": (
        Host({"0.0.0.0:80 0/10": (0, 0)}, DROPS, 0), {("syn-queue-full", "web-1"): CRITICAL},
    ),
    "one SYN in two seconds is dropped": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, {"TCPReqQFullDrop": 0.5, "ListenDrops": 0.5}, 0, dropping=("*:80",)),
        {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "one SYN in two seconds is answered with a cookie": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, {"TCPReqQFullDoCookies": 0.5, "SyncookiesSent": 0.5}),
        {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "drops for another reason than the SYN queue": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, OVERFLOWS, 0), {("syn-queue-full", "*:80"): WARNING},
    ),
    "more overflows than drops": (
        Host({"0.0.0.0:80 0/10": (10, 0)}, {"ListenOverflows": 38.0, "ListenDrops": 30.0}, 0),
        {("syn-queue-full", "*:80"): WARNING},
    ),
    "the silent last quarter": (
        Host(
            {"0.0.0.0:80 0/4096": (97, 0)}, {"ListenDrops": 70.0, "TCPReqQFullDrop": 0.0}, 0,
            {"tcp_max_syn_backlog": 128}, dropping=("*:80",), drops_per_s=70.0,
        ),
        {("syn-queue-full", "*:80"): CRITICAL},
    ),
    "the silent last quarter, one SYN in two seconds": (
        Host({"0.0.0.0:80 0/4096": (97, 0)}, {"ListenDrops": 0.5}, 0, {"tcp_max_syn_backlog": 128}, dropping=("*:80",)),
        {("syn-queue-full", "*:80"): CRITICAL},
    ),
}  # fmt: skip


def said(candidates: list[Candidate]) -> dict[tuple[str, str], Severity]:
    return {(one.finding.rule, one.finding.subject.name): one.finding.severity for one in candidates}


@pytest.mark.parametrize(("host", "expected"), SYN.values(), ids=SYN)
def test_syn_queues(host: Host, expected: dict[tuple[str, str], Severity]) -> None:
    view = host.view()
    assert said([*syn_queue_full(view, DEFAULT), *syn_flood(view, DEFAULT)]) == expected


NGINX = ("accept-queue-full", "*:80")
ACCEPT = {
    "79 %": (Host({"0.0.0.0:80 79/100": (0, 0)}), {}, None),
    "80 %": (Host({"0.0.0.0:80 80/100": (0, 0)}), {NGINX: WARNING}, None),
    "at the limit": (Host({"0.0.0.0:80 100/100": (0, 0)}), {NGINX: WARNING}, None),
    "over it": (Host({"0.0.0.0:80 101/100": (0, 0)}), {NGINX: CRITICAL}, None),
    "over it, and it drops": (
        Host({"0.0.0.0:80 101/100": (0, 0)}, OVERFLOWS, dropping=("*:80",)), {NGINX: CRITICAL}, CRITICAL
    ),
    "full between two polls, and it dropped": (
        Host({"0.0.0.0:80 3/100": (0, 0)}, OVERFLOWS, peaks={1: 101}, dropping=("*:80",)), {NGINX: CRITICAL}, CRITICAL
    ),
    "full between two polls, and nothing was dropped": (Host({"0.0.0.0:80 3/100": (0, 0)}, peaks={1: 101}), {}, None),
    "it drops for another reason": (Host({"0.0.0.0:80 3/100": (0, 0)}, OVERFLOWS, dropping=("*:80",)), {}, None),
    "seen when it has just made room for one": (
        Host({"0.0.0.0:80 100/100": (0, 0)}, OVERFLOWS, dropping=("*:80",)), {NGINX: CRITICAL}, CRITICAL
    ),
    "it drops one connection in two seconds": (
        Host({"0.0.0.0:80 100/100": (0, 0)}, {"ListenOverflows": 0.5}, dropping=("*:80",)), {NGINX: CRITICAL}, CRITICAL
    ),
    "it drops, but not for a full accept queue": (
        Host({"0.0.0.0:80 100/100": (0, 0)}, {"ListenOverflows": 0.0}, dropping=("*:80",)), {NGINX: WARNING}, None
    ),
    "another one overflows": (Host({"0.0.0.0:80 100/100": (0, 0)}, OVERFLOWS), {NGINX: WARNING}, None),
    "the sick one of two": (
        Host({"0.0.0.0:80 11/10": (0, 0), "0.0.0.0:81 1/10": (0, 0)}, OVERFLOWS, dropping=("*:80",)),
        {NGINX: CRITICAL}, CRITICAL,
    ),
    "the lazy member of a group": (
        Host({"0.0.0.0:80 0/10": (0, 0), "second 0.0.0.0:80 11/10": (0, 0)}),
        {("accept-queue-full", "*:80 inode 100002"): CRITICAL}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("host", "expected", "at_once"), ACCEPT.values(), ids=ACCEPT)
def test_accept_queues(host: Host, expected: dict[tuple[str, str], Severity], at_once: Severity | None) -> None:
    found = list(accept_queue_full(host.view(), DEFAULT))
    assert said(found) == expected
    assert [one.immediate_severity for one in found] == [at_once] * len(found)


@dataclass(frozen=True, slots=True)
class Stall:
    """A listener that has accepted nothing: `accept/limit`, and what is known of it."""

    queue: str
    stalled_s: float | None
    waiting_s: float | None = 40.0
    since_first: bool = False
    group_size: int = 1
    unseen: int = 0
    peaks: Mapping[int, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def view(self) -> View:
        dropping = ("*:80",) if self.rates else ()
        view = Host({f"0.0.0.0:80 {self.queue}": (0, 0)}, self.rates, peaks=self.peaks, dropping=dropping).view()
        stall = AcceptStall(self.stalled_s, self.since_first, unseen=self.unseen) if self.stalled_s else None
        known: dict[str, Any] = {
            "unmoved" if self.unseen else "stall": stall,
            "waiting_s": self.waiting_s,
            "group_size": self.group_size,
            "client_closed": 2,
            "client_reset": 1,
        }
        return replace(view, listeners=(replace(view.listeners[0], **known),))


STALLED = ("accept-stalled", "*:80")
STALLS = {
    "30 s": (Stall("3/4096", 30.0), {STALLED: WARNING}),
    "29 s": (Stall("3/4096", 29.0), {}),
    "not certain": (Stall("3/4096", None), {}),
    "99 wait": (Stall("99/4096", 30.0), {STALLED: WARNING}),
    "100 wait": (Stall("100/4096", 30.0), {STALLED: CRITICAL}),
    "since the first poll, and the oldest waits longer": (Stall("3/4096", 2.0, 40.0, True), {STALLED: WARNING}),
    "since the first poll, and many wait: it may be slow": (
        Stall("500/4096", 2.0, 40.0, True), {STALLED: WARNING},
    ),
    "apart from some that were reset": (Stall("500/4096", 30.0, unseen=3), {STALLED: WARNING}),
    "since the first poll, and the oldest is young": (Stall("3/4096", 2.0, 9.0, True), {}),
    "it accepted after the first poll": (Stall("3/4096", 2.0, 40.0), {}),
    "the oldest of a group may wait elsewhere": (
        Stall("3/4096", 2.0, 40.0, True, 2), {},
    ),
    "a member of a group": (Stall("3/4096", 30.0, 40.0, False, 2), {("accept-stalled", "*:80 inode 100001"): WARNING}),
    "nearly full": (Stall("90/100", 30.0), {STALLED: WARNING}),
    "nearly full, and not certain": (Stall("90/100", None), {NGINX: WARNING}),
    "full": (Stall("101/100", 30.0), {NGINX: CRITICAL}),
    "full, and it drops": (Stall("100/100", 30.0, rates=OVERFLOWS), {NGINX: CRITICAL}),
}  # fmt: skip


@pytest.mark.parametrize(("stall", "expected"), STALLS.values(), ids=STALLS)
def test_stalled_applications(stall: Stall, expected: dict[tuple[str, str], Severity]) -> None:
    view = stall.view()
    assert said([*accept_queue_full(view, DEFAULT), *accept_stalled(view, DEFAULT)]) == expected


def test_what_is_said_of_a_stalled_application() -> None:
    def headline(stall: Stall) -> str:
        (one,) = accept_stalled(stall.view(), DEFAULT)
        assert not one.stays, "one accept() makes the words false"
        return one.finding.headline

    assert headline(Stall("3/4096", 65.0, 65.0)) == (
        "nginx[7], no accept() succeeded for 1 m 05 s, 3 of 4,096 waiting, oldest 1 m 05 s, 3 clients gave up"
    )
    assert "nginx[7], all connections that waited 40 s ago still wait, 3 of" in headline(
        Stall("3/4096", 40.0, unseen=1)
    )
    assert "no accept() succeeded for at least 2 s" in headline(Stall("3/4096", 2.0, 65.0, True))


def test_a_young_proof_does_not_hide_that_all_still_wait() -> None:
    view = Stall("3/4096", 1.0).view()
    listener = replace(view.listeners[0], unmoved=AcceptStall(50.0, unseen=9))
    (one,) = accept_stalled(replace(view, listeners=(listener,)), DEFAULT)
    assert "all connections that waited 50 s ago still wait" in one.finding.headline
    figures = {name: figure.value for name, figure in one.finding.evidence.items()}
    assert (figures["nothing_accepted_for"], figures["unchanged_for"], figures["accepted_at_most"]) == (1.0, 50.0, 9)


@pytest.mark.parametrize(
    ("stall", "words", "unit"),
    [
        (Stall("101/100", None), "nginx[7] accepts connections more slowly than clients open them.", " or more"),
        (
            Stall("101/100", 3.0, unseen=1),
            "nginx[7] accepts connections more slowly than clients open them.",
            " or more",
        ),
        (Stall("101/100", 3.0), "nginx[7] has accepted nothing for 3 s.", ""),
        (Stall("101/100", 3.0, 9.0, True), "nginx[7] has accepted nothing for at least 3 s.", ""),
    ],
)
def test_a_minimum_is_not_said_to_be_zero(stall: Stall, words: str, unit: str) -> None:
    view = stall.view()
    view = replace(view, listeners=(replace(view.listeners[0], accepted_per_s=0.0, retransmitted=1),))
    (one,) = accept_queue_full(view, DEFAULT)
    assert one.finding.why.startswith(words)
    assert one.finding.evidence["accepted"] == Figure(0.0, f"connections/s{unit}")
    assert half_open_verdict(view).why.startswith(words), "the screens agree"


def test_who_waits_at_which_member_is_not_known() -> None:
    view = Host({"0.0.0.0:80 1/10": (0, 0), "second 0.0.0.0:80 11/10": (0, 0)}).view()
    listeners = [replace(one, waiting_s=40.0, client_closed=2) for one in view.listeners]
    (one,) = accept_queue_full(replace(view, listeners=tuple(listeners)), DEFAULT)
    assert one.finding.headline == "nginx[7], 11 of 10 waiting"
    assert one.finding.evidence["oldest_waits"].value is None
    idle = replace(listeners[1], accept_queue=Queue(0, 10))
    (one,) = accept_queue_full(replace(view, listeners=(listeners[0], idle)), DEFAULT)
    assert one.finding.headline == "nginx[7], 11 of 10 waiting, oldest 40 s, 2 clients gave up"


def test_no_findings_without_queue_figures() -> None:
    view = Host({"0.0.0.0:80 0/10": (11, 11)}).view()
    unknown = replace(view.listeners[0], accept_queue=replace(view.listeners[0].accept_queue, depth=None, limit=None))
    unknown = replace(unknown, syn_queue=replace(unknown.syn_queue, limit=None), accept_peak=None)
    view = replace(view, listeners=(unknown,))
    assert not [*syn_queue_full(view, DEFAULT), *syn_flood(view, DEFAULT), *accept_queue_full(view, DEFAULT)]


def test_figures_in_headline_and_evidence() -> None:
    (one,) = accept_queue_full(Host({"0.0.0.0:80 101/100": (0, 0)}, OVERFLOWS, dropping=("*:80",)).view(), DEFAULT)
    assert one.finding.headline == "nginx[7], 101 of 100 waiting, 8 drops/s"
    evidence = {name: figure.value for name, figure in one.finding.evidence.items()}
    assert (evidence["accept_queue"], evidence["limit_set_by"]) == (101, "listen()")
    assert "(now 4096)" in " ".join(one.finding.advice)
    (flood,) = syn_flood(Host({"0.0.0.0:80 0/10": (11, 11)}, COOKIES).view(), DEFAULT)
    assert flood.finding.headline == (
        "911 SYNs/s, 11 of 10 half-open from 1 address, 100 % unanswered, 0 of 900 cookies/s returned"
    )
    evidence = {name: figure.value for name, figure in flood.finding.evidence.items()}
    assert (evidence["sources"], evidence["largest_24"]) == (1, "192.0.2.0/24")


@pytest.mark.parametrize(
    ("facts", "headline"),
    [
        ({}, "nginx[7], 101 of 100 waiting"),
        ({"owner": None}, "101 of 100 waiting"),
        ({"accept_peak": 102}, "nginx[7], 101 of 100 waiting, peak 102"),
        ({"waiting_s": 75.0}, "nginx[7], 101 of 100 waiting, oldest 1 m 15 s"),
        ({"waiting_s": 75.0, "waiting_is_minimum": True}, "nginx[7], 101 of 100 waiting, oldest over 1 m 15 s"),
        ({"client_closed": 1}, "nginx[7], 101 of 100 waiting, 1 client gave up"),
    ],
)
def test_headline_of_an_accept_queue(facts: dict[str, Any], headline: str) -> None:
    view = Host({"0.0.0.0:80 101/100": (0, 0)}).view()
    view = replace(view, listeners=(replace(view.listeners[0], **facts),))
    (one,) = accept_queue_full(view, DEFAULT)
    assert one.finding.headline == headline


@pytest.mark.parametrize(("abort", "words"), [(0, "drops last ACKs"), (1, "resets those")])
def test_what_the_kernel_does_with_clients_beyond_the_limit(abort: int, words: str) -> None:
    (one,) = accept_queue_full(
        Host({"0.0.0.0:80 101/100": (0, 0)}, sysctls={"tcp_abort_on_overflow": abort}).view(), DEFAULT
    )
    assert words in one.finding.why


@pytest.mark.parametrize(("dropping", "own"), [(("*:80",), 38.0), (("*:80", "*:81"), None)])
def test_overflows_are_those_of_the_only_listener_that_drops(dropping: tuple[str, ...], own: float | None) -> None:
    host = Host({"0.0.0.0:80 101/100": (0, 0), "0.0.0.0:81 1/100": (0, 0)}, OVERFLOWS, dropping=dropping)
    (one,) = accept_queue_full(host.view(), DEFAULT)
    evidence = {name: figure.value for name, figure in one.finding.evidence.items()}
    assert (evidence["listen_overflows"], evidence["host_listen_overflows"]) == (own, 38.0)


def test_advice_names_the_limit() -> None:
    def advice(host: Host) -> str:
        return " ".join(next(iter(accept_queue_full(host.view(), DEFAULT))).finding.advice)

    assert "net.core.somaxconn (100)" in advice(Host({"0.0.0.0:80 101/100": (0, 0)}, sysctls={"somaxconn": 100}))
    assert "The limit is from listen(): the backlog that nginx[7] passed" in advice(
        Host({"0.0.0.0:80 101/100": (0, 0)})
    )


def test_other_thresholds() -> None:
    view = Host({"0.0.0.0:80 60/100": (60, 40)}).view()
    lower = Thresholds(syn_queue_share=0.5, accept_queue_share=0.5)
    assert said([*syn_queue_full(view, lower), *accept_queue_full(view, lower)]) == {
        ("syn-queue-full", "*:80"): WARNING,
        ("accept-queue-full", "*:80"): WARNING,
    }


@pytest.mark.parametrize("end", ["0.0.0.0:80", "10.0.0.1:80", "[2001:db8::1]:80"])
def test_the_filter_selects_the_affected_sockets(end: str) -> None:
    view = Host({f"{end} 11/10": (11, 11), "0.0.0.0:81 0/10": (3, 0)}).view()
    (queue,) = syn_queue_full(view, DEFAULT)
    assert Filter.parse(queue.finding.filter).mask(view.rows).sum() == 11
    (accept,) = accept_queue_full(view, DEFAULT)
    waiting = [sock("ESTAB", "10.0.0.1:80", "10.0.0.2:1"), sock("CLOSE_WAIT", "10.0.0.1:80", "10.0.0.2:2")]
    others = [sock("ESTAB", "10.0.0.1:80", "10.0.0.2:3", process="nginx"), sock("ESTAB", "10.0.0.1:81", "10.0.0.2:3")]
    if not end.startswith("["):
        assert Filter.parse(accept.finding.filter).mask(make_rows([*waiting, *others])).tolist() == [
            True,
            True,
            False,
            False,
        ]


def test_a_flood_from_one_network_can_be_filtered() -> None:
    def advice(host: Host) -> str:
        (flood,) = syn_flood(host.view(), DEFAULT)
        return " ".join(flood.finding.advice)

    near = Host({"0.0.0.0:80 0/10": (11, 11)})
    assert "100 % come from 192.0.0.0/16" in advice(near)
    assert "SYN cookies keep" in advice(near)
    assert "tcp_syncookies=1" in advice(replace(near, syncookies=0))


@pytest.mark.parametrize(("networks", "spread"), [(1, False), (2, False), (3, True)])
def test_a_flood_from_several_networks(networks: int, spread: bool) -> None:
    view = Host({"0.0.0.0:80 0/10": (12, 12)}).view()
    flooding = [
        sock("SYN_RCVD", "10.0.0.1:80", f"192.{at % networks}.2.9:{at + 1}", retransmits=1, cookie=1000 + at)
        for at in range(12)
    ]
    listener = sock("LISTEN", "0.0.0.0:80", send_queue=10, process="nginx", pid=7, cookie=1)
    rows = make_rows([listener, *flooding])
    view = view_of(rows, make_rows([]), 2, sample=make_sample(rows, sysctls=dict(view.sample.sysctls)))
    (flood,) = syn_flood(view, DEFAULT)
    assert ("sources are widely spread" in " ".join(flood.finding.advice)) == spread
    assert flood.finding.evidence["largest_24_share"].value == pytest.approx(1 / networks)


OVER = {**DROPS, "ListenDrops": 540.0, "ListenOverflows": 10.0}
SILENT = {"tcp_max_syn_backlog": 12}


@pytest.mark.parametrize(
    ("host", "cookies", "dropped", "words"),
    [
        (Host({}, HONEST), 900.0, None, "900 SYNs/s answered with cookies"),
        (Host({}, DROPS, dropping=("*:80",), drops_per_s=500.0), None, 500.0, "500 SYNs/s dropped"),
        (Host({}, DROPS, dropping=("*:80",), drops_per_s=140.0), None, 140.0, "140 SYNs/s dropped"),
        (
            Host({"0.0.0.0:80 0/20": (10, 4)}, OVER, 0, SILENT, dropping=("*:80",), drops_per_s=540.0),
            None,
            530.0,
            "530 SYNs/s dropped",
        ),
        (Host({}, OVER, 1, SILENT, dropping=("*:80",), drops_per_s=540.0), None, 500.0, "500 SYNs/s dropped"),
        (Host({}, {"ListenDrops": 540.0}, 0), None, None, "10 of 9 half-open"),
    ],
)
def test_how_many_syns_met_a_full_queue(host: Host, cookies: float | None, dropped: float | None, words: str) -> None:
    (queue,) = syn_queue_full(replace(host, listening=host.listening or {"0.0.0.0:80 0/9": (10, 4)}).view(), DEFAULT)
    evidence = {name: figure.value for name, figure in queue.finding.evidence.items()}
    assert (evidence["cookies_for_full_queue"], evidence["dropped_for_full_queue"]) == (cookies, dropped)
    assert (evidence["syn_queue"], evidence["syn_queue_limit"], evidence["repeated"]) == (10, 9, 4)
    assert queue.finding.headline.endswith(words)
    assert ("Set net.ipv4.tcp_syncookies=1" in " ".join(queue.finding.advice)) == (host.syncookies == 0)


def test_cookies_are_those_of_the_host_if_two_queues_may_have_been_full() -> None:
    view = Host({"0.0.0.0:443 0/100": (101, 99), "127.0.0.1:8080 0/10": (9, 0)}, COOKIES).view()
    queues = {one.finding.subject.name: one.finding for one in syn_queue_full(view, DEFAULT)}
    of_host = "; this host answers 900 SYNs/s with cookies"
    assert queues["127.0.0.1:8080"].headline == f"9 of 10 half-open{of_host}"
    evidence = queues["127.0.0.1:8080"].evidence
    assert evidence["cookies_for_full_queue"].value is None
    assert evidence["host_cookies_for_full_queue"].value == 900.0
    (flood,) = syn_flood(view, DEFAULT)
    assert flood.finding.headline == (
        "≥ 101 SYNs/s, 101 of 100 half-open from 1 address, 98 % unanswered; "
        "this host sends 900 SYN cookies/s, 0/s returned"
    )
    assert (flood.finding.evidence["cookies_sent"].value, flood.finding.evidence["arrivals"].value) == (None, 101.0)


def test_honest_connections_are_not_syns_of_a_flood() -> None:
    view = Host({"0.0.0.0:443 0/100": (101, 99)}, {**COOKIES, "SyncookiesRecv": 40.0}).view()
    (flood,) = syn_flood(replace(view, syn_arrivals_per_s=5000.0), DEFAULT)
    assert flood.finding.headline.startswith("961 SYNs/s, 101 of 100 half-open")


@pytest.mark.parametrize(
    ("rates", "cookies", "dropped", "severity", "words"),
    [
        (HONEST, 900.0, 0.0, WARNING, "900 SYNs/s answered with cookies because a SYN queue was full"),
        (DROPS, 0.0, 500.0, CRITICAL, "500 SYNs/s dropped because a SYN queue was full"),
    ],
)
def test_a_queue_that_was_full_between_two_polls(
    rates: dict[str, float], cookies: float, dropped: float, severity: Severity, words: str
) -> None:
    (one,) = syn_queue_full(Host({"0.0.0.0:80 0/10": (0, 0)}, rates).view(), DEFAULT)
    evidence = {name: figure.value for name, figure in one.finding.evidence.items()}
    assert (evidence["cookies_for_full_queue"], evidence["dropped_for_full_queue"]) == (cookies, dropped)
    assert (one.finding.severity, str(one.finding.subject)) == (severity, "host web-1")
    assert one.finding.headline.startswith(words)


@pytest.mark.parametrize(("peak", "half_open", "full"), [(79, 40, False), (80, 40, True), (80, 39, False)])
def test_a_queue_that_was_nearly_full_lately(peak: int, half_open: int, full: bool) -> None:
    view = Host({"0.0.0.0:80 0/100": (half_open, 0)}, COOKIES, syn_peak=peak).view()
    severities = [one.finding.severity for one in syn_queue_full(view, DEFAULT) if one.finding.subject.name == "*:80"]
    assert severities == [CRITICAL] * full


@pytest.mark.parametrize(
    ("sent", "returned", "flood"), [(100, 9, True), (100, 10, False), (9, 0, False), (10, 0, True)]
)
def test_how_many_cookies_make_a_flood(sent: float, returned: float, flood: bool) -> None:
    rates = {"TCPReqQFullDoCookies": sent, "SyncookiesSent": sent, "SyncookiesRecv": returned}
    limits = Thresholds(flood_cookies_per_s=10, flood_cookies_returned=0.1)
    found = list(syn_flood(Host({"0.0.0.0:80 0/10": (0, 0)}, rates).view(), limits))
    assert [str(one.finding.subject) for one in found] == ["host web-1"] * flood
