"""Port scans, found by the resets that no socket sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.analyses.port_scans import _KEPT, EXAMPLES, MAX_SCANS, PortScan, PortScanAnalysis
from tcpwatch.model.states import State
from tests.support.polls import first_poll
from tests.support.views import make_rows, make_sample, make_table, sock

HERE, SCANNER = "10.0.0.1", "192.0.2.9"
NO_SOCKET, ON_CLOSE = 1, 11
REASONS = {NO_SOCKET: "NO_SOCKET", ON_CLOSE: "TCP_ABORT_ON_CLOSE"}
TABLE = make_table([sock("LISTEN", "0.0.0.0:22"), sock("ESTAB", "10.0.0.1:22", "198.51.100.1:4000")])


class Event(NamedTuple):
    """One event of the trace; a reset to the scanner by default."""

    sport: int
    dst: str = SCANNER
    dport: int = 40_000
    src: str = HERE
    kind: TraceEventKind = TraceEventKind.RESET_SENT
    socket: int = 0
    reason: int = NO_SOCKET
    old: int = 0
    new: int = 0


def traced(*events: Event, reasons: dict[int, str] | None = None) -> TraceEvents:
    rows = np.zeros(len(events), TRACE_EVENT)
    for row, event in zip(rows, events, strict=True):
        for name, text in (("src", event.src), ("dst", event.dst)):
            address = ipaddress.ip_address(text)
            row[name] = np.frombuffer(address.packed.ljust(16, b"\0"), np.uint8)
            row["family"] = uapi.AF_INET if address.version == 4 else uapi.AF_INET6
        for name in ("sport", "dport", "kind", "socket", "reason", "old", "new"):
            row[name] = getattr(event, name)
    return TraceEvents(rows, reset_reasons=REASONS if reasons is None else reasons)


def resets(ports: Iterable[int], **more: object) -> list[Event]:
    return [Event(port, **more) for port in ports]  # type: ignore[arg-type]


def step(
    scans: PortScanAnalysis, second: float, traced: TraceEvents | None, table: NDArray[np.void]
) -> tuple[PortScan, ...]:
    sample = make_sample(make_rows([]), monotonic=second, trace_events=traced, table=table)
    return scans.step(first_poll(make_sample(make_rows([])), sample=sample))


def scans_after(*steps: list[Event], seconds: float = 1.0) -> tuple[PortScan, ...]:
    """Return the scans after the last of these steps."""
    scans = PortScanAnalysis()
    return [step(scans, at * seconds, traced(*events), TABLE) for at, events in enumerate(steps)][-1]


def test_a_scan() -> None:
    (scan,) = scans_after(resets(range(100, 130)), resets(range(110, 140)))
    assert scan == PortScan(SCANNER, 40, 60, 10.0, tuple(range(100, 100 + EXAMPLES)), in_namespace=True)


OTHERS = {
    "one port": resets([80] * 100),
    "a socket's own": resets(range(100, 130), socket=7),
    "another reason": resets(range(100, 130), reason=ON_CLOSE),
    "received": resets(range(100, 130), kind=TraceEventKind.RESET_RECEIVED),
    "each from another source": [Event(port, f"192.0.2.{port}") for port in range(30)],
    "none": [],
}


@pytest.mark.parametrize("events", OTHERS.values(), ids=OTHERS)
def test_what_is_no_scan(events: list[Event]) -> None:
    assert scans_after(events) == ()


def test_a_kernel_that_gives_no_reason() -> None:
    events = traced(*resets(range(30), reason=0), reasons={})
    assert [scan.ports for scan in step(PortScanAnalysis(), 0.0, events, TABLE)] == [30]


def test_late_segments_of_connections_that_we_had_are_none() -> None:
    """A client that resets many connections to one service meets the rest of their data at as many of its own ports."""
    opened = [Event(0, dport=5432, kind=TraceEventKind.STATE, socket=9, old=State.CLOSED, new=State.SYN_SENT)]
    ended = [Event(9, dport=5432, kind=TraceEventKind.STATE, socket=9, old=State.ESTABLISHED, new=State.CLOSED)]
    late = resets(range(40_000, 40_100), dport=5432)
    assert scans_after(opened, late) == scans_after(ended, late) == scans_after([*ended, *late]) == ()
    assert [scan.ports for scan in scans_after(late)] == [100]
    assert scans_after(opened, *[[Event(1)]] * 70, late, seconds=10.0)[0].ports == 100, "long ago"


def test_many_connections_are_remembered_for_ten_minutes() -> None:
    def opened(dport: int) -> Event:
        return Event(0, dport=dport, kind=TraceEventKind.STATE, socket=9, old=State.CLOSED, new=State.SYN_SENT)

    late = [reset for dport in (80, 443, 5432) for reset in resets(range(dport, dport + 9), dport=dport)]
    begin = [opened(80), opened(443), opened(5432)]
    assert scans_after(begin, late) == ()
    assert scans_after(begin, late, seconds=599.9) == ()
    assert [scan.ports for scan in scans_after(begin, late, seconds=600.0)] == [27]
    later = [Event(0, dport=80, kind=TraceEventKind.STATE, socket=9, old=State.SYN_SENT, new=State.ESTABLISHED)]
    assert [scan.ports for scan in scans_after(later, late)] == [27], "neither its beginning nor its end"
    assert scans_after([opened(80)], [], [opened(80)], resets(range(9), dport=80), seconds=300.0) == (), "used again"


def test_two_ports_make_a_scan() -> None:
    assert [scan.ports for scan in scans_after(resets([1, 2]))] == [2]
    assert scans_after(resets([1])) == ()


def test_examples_are_the_lowest_ports() -> None:
    assert scans_after(resets([9, 5, 7]))[0].examples == (5, 7, 9)
    both = [*resets([9, 5, 7]), *resets(range(100, 120), dst="192.0.2.10")]
    assert {scan.source: scan.examples for scan in scans_after(both)} == {
        SCANNER: (5, 7, 9), "192.0.2.10": tuple(range(100, 108)),
    }  # fmt: skip


def test_ten_seconds() -> None:
    assert scans_after(resets([1, 2]), resets([3]), *[[]] * 8) == scans_after(resets([1, 2]), resets([3]))
    assert scans_after(resets([1, 2]), resets([3, 4]), *[[]] * 9)[0].examples == (3, 4)
    assert scans_after(resets([1, 2]), *[[]] * 10) == ()
    scans = PortScanAnalysis()
    step(scans, 0.0, traced(*resets([1, 2])), TABLE)
    assert step(scans, 1.0, None, TABLE)[0].ports == 2, "also when the trace stops"


def test_the_busiest_first_and_not_too_many() -> None:
    events = [Event(port, f"192.0.2.{at}") for at in range(MAX_SCANS + 5) for port in range(2 + at)]
    found = scans_after(events)
    assert len(found) == MAX_SCANS
    assert [scan.ports for scan in found] == list(range(MAX_SCANS + 6, 6, -1))


WHERE = {
    "an address of ours": (HERE, SCANNER, True),
    "one that no socket has": ("10.9.9.9", SCANNER, False),
    "loopback, which every namespace has": ("127.0.0.1", "127.0.0.1", False),
    "IPv6 loopback": ("::1", "::1", False),
    "IPv6 of ours": ("2001:db8::1", "2001:db8::9", True),
    "IPv4 in IPv6 of ours": ("10.0.0.7", SCANNER, True),
    "IPv6 that no socket has": ("2001:db8::2", "2001:db8::9", False),
}


@pytest.mark.parametrize(("src", "dst", "here"), WHERE.values(), ids=WHERE)
def test_whose_resets(src: str, dst: str, here: bool) -> None:
    table = make_table([
        sock("LISTEN", "0.0.0.0:22"), sock("ESTAB", "127.0.0.1:22", "127.0.0.1:9"), sock("ESTAB", "10.0.0.1:22"),
        sock("ESTAB", "10.0.0.7:22", "10.0.0.8:1", mapped=True), sock("LISTEN", "[2001:db8::1]:22", "[::]:0"),
    ])  # fmt: skip
    scans = PortScanAnalysis()
    (scan,) = step(scans, 0.0, traced(*resets(range(30), src=src, dst=dst)), table)
    assert (scan.source, scan.in_namespace) == (dst, here)
    (scan,) = step(scans, 1.0, traced(), TABLE[:0])
    assert scan.in_namespace is here, "it is remembered"


def test_ipv4_is_ipv4_however_it_came() -> None:
    (scan,) = scans_after([*resets([1]), *resets([2], dst=f"::ffff:{SCANNER}", src=f"::ffff:{HERE}")])
    assert (scan.source, scan.ports) == (SCANNER, 2)


def test_a_flood_with_forged_sources_hides_no_scan_and_fills_no_memory() -> None:
    scans = PortScanAnalysis()
    random = np.random.default_rng(1)
    for at in range(5):
        flood = np.zeros(100_000, TRACE_EVENT)
        flood["kind"], flood["family"], flood["reason"] = TraceEventKind.RESET_SENT, uapi.AF_INET, NO_SOCKET
        flood["dst"][:, :4] = random.integers(0, 256, (len(flood), 4))
        flood["sport"] = 80
        scan = traced(*resets(range(10 * at, 10 * at + 10)))
        events = TraceEvents(np.concatenate((flood, scan.events)), reset_reasons=REASONS)
        found = step(scans, float(at), events, TABLE)
        assert scans._size <= _KEPT
    assert (found[0].source, found[0].ports >= 20) == (SCANNER, True)


def test_connections_without_end_fill_no_memory() -> None:
    scans = PortScanAnalysis()
    for at in range(3):
        flows = np.zeros(60_000, TRACE_EVENT)
        flows["kind"], flows["family"], flows["new"] = TraceEventKind.STATE, uapi.AF_INET, State.CLOSED
        flows["dst"][:, 0], flows["dport"] = at, np.arange(len(flows))
        step(scans, float(at), TraceEvents(flows), TABLE)
    assert len(scans._connected._numbers) == len(scans._connected._times) == 1 << 17
