"""`tcpwatch events`: each event is reported once, and losses are reported."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin, TransitionKind
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.states import State
from tcpwatch.model.view import View
from tcpwatch.report.events import EventReporter
from tcpwatch.sample import Completeness
from tests.report import golden
from tests.report.views import closed, small_host, transitions, two_views
from tests.support.views import NOW, make_view, sock

pytestmark = pytest.mark.usefixtures("utc")


def output(
    views: Sequence[View], *, as_json: bool = True, wanted: str = "", exact: bool = False, colour: bool = False
) -> str:
    reporter = EventReporter(as_json, Filter.parse(wanted) if wanted else None, exact=exact, colour=colour)
    return "".join(piece for view in views for piece in reporter.step(view)[0])


def objects(*views: View, wanted: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(views, wanted=wanted).splitlines()]


def losses(*views: View, trace: bool = True) -> list[str]:
    reporter = EventReporter(True, trace=trace)
    return [loss for view in views for loss in reporter.step(view)[1]]


INCIDENTS = transitions(
    {
        "time": NOW,
        "cookie": 5,
        "kind": TransitionKind.RETRANSMITTED,
        "old": State.ESTABLISHED,
        "new": State.ESTABLISHED,
    },
    {
        "time": NOW + 1e-6,
        "cookie": 5,
        "kind": TransitionKind.RESET_SENT,
        "old": State.CLOSED,
        "new": State.CLOSED,
        "reason": 11,
    },
    {"time": NOW + 0.001, "cookie": 5, "kind": TransitionKind.RESET_RECEIVED},
    {
        "time": NOW + 0.01,
        "cookie": 5,
        "kind": TransitionKind.DROPPED,
        "old": State.LISTEN,
        "new": State.LISTEN,
        "reason": 2,
    },
    {"time": NOW + 0.1, "cookie": 5, "kind": TransitionKind.DROPPED, "reason": 999},
    {"time": NOW + 0.15, "cookie": 5, "kind": TransitionKind.ERROR, "reason": errno.EHOSTUNREACH},
    {"time": NOW + 0.2, "cookie": 5, "old": State.ESTABLISHED, "new": State.CLOSED, "origin": Origin.EVENT},
)


def incidents() -> View:
    live = sock("ESTAB", "10.0.0.1:80", "10.0.0.8:50000", cookie=5, process='a"\x1b', pid=9)
    record = closed(live, Ending.RESET_SENT)
    archive = Archive(transitions=(INCIDENTS,), transitions_total=len(INCIDENTS), records=(record,))
    return make_view(live, archive=archive, trace=two_views()[0].trace)


def test_golden() -> None:
    views = [
        *two_views(),
        replace(incidents(), archive=replace(incidents().archive, transitions_total=5 + len(INCIDENTS))),
    ]
    golden.check("events.json", output(views))
    golden.check("events.txt", output(views, as_json=False))


def test_each_event_is_reported_once_and_a_step_is_sorted_by_time() -> None:
    before, after = two_views()
    events = objects(before, before, after, after)
    assert [event["new"] for event in events] == ["ESTABLISHED", "FIN_WAIT_1", "CLOSED", None, None]
    assert events[0]["time"] < events[1]["time"]


def test_the_promised_keys() -> None:
    promised = "time cookie local_address local_port remote_address remote_port old new origin slack_ms what reason "
    promised += "process pid ending"
    assert list(objects(*two_views())[0]) == promised.split()


def test_owner_and_ending() -> None:
    *_, over, unseen, unknown = objects(*two_views())
    assert (over["process"], over["pid"], over["ending"]) == ("nginx", 12, "closed by us"), "from the record"
    assert (unseen["local_address"], unseen["ending"], unseen["slack_ms"]) == ("2001:db8::1", "closed by peer", 200.0)
    assert unknown["cookie"] == 9 and unknown["slack_ms"] is None
    assert {unknown[key] for key in ("local_address", "remote_port", "process", "ending", "new")} == {None}


def test_a_connection_that_vanished_in_this_step() -> None:
    ended = sock("ESTAB", "10.0.0.1:80", "10.0.0.9:1", process="nginx", pid=12, cookie=4)
    other = sock("ESTAB", "10.0.0.1:80", "10.0.0.9:2", process="sshd", pid=13, cookie=3)
    rows = transitions(
        {"time": NOW, "cookie": 4, "old": State.ESTABLISHED, "origin": Origin.POLL, "slack": 1.0},
        {"time": NOW, "cookie": 3, "new": State.ESTABLISHED, "origin": Origin.POLL, "slack": 1.0},
    )
    archive = Archive(transitions=(rows,), transitions_total=2)
    events = objects(make_view(other, closed=[ended], archive=archive))
    assert [(event["remote_port"], event["process"], event["ending"]) for event in events] == [
        (1, "nginx", None),
        (2, "sshd", None),
    ]


@pytest.mark.parametrize(
    ("wanted", "new"),
    [
        ("state:fin-wait-1", ["FIN_WAIT_1"]),
        ("-state:fin-wait-1", ["ESTABLISHED", "CLOSED", None, None]),
        ("process:nginx", ["ESTABLISHED", "FIN_WAIT_1", "CLOSED"]),
        ("addr:2001:db8::", [None]),
        ("rport:50000 state:open", ["ESTABLISHED"]),
        ("state:tw", [None]),
        ("port:1", []),
        ("ending:closed", ["CLOSED", None]),
        ("ending:closed-by-us", ["CLOSED"]),
        ("ending:live", ["ESTABLISHED", "FIN_WAIT_1", None]),
    ],
)
def test_filters(wanted: str, new: list[str | None]) -> None:
    assert [event["new"] for event in objects(*two_views(), wanted=wanted)] == new


def test_the_last_record_of_a_flow_counts() -> None:
    before, after = two_views()
    later = closed(sock("ESTAB", "10.0.0.1:80", "10.0.0.8:50000", cookie=5), Ending.KILLED, 3)
    after = replace(after, archive=replace(after.archive, records=(*after.archive.records, later)))
    assert objects(before, after)[2]["ending"] == "killed"


def test_psutil_knows_no_cookies() -> None:
    rows = transitions({"time": NOW, "cookie": 1, "new": State.ESTABLISHED, "origin": Origin.POLL})
    view = replace(small_host(kind="psutil"), archive=Archive(transitions=(rows,), transitions_total=1))
    (event,) = objects(view)
    assert event["cookie"] is None and event["local_address"] == "10.0.0.1"


def test_losses_are_reported_once() -> None:
    before, after = two_views()
    more = replace(after, trace=replace(after.trace, events_lost=4, destroy_events_lost=2_000))
    assert losses(before, after, after) == ["3 trace events lost"]
    assert losses(after, more) == [
        "3 trace events lost",
        "1 trace event lost",
        "2,000 destroy events lost",
    ]
    missed = replace(before, archive=replace(before.archive, transitions_total=1002))
    assert losses(missed) == ["1,000 events did not fit into memory; see --memory"]
    assert len(objects(missed)) == 2
    incomplete = replace(before, sample=replace(before.sample, completeness=Completeness(interrupted=True)))
    assert losses(before, incomplete, incomplete, before, incomplete) == ["incomplete: interrupted dump"] * 2


def test_a_missing_trace_is_reported_if_wanted() -> None:
    view = make_view(trace=TraceStats(why_no_trace="needs root"))
    (loss,) = losses(view, view)
    assert loss.startswith("no trace (needs root): ")
    assert losses(view, trace=False) == []


def test_colour_is_for_the_change_alone() -> None:
    plain, coloured = (output(two_views(), as_json=False, colour=colour) for colour in (False, True))
    assert "\x1b" not in plain and "\x1b[32mSYN_RCVD → ESTABLISHED   \x1b[0m" in coloured
    assert "10.0.0.1:80" in output(two_views(), as_json=False, exact=True)


def test_many_at_once() -> None:
    """More than become text at once: each has its own ends."""
    size = 12_000
    rows = np.zeros(size, INCIDENTS.dtype)
    rows["cookie"], rows["time"], rows["kind"] = np.arange(size, 0, -1), NOW, TransitionKind.STATE
    rows["new"], rows["origin"] = State.ESTABLISHED, Origin.POLL
    socks = [sock("ESTAB", "10.0.0.1:80", f"10.0.0.9:{port}", cookie=port) for port in range(1, size, 2)]
    events = objects(
        make_view(*socks, archive=Archive(transitions=(rows[:7_000], rows[7_000:]), transitions_total=size))
    )
    assert [event["remote_port"] for event in events] == [port if port % 2 else None for port in range(size, 0, -1)]
