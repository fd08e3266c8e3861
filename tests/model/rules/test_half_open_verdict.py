"""Verdicts: what is said of hosts made up as data, and that it agrees with the findings on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.listeners.listener_keys import ANY4, Key
from tcpwatch.model.listeners.queue_detail import Focus, Members
from tcpwatch.model.rules.accept_queue import accept_queue_full
from tcpwatch.model.rules.engine import Diagnosis
from tcpwatch.model.rules.finding import Severity
from tcpwatch.model.rules.half_open_kinds import Kind, Verdict
from tcpwatch.model.rules.half_open_verdict import members, verdict
from tcpwatch.model.rules.syn_queue import groups, syn_flood, syn_queue_full
from tcpwatch.model.view import View
from tcpwatch.sample import SourceInfo
from tests.model.rules.test_queues import COOKIES, HONEST, OVERFLOWS, SYN, Host
from tests.support.views import make_rows, make_sample, make_view, sock, view_of

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class Scene:
    """A host, and what is to be said: kind, severity, subject, and words of the headline."""

    host: Host
    kind: Kind
    severity: Severity | None = None
    subject: str = ""
    words: str = ""


SCENES = {
    "nothing at all": Scene(Host({}), Kind.QUIET, words="nothing is half-open"),
    "nothing is half-open": Scene(Host({"0.0.0.0:80 0/10": (0, 0)}), Kind.QUIET, words="nothing is half-open"),
    "handshakes on their way": Scene(Host({"0.0.0.0:80 0/100": (9, 1)}), Kind.QUIET, words="9 half-open, 1 repeated"),
    "clients that do not answer": Scene(
        Host({"0.0.0.0:80 0/100": (9, 5)}), Kind.SLOW_CLIENTS, words="5 of 9 half-open had a SYN+ACK repeated"
    ),
    "so many that the queue is nearly full": Scene(
        Host({"0.0.0.0:80 0/100": (80, 80)}), Kind.SLOW_CLIENTS, WARNING, words="80 of 80"
    ),
    "a burst fills the queue": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0)}), Kind.BURST, CRITICAL, "*:80", "11 of 10 half-open, 0 % repeated"
    ),
    "a burst nearly fills it": Scene(
        Host({"0.0.0.0:80 0/100": (80, 0)}), Kind.BURST, WARNING, "*:80", "80 of 100 half-open"
    ),
    "a burst whose cookies return": Scene(
        Host({"0.0.0.0:80 0/10": (10, 0)}, HONEST), Kind.BURST, CRITICAL, "*:80", "850 of 900 cookies/s returned"
    ),
    "a flood": Scene(
        Host({"0.0.0.0:80 0/10": (11, 11)}), Kind.FLOOD, CRITICAL, "*:80", "100 % without an answer"
    ),
    "a flood with cookies": Scene(
        Host({"0.0.0.0:80 0/10": (10, 0)}, COOKIES), Kind.FLOOD, CRITICAL, "*:80", "0 of 900 cookies/s returned"
    ),
    "a flood that cookies hide": Scene(
        Host({"0.0.0.0:80 0/10": (0, 0)}, COOKIES, 2), Kind.FLOOD, CRITICAL, "", "900 SYN cookies/s sent, 0/s returned"
    ),
    "cookies for everybody, and they return": Scene(Host({"0.0.0.0:80 0/10": (0, 0)}, HONEST, 2), Kind.QUIET),
    "behind a full accept queue": Scene(
        Host({"0.0.0.0:80 11/10": (9, 9)}, OVERFLOWS), Kind.SLOW_APPLICATION, CRITICAL, "*:80",
        "9 half-open, 100 % repeated, behind 11 of 10 waiting to be accepted",
    ),
    "behind a nearly full one": Scene(
        Host({"0.0.0.0:80 8/10": (9, 9)}), Kind.SLOW_APPLICATION, WARNING, "*:80", "8 of 10 waiting"
    ),
    "a full accept queue alone": Scene(Host({"0.0.0.0:80 11/10": (0, 0)}, OVERFLOWS), Kind.QUIET),
    "both queues are full": Scene(Host({"0.0.0.0:80 11/10": (11, 11)}), Kind.SLOW_APPLICATION, CRITICAL, "*:80"),
    "the lazy one of a group": Scene(
        Host({"0.0.0.0:80 0/10": (0, 0), "second 0.0.0.0:80 11/10": (21, 21)}), Kind.SLOW_APPLICATION, CRITICAL, "*:80",
        "behind 11 of 10",
    ),
    "the worse of two": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0), "0.0.0.0:81 0/10": (11, 11)}), Kind.FLOOD, CRITICAL, "*:81"
    ),
    "the deeper of two": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0), "0.0.0.0:81 0/20": (21, 0)}), Kind.BURST, CRITICAL, "*:81"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_verdicts(name: str) -> None:
    scene = SCENES[name]
    said = verdict(scene.host.view())
    assert (said.kind, said.severity, said.subject) == (scene.kind, scene.severity, scene.subject)
    assert scene.words in said.headline
    assert said.why.endswith(".")


def key_of(view: View, port: int) -> Key:
    return next(one.key for one in view.listeners if one.local_port == port)


def test_of_one_listener() -> None:
    view = Host({"0.0.0.0:80 0/100": (9, 9), "0.0.0.0:81 0/10": (11, 0), "0.0.0.0:82 0/10": (0, 0)}).view()
    said = {port: verdict(view, key_of(view, port)) for port in (80, 81, 82)}
    assert [one.kind for one in said.values()] == [Kind.SLOW_CLIENTS, Kind.BURST, Kind.QUIET]
    assert [one.subject for one in said.values()] == ["*:80", "*:81", "*:82"]


def test_whether_a_listener_is_flooded_behind_cookies_cannot_be_seen() -> None:
    view = Host({"0.0.0.0:80 0/10": (0, 0)}, COOKIES, 2).view()
    said = verdict(view, key_of(view, 80))
    assert (said.kind, said.severity) == (Kind.UNTOLD, WARNING)
    assert said.headline.startswith("0 half-open here, 900 SYN cookies/s sent")


def test_a_listener_that_has_gone() -> None:
    view = make_view(sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.9:1"), sock("LISTEN", "0.0.0.0:81", send_queue=9))
    said = verdict(view, Key(80, *ANY4))
    assert (said.kind, said.headline) == (
        Kind.GONE, "nobody listens there any more; 1 half-open of the host are left behind",
    )  # fmt: skip
    assert verdict(view).headline == "1 of 1 half-open have no listener any more"
    assert verdict(make_view(), Key(80, *ANY4)).headline == "nobody listens there any more"


def held_back(age_s: float, repeats: int = 0) -> Any:
    return sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.9:1", retransmits=repeats, age_s=age_s)


def test_held_back_by_tcp_defer_accept() -> None:
    listener = sock("LISTEN", "0.0.0.0:80", send_queue=100)
    view = make_view(listener, held_back(12.0), held_back(3.0), held_back(0.1))
    said = verdict(view)
    assert (said.kind, said.severity) == (Kind.HELD_BACK, None)
    assert said.headline == "2 of 3 half-open wait without a repeat, the oldest for 12 s"
    assert "TCP_DEFER_ACCEPT" in said.why
    mostly_repeated = make_view(listener, held_back(12.0), held_back(12.0, 3), held_back(12.0, 3))
    assert verdict(mostly_repeated).kind is Kind.SLOW_CLIENTS


def test_held_back_at_one_listener_once_somebody_looks_into_it() -> None:
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=100), held_back(12.0))
    key, nobody = key_of(view, 80), Members(view.rows, view.rows.first_seen, view.rows.born, 0)
    assert members(view, key) is None
    assert verdict(view, key).kind is Kind.QUIET
    looked_into = replace(view, focus=Focus(key, nobody, nobody, view.half_open))
    assert members(looked_into, key) is view.half_open
    assert verdict(looked_into, key).kind is Kind.HELD_BACK


def test_a_source_that_tells_neither_limits_nor_repeats() -> None:
    rows = make_rows([sock("LISTEN", "0.0.0.0:80"), held_back(12.0)])
    sample = make_sample(rows, source=SourceInfo("psutil", "user"))
    view = view_of(rows, make_rows([]), sample=sample)
    said = verdict(view)
    assert (said.kind, said.severity, said.headline) == (Kind.UNTOLD, None, "1 half-open")
    assert verdict(replace(view, rates=COOKIES)).kind is Kind.FLOOD


def test_arrivals_are_told_where_they_are_known() -> None:
    view = Host({"0.0.0.0:80 0/100": (9, 1)}).view()
    assert "The host gets 47 SYNs/s." in verdict(replace(view, arrivals_per_s=47.0)).why
    assert "SYNs/s" not in verdict(replace(view, arrivals_per_s=None)).why


# Agreement with the findings --------------------------------------------------------------------

MUCH_LIKE_THEM = {**{name: host for name, (host, _) in SYN.items()}, **{k: v.host for k, v in SCENES.items()}}


def assert_agreement(view: View, said: Mapping[str, Verdict], rules: set[tuple[str, str]], name: str) -> None:
    """`said` by endpoint, `rules` as (rule, subject's name without a member's inode)."""
    for endpoint, one in said.items():
        flooded = ("syn-flood", endpoint) in rules
        assert (one.kind is Kind.FLOOD) == flooded, (name, endpoint, one)
        if ("syn-queue-full", endpoint) in rules:
            assert one.severity in (WARNING, CRITICAL), (name, endpoint, one)
        if one.kind is Kind.SLOW_APPLICATION:
            assert ("accept-queue-full", endpoint) in rules, (name, endpoint, one)
        if one.kind is Kind.BURST:
            assert ("syn-queue-full", endpoint) in rules, (name, endpoint, one)
    whole = verdict(view)
    assert (whole.kind is Kind.FLOOD) == any(rule == "syn-flood" for rule, _ in rules), (name, whole)


@pytest.mark.parametrize("limits", [DEFAULT, Thresholds(syn_queue_share=0.3, flood_repeated_share=0.2)])
@pytest.mark.parametrize("name", MUCH_LIKE_THEM)
def test_a_verdict_agrees_with_the_rules(name: str, limits: Thresholds) -> None:
    view = replace(MUCH_LIKE_THEM[name].view(), thresholds=limits)
    candidates = [
        candidate for rule in (syn_flood, syn_queue_full, accept_queue_full) for candidate in rule(view, limits)
    ]
    rules = {(it.finding.rule, it.finding.subject.name.partition(" inode ")[0]) for it in candidates}
    said = {one.endpoint: verdict(view, one.key) for one in groups(view)}
    if limits == DEFAULT:
        assert_agreement(view, said, rules, name)
    else:
        flooded = {name for rule, name in rules if rule == "syn-flood"}
        assert {endpoint for endpoint, one in said.items() if one.kind is Kind.FLOOD} == flooded - {"web-1"}


@dataclass(slots=True)
class Days:
    """Hosts one after the other, as a monitor would see them."""

    diagnosis: Diagnosis = field(default_factory=Diagnosis)

    def step(self, host: Host) -> View:
        view = host.view()
        return replace(view, findings=self.diagnosis.step(view))


def test_a_verdict_stays_as_long_as_its_finding() -> None:
    days, flood, calm = Days(), SCENES["a flood"].host, SCENES["handshakes on their way"].host
    for _ in range(3):
        assert verdict(days.step(flood)).kind is Kind.FLOOD
    kinds = []
    for _ in range(8):
        view = days.step(calm)
        said = verdict(view)
        kinds.append(said.kind)
        assert (said.kind is Kind.FLOOD) == any(finding.rule == "syn-flood" for finding in view.findings)
    assert kinds == sorted(kinds, key=[Kind.FLOOD, Kind.BURST, Kind.QUIET].index)
    assert kinds[0] is Kind.FLOOD
    assert kinds[-1] is Kind.QUIET


def test_a_flood_whose_listener_was_closed() -> None:
    days = Days()
    for _ in range(2):
        days.step(SCENES["a flood"].host)
    said = verdict(days.step(SCENES["nothing at all"].host))
    assert (said.kind, said.subject) == (Kind.FLOOD, "*:80")
    assert said.why == "It was so a moment ago; the listener has been closed since."


@pytest.mark.parametrize("first", ["a flood", "behind a full accept queue", "a burst fills the queue"])
@pytest.mark.parametrize(
    "then", ["a flood", "behind a full accept queue", "a burst fills the queue", "nothing is half-open"]
)
def test_no_verdict_contradicts_a_finding_from_step_to_step(first: str, then: str) -> None:
    days = Days()
    for host in [SCENES[first].host] * 3 + [SCENES[then].host] * 7:
        view = days.step(host)
        shown = {finding.rule for finding in view.findings}
        kind = verdict(view).kind
        assert kind is Kind.FLOOD or "syn-flood" not in shown
        if kind is Kind.QUIET:
            assert "syn-queue-full" not in shown


def test_of_two_families_with_one_name_the_fuller_is_meant() -> None:
    days, host = Days(), Host({"0.0.0.0:80 0/10": (11, 11), "[::]:80 0/10": (1, 0)})
    view = [days.step(host) for _ in range(3)][-1]
    by_family = {one.family: verdict(view, one.key).kind for one in view.listeners}
    assert by_family == {2: Kind.FLOOD, 10: Kind.QUIET}
