"""`tcpwatch summary` as JSON and as text."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from tcpwatch import units
from tcpwatch.model.sockets.flow_totals import DECADES, FlowTotals
from tcpwatch.model.states import STATE_ORDER
from tcpwatch.model.view import Gauge
from tcpwatch.report import summary_json, summary_text
from tests.report import golden
from tests.report.views import small_host
from tests.support.totals import FLOWS, totals
from tests.support.views import make_view, sock

ESCAPE = re.compile("\x1b\\[[0-9;]*m")
PART = re.compile(r"\[\s+(\S+),\s+(\d+)\s+\]")
"""A histogram, which is readable on one line."""


def test_json() -> None:
    line = summary_json.as_json(summary_json.summary(replace(small_host(), flow_totals=FLOWS), {"ActiveOpens": 2 / 3}))
    assert line.count("\n") == 1
    text = json.dumps(json.loads(line), indent=2)
    golden.check("summary.json", PART.sub(r"[\1, \2]", text) + "\n")


def test_the_promised_keys() -> None:
    facts = summary_json.summary(make_view())
    promised = "time host source sockets states half_open time_wait listeners counters rates findings flows "
    promised += "other_namespaces rules_without_data"
    assert list(facts) == promised.split()
    assert list(facts["states"]) == [state.name for state in STATE_ORDER]
    assert set(facts["states"].values()) == {0}
    assert facts["rates"] == {} and facts["findings"] == [] and facts["listeners"] == [] and facts["flows"] is None


def test_unknown_values_are_null() -> None:
    view = make_view(sock("LISTEN", "[::]:443", send_queue=5), time_wait=Gauge(0, None))
    facts = summary_json.summary(view)
    assert facts["time_wait"] == {"count": 0, "limit": None}
    assert facts["listeners"] == [
        {
            "local_address": "::",
            "local_port": 443,
            "interface": None,
            "process": None,
            "pid": None,
            "held_by": None,
            "accepted_by": None,
            "accept_queue": {"depth": 0, "limit": 5},
            "syn_queue": {"depth": 0, "limit": 5},
            "drops": None,
        }
    ]


def test_psutil_has_no_queues() -> None:
    facts = summary_json.summary(small_host(kind="psutil", complete=False))
    missing = ["interrupted dump", "no queues"]
    source = {"kind": "psutil", "privilege": "user", "capabilities": None, "complete": False, "missing": missing}
    assert facts["source"] == {**source, "forged_events": None}
    assert "queues" in facts["rules_without_data"]["accept-queue-full"]
    assert facts["listeners"][0]["accept_queue"] == {"depth": None, "limit": None}
    assert facts["listeners"][0]["syn_queue"] == {"depth": 1, "limit": None}
    assert "incomplete: interrupted dump, no queues\n" in summary_text.as_text(
        small_host(kind="psutil", complete=False)
    )


def test_text() -> None:
    view = replace(small_host(), flow_totals=FLOWS)
    golden.check("summary.txt", summary_text.as_text(view, {"ActiveOpens": 2.0, "TW": 0.01, "ListenDrops": 0.0}))


def test_lifetimes_of_flows() -> None:
    nothing = replace(small_host(), flow_totals=FlowTotals(60.0, totals(p50_ms=None)))
    flows = summary_json.summary(nothing, {})["flows"]
    none = [*([bound, 0] for bound in DECADES), [None, 0]]
    figures = dict.fromkeys(("p50", "p90", "p99", "shortest", "longest"))
    assert flows["lifetime_ms"] == {**figures, "histogram": none} and flows["opened_per_s"] == 0.0
    assert list(flows["bytes"]) == ["p50", "p90", "p99", "smallest", "largest", "histogram"]
    assert flows["bytes"]["largest"] is None and flows["by_service"] == flows["by_process"] == []
    words = "flows  opened 0/s  ended 0/s  lifetime p50 –  p90 –  p99 –  shortest –  longest –\n"
    assert words in summary_text.as_text(nothing, {}, 120)
    exact = replace(small_host(), flow_totals=FlowTotals(60.0, totals(exact=1.0)))
    few = "flows  opened 61/s  ended 60/s  lifetime p50 12 ms  p90 336 ms  p99 1.2 s"
    extremes = "shortest 100 µs  longest 4.1 s"
    assert f"{few}\n{' ' * few.index('p50')}{extremes}\n" in summary_text.as_text(exact, {})
    assert f"{few}  {extremes}\n" in summary_text.as_text(exact, {}, 120)
    assert "flows" not in summary_text.as_text(exact) and summary_json.summary(exact)["flows"] is None, "after one poll"
    assert (
        "flows" not in summary_text.as_text(small_host(), {})
        and summary_json.summary(small_host(), {})["flows"] is None
    )


def test_flows_without_a_name() -> None:
    flows = summary_json.summary(replace(small_host(), flow_totals=FLOWS), {})["flows"]
    assert [process["name"] for process in flows["by_process"]] == ["nginx[1234]", "[@click=app.quit]x[/][802]", None]
    assert list(flows["by_service"][0]) == ["name", "opened_per_s", "ended_per_s", "lifetime_ms", "bytes", "exact"]


def test_text_after_one_poll_has_no_rates() -> None:
    assert "per second" not in summary_text.as_text(small_host())
    assert summary_text.as_text(small_host(), {"TW": 0.0}).endswith("Counters, per second\n  none\n")


def test_colour_does_not_change_the_text() -> None:
    plain, coloured = summary_text.as_text(small_host(), {}), summary_text.as_text(small_host(), {}, colour=True)
    assert ESCAPE.sub("", coloured) == plain
    assert "\x1b[31m       512 of 511\x1b[0m" in coloured, "a full queue"


def test_widths() -> None:
    view = make_view(
        sock("LISTEN", "[2001:db8:1111:2222:3333:4444:5555:6666]:65535", process="a" * 15, pid=4_000_000),
        sock("LISTEN", "127.0.0.1:1", process="b", pid=1),
    )
    for width in (80, 100, 200):
        assert max(map(len, summary_text.as_text(view, {}, width).splitlines())) <= width
    assert summary_text.as_text(view, {}, 20), "too narrow is no failure"


def test_many_listeners() -> None:
    view = make_view(*[sock("LISTEN", f"127.0.0.1:{port}") for port in range(1, 100)])
    shown = summary_text.as_text(view)
    assert "  … and 79 more (--json has all of them)\n" in shown
    assert len(summary_json.summary(view)["listeners"]) == 99


def test_exact_numbers() -> None:
    view = replace(make_view(), time_wait=Gauge(2_000_000, 4_000_000))
    assert f"{units.count(2_000_000)} of {units.count(4_000_000)} (50 %)" in summary_text.as_text(view)
    assert "2,000,000 of 4,000,000 (50 %)" in summary_text.as_text(view, exact=True)


def test_time_is_utc() -> None:
    assert summary_json.rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert summary_json.rfc3339(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
