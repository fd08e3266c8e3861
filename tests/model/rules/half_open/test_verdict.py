"""Verdicts about invented hosts, and their agreement with the findings on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tcpwatch.arrays.address_words import ANY4
from tcpwatch.config.thresholds import DEFAULT, Thresholds
from tcpwatch.model.finding import FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.listeners.queue_detail import QueueDetail, QueueMembers
from tcpwatch.model.rules.engine import RuleEngine
from tcpwatch.model.rules.half_open.verdict import half_open_of, half_open_verdict
from tcpwatch.model.rules.half_open.verdict_kinds import HalfOpenVerdict, VerdictKind
from tcpwatch.model.rules.queues.accept_queue import accept_queue_full
from tcpwatch.model.rules.queues.syn_flood import syn_flood
from tcpwatch.model.rules.queues.syn_queue import group_listeners, syn_queue_full
from tcpwatch.model.view import View
from tcpwatch.sample import SourceInfo
from tests.model.rules.test_queues import COOKIES, HONEST, OVERFLOWS, SYN, Host
from tests.support.views import make_rows, make_sample, make_view, sock, view_of

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class Scene:
    """A host and its verdict: kind, severity, subject, and a part of the headline."""

    host: Host
    kind: VerdictKind
    severity: Severity | None = None
    subject: str = ""
    words: str = ""


SCENES = {
    "nothing at all": Scene(Host({}), VerdictKind.QUIET, words="no half-open connections"),
    "nothing is half-open": Scene(Host({"0.0.0.0:80 0/10": (0, 0)}), VerdictKind.QUIET,
        words="no half-open connections"),
    "handshakes on their way": Scene(Host({"0.0.0.0:80 0/100": (9, 1)}), VerdictKind.QUIET,
        words="9 half-open connections, 1 retransmitted"),
    "clients that do not answer": Scene(
        Host({"0.0.0.0:80 0/100": (9, 5)}), VerdictKind.SLOW_CLIENTS, words="SYN+ACK retransmitted to 5 of 9 half-open"
    ),
    "so many that the queue is nearly full": Scene(
        Host({"0.0.0.0:80 0/100": (80, 80)}), VerdictKind.SLOW_CLIENTS, WARNING, words="80 of 80"
    ),
    "a burst fills the queue": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0)}), VerdictKind.BURST, CRITICAL, "*:80", "11 of 10 half-open, 0 % retransmitted"
    ),
    "a burst nearly fills it": Scene(
        Host({"0.0.0.0:80 0/100": (80, 0)}), VerdictKind.BURST, WARNING, "*:80", "80 of 100 half-open"
    ),
    "a burst whose cookies return": Scene(
        Host({"0.0.0.0:80 0/10": (10, 0)}, HONEST), VerdictKind.BURST, CRITICAL, "*:80", "850 of 900 cookies/s returned"
    ),
    "a flood": Scene(
        Host({"0.0.0.0:80 0/10": (11, 11)}), VerdictKind.FLOOD, CRITICAL, "*:80", "100 % unanswered"
    ),
    "a flood with cookies": Scene(
        Host({"0.0.0.0:80 0/10": (10, 0)}, COOKIES), VerdictKind.FLOOD, CRITICAL, "*:80", "0 of 900 cookies/s returned"
    ),
    "a flood that cookies hide": Scene(
        Host({"0.0.0.0:80 0/10": (0, 0)}, COOKIES, 2), VerdictKind.FLOOD, CRITICAL, "",
            "900 SYN cookies/s sent, 0/s returned"
    ),
    "a flood that cookies hide, beside a slow application": Scene(
        Host({"0.0.0.0:80 8/10": (9, 9)}, COOKIES, 2), VerdictKind.FLOOD, CRITICAL, "",
        "900 SYN cookies/s sent, 0/s returned",
    ),
    "cookies for everybody, and they return": Scene(Host({"0.0.0.0:80 0/10": (0, 0)}, HONEST, 2), VerdictKind.QUIET),
    "behind a full accept queue": Scene(
        Host({"0.0.0.0:80 11/10": (9, 9)}, OVERFLOWS), VerdictKind.SLOW_APPLICATION, CRITICAL, "*:80",
        "9 half-open, 100 % retransmitted, accept queue holds 11 of 10",
    ),
    "behind a nearly full one": Scene(
        Host({"0.0.0.0:80 8/10": (9, 9)}), VerdictKind.SLOW_APPLICATION, WARNING, "*:80", "accept queue holds 8 of 10"
    ),
    "a full accept queue alone": Scene(Host({"0.0.0.0:80 11/10": (0, 0)}, OVERFLOWS), VerdictKind.QUIET),
    "both queues are full": Scene(Host({"0.0.0.0:80 11/10": (11, 11)}), VerdictKind.SLOW_APPLICATION, CRITICAL, "*:80"),
    "the lazy one of a group": Scene(
        Host({"0.0.0.0:80 0/10": (0, 0), "second 0.0.0.0:80 11/10": (21, 21)}), VerdictKind.SLOW_APPLICATION,
            CRITICAL, "*:80",
        "accept queue holds 11 of 10",
    ),
    "the worse of two": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0), "0.0.0.0:81 0/10": (11, 11)}), VerdictKind.FLOOD, CRITICAL, "*:81"
    ),
    "the deeper of two": Scene(
        Host({"0.0.0.0:80 0/10": (11, 0), "0.0.0.0:81 0/20": (21, 0)}), VerdictKind.BURST, CRITICAL, "*:81"
    ),
}  # fmt: skip


def name_of(verdict: HalfOpenVerdict) -> str:
    return verdict.subject.endpoint if verdict.subject else ""


def without_inode(subject: FindingSubject) -> str:
    return subject.value.key.endpoint if isinstance(subject.value, ListenerSubject) else subject.name


@pytest.mark.parametrize("name", SCENES)
def test_verdicts(name: str) -> None:
    scene = SCENES[name]
    verdict = half_open_verdict(scene.host.view())
    assert (verdict.kind, verdict.severity, name_of(verdict)) == (scene.kind, scene.severity, scene.subject)
    assert scene.words in verdict.headline
    assert verdict.why.endswith(".")


def key_of(view: View, port: int) -> ListenerKey:
    return next(one.key for one in view.listeners if one.local_port == port)


def test_of_one_listener() -> None:
    view = Host({"0.0.0.0:80 0/100": (9, 9), "0.0.0.0:81 0/10": (11, 0), "0.0.0.0:82 0/10": (0, 0)}).view()
    verdict = {port: half_open_verdict(view, key_of(view, port)) for port in (80, 81, 82)}
    assert [one.kind for one in verdict.values()] == [VerdictKind.SLOW_CLIENTS, VerdictKind.BURST, VerdictKind.QUIET]
    assert [name_of(one) for one in verdict.values()] == ["*:80", "*:81", "*:82"]


def test_cookies_hide_which_listener_is_flooded() -> None:
    view = Host({"0.0.0.0:80 0/10": (0, 0)}, COOKIES, 2).view()
    verdict = half_open_verdict(view, key_of(view, 80))
    assert (verdict.kind, verdict.severity) == (VerdictKind.UNKNOWN, WARNING)
    assert verdict.headline.startswith("0 half-open here, 900 SYN cookies/s sent")


def test_a_closed_listener() -> None:
    view = make_view(sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.9:1"), sock("LISTEN", "0.0.0.0:81", send_queue=9))
    verdict = half_open_verdict(view, ListenerKey(80, *ANY4))
    assert (verdict.kind, verdict.headline) == (
        VerdictKind.LISTENER_CLOSED, "no listener; 1 half-open connection left on this host",
    )  # fmt: skip
    assert half_open_verdict(view).headline == "the listener of 1 of 1 half-open connection is not known"
    assert half_open_verdict(make_view(), ListenerKey(80, *ANY4)).headline == "no listener"


def deferred(age_s: float, retransmits: int = 0) -> Any:
    return sock("SYN_RCVD", "10.0.0.1:80", "192.0.2.9:1", retransmits=retransmits, age_s=age_s)


def test_tcp_defer_accept() -> None:
    listener = sock("LISTEN", "0.0.0.0:80", send_queue=100)
    view = make_view(listener, deferred(12.0), deferred(3.0), deferred(0.1))
    verdict = half_open_verdict(view)
    assert (verdict.kind, verdict.severity) == (VerdictKind.DEFERRED, None)
    assert verdict.headline == "2 of 3 half-open connections wait without a retransmit, oldest 12 s"
    assert "TCP_DEFER_ACCEPT" in verdict.why
    mostly_repeated = make_view(listener, deferred(12.0), deferred(12.0, 3), deferred(12.0, 3))
    assert half_open_verdict(mostly_repeated).kind is VerdictKind.SLOW_CLIENTS


def test_tcp_defer_accept_at_the_selected_listener() -> None:
    view = make_view(sock("LISTEN", "0.0.0.0:80", send_queue=100), deferred(12.0))
    key, nobody = key_of(view, 80), QueueMembers(view.rows, view.rows.first_seen, view.rows.begin_seen, 0)
    assert half_open_of(view, key) is None
    assert half_open_verdict(view, key).kind is VerdictKind.QUIET
    looked_into = replace(view, queue_detail=QueueDetail(key, nobody, nobody, view.half_open))
    assert half_open_of(looked_into, key) is view.half_open
    assert half_open_verdict(looked_into, key).kind is VerdictKind.DEFERRED


def test_a_source_without_limits_and_retransmits() -> None:
    rows = make_rows([sock("LISTEN", "0.0.0.0:80"), deferred(12.0)])
    sample = make_sample(rows, source=SourceInfo("psutil", "user"))
    view = view_of(rows, make_rows([]), sample=sample)
    verdict = half_open_verdict(view)
    assert (verdict.kind, verdict.severity, verdict.headline) == (VerdictKind.UNKNOWN, None, "1 half-open connection")
    assert half_open_verdict(replace(view, rates=COOKIES)).kind is VerdictKind.FLOOD


def test_arrivals_if_known() -> None:
    view = Host({"0.0.0.0:80 0/100": (9, 1)}).view()
    assert "This host receives 47 SYNs/s." in half_open_verdict(replace(view, syn_arrivals_per_s=47.0)).why
    assert "SYNs/s" not in half_open_verdict(replace(view, syn_arrivals_per_s=None)).why


# Agreement with the findings --------------------------------------------------------------------

HOSTS = {**{name: host for name, (host, _) in SYN.items()}, **{k: v.host for k, v in SCENES.items()}}


def assert_agreement(
    view: View, verdicts: Mapping[str, HalfOpenVerdict], rules: set[tuple[str, str]], name: str
) -> None:
    """`verdicts` by endpoint, `rules` as (rule, subject's name without a member's inode)."""
    for endpoint, one in verdicts.items():
        flooded = ("syn-flood", endpoint) in rules
        assert (one.kind is VerdictKind.FLOOD) == flooded, (name, endpoint, one)
        if ("syn-queue-full", endpoint) in rules:
            assert one.severity in (WARNING, CRITICAL), (name, endpoint, one)
        if one.kind is VerdictKind.SLOW_APPLICATION:
            assert ("accept-queue-full", endpoint) in rules, (name, endpoint, one)
        if one.kind is VerdictKind.BURST:
            assert ("syn-queue-full", endpoint) in rules, (name, endpoint, one)
    whole = half_open_verdict(view)
    assert (whole.kind is VerdictKind.FLOOD) == any(rule == "syn-flood" for rule, _ in rules), (name, whole)


@pytest.mark.parametrize("limits", [DEFAULT, Thresholds(syn_queue_share=0.3, flood_repeated_share=0.2)])
@pytest.mark.parametrize("name", HOSTS)
def test_a_verdict_agrees_with_the_rules(name: str, limits: Thresholds) -> None:
    view = replace(HOSTS[name].view(), thresholds=limits)
    candidates = [
        candidate for rule in (syn_flood, syn_queue_full, accept_queue_full) for candidate in rule(view, limits)
    ]
    rules = {(it.finding.rule, without_inode(it.finding.subject)) for it in candidates}
    verdict = {one.endpoint: half_open_verdict(view, one.key) for one in group_listeners(view)}
    if limits == DEFAULT:
        assert_agreement(view, verdict, rules, name)
    else:
        flooded = {name for rule, name in rules if rule == "syn-flood"}
        assert {endpoint for endpoint, one in verdict.items() if one.kind is VerdictKind.FLOOD} == flooded - {"web-1"}


@dataclass(slots=True)
class Steps:
    """Applies the rules to one host after the other."""

    diagnosis: RuleEngine = field(default_factory=RuleEngine)

    def step(self, host: Host) -> View:
        view = host.view()
        return replace(view, findings=self.diagnosis.step(view))


def test_a_verdict_stays_as_long_as_its_finding() -> None:
    steps, flood, calm = Steps(), SCENES["a flood"].host, SCENES["handshakes on their way"].host
    for _ in range(3):
        assert half_open_verdict(steps.step(flood)).kind is VerdictKind.FLOOD
    kinds = []
    for _ in range(8):
        view = steps.step(calm)
        verdict = half_open_verdict(view)
        kinds.append(verdict.kind)
        assert (verdict.kind is VerdictKind.FLOOD) == any(finding.rule == "syn-flood" for finding in view.findings)
    assert kinds == sorted(kinds, key=[VerdictKind.FLOOD, VerdictKind.BURST, VerdictKind.QUIET].index)
    assert kinds[0] is VerdictKind.FLOOD
    assert kinds[-1] is VerdictKind.QUIET


def test_a_flood_whose_listener_was_closed() -> None:
    steps = Steps()
    for _ in range(2):
        steps.step(SCENES["a flood"].host)
    verdict = half_open_verdict(steps.step(SCENES["nothing at all"].host))
    assert (verdict.kind, name_of(verdict)) == (VerdictKind.FLOOD, "*:80")
    assert verdict.why == "The listener was flooded a moment ago and has been closed since."


@pytest.mark.parametrize("first", ["a flood", "behind a full accept queue", "a burst fills the queue"])
@pytest.mark.parametrize(
    "then", ["a flood", "behind a full accept queue", "a burst fills the queue", "nothing is half-open"]
)
def test_no_verdict_contradicts_a_finding_from_step_to_step(first: str, then: str) -> None:
    steps = Steps()
    for host in [SCENES[first].host] * 3 + [SCENES[then].host] * 7:
        view = steps.step(host)
        shown = {finding.rule for finding in view.findings}
        kind = half_open_verdict(view).kind
        assert kind is VerdictKind.FLOOD or "syn-flood" not in shown
        if kind is VerdictKind.QUIET:
            assert "syn-queue-full" not in shown


def test_two_families_with_one_port_are_two_listeners() -> None:
    steps, host = Steps(), Host({"0.0.0.0:80 0/10": (11, 11), "[::]:80 0/10": (1, 0)})
    view = [steps.step(host) for _ in range(3)][-1]
    by_family = {one.family: half_open_verdict(view, one.key).kind for one in view.listeners}
    assert by_family == {2: VerdictKind.FLOOD, 10: VerdictKind.QUIET}
