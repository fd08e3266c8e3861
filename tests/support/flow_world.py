"""A simulated host: connections, and what polls, destroy events and the trace report of them.

Times are seconds from 0. The model's results can be compared with the simulated connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.kernel.netlink.destroyed_sockets import DestroyedSockets
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEventKind, TraceEvents
from tcpwatch.model.states import State
from tcpwatch.sample import Sample
from tests.support.views import NOW, Sock, make_rows, make_sample, make_table, sock

S = State
PATHS: dict[str, tuple[State, ...]] = {
    "a client that closes": (S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.TIME_WAIT),
    "a client that is left": (S.SYN_SENT, S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK),
    "a server that closes": (S.SYN_RCVD, S.ESTABLISHED, S.FIN_WAIT_1, S.FIN_WAIT_2, S.TIME_WAIT),
    "a server that is left": (S.SYN_RCVD, S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK),
    "both at once": (S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT_1, S.CLOSING, S.TIME_WAIT),
    "a reset": (S.SYN_SENT, S.ESTABLISHED),
}
SOCKET = 0xFFFF_8880_0000_0000


@dataclass(frozen=True, slots=True)
class Flow:
    """One simulated connection."""

    cookie: int
    path: str
    times: tuple[float, ...]
    """When each state began, and when the last one ended."""
    held_s: float = 0.0
    """Time for which the application keeps the socket after TCP closed it."""
    foreign: bool = False
    """It is in another namespace: only the trace reports it."""
    address: int = 0
    """Kernel address of its socket; 0: one of its own."""
    polls: tuple[float, ...] = ()
    """Times of the polls: a connection that no poll saw before TIME_WAIT gets a second cookie."""

    @property
    def states(self) -> tuple[State, ...]:
        return PATHS[self.path]

    @property
    def full_end(self) -> float:
        """When the full socket went to CLOSE."""
        return self.times[-2] if self.states[-1] is S.TIME_WAIT else self.times[-1]

    @property
    def cookie_in_the_end(self) -> int:
        """The cookie of its last socket."""
        asked = any(self.times[0] <= poll < self.full_end for poll in self.polls)
        return self.cookie if asked or self.states[-1] is not S.TIME_WAIT else self.cookie + 1_000_000

    @property
    def server(self) -> bool:
        return self.states[0] is S.SYN_RCVD

    def state(self, time: float) -> State | None:
        """The state in a poll at this time."""
        if self.foreign:
            return None
        for state, begin, end in zip(self.states, self.times, self.times[1:], strict=False):
            if begin <= time < end:
                return state
        return None

    def sock(self, state: State, time: float = 0.0) -> Sock:
        small = state is S.TIME_WAIT or (state is S.SYN_RCVD and self.server)
        port = 80 if self.server else 10_000 + self.cookie % 50_000
        far = 10_000 + self.cookie % 50_000 if self.server else 443
        cookie = self.cookie_in_the_end if state is S.TIME_WAIT else self.cookie
        left_s = 60.0 - (time - self.times[-2]) if state is S.TIME_WAIT else 0.0
        ends = f"10.0.0.1:{port}", f"10.0.0.2:{far}"
        return sock(state, *ends, cookie=cookie, inode=0 if small else 7, timer="timewait", timer_s=left_s)


LISTENER = sock("LISTEN", "0.0.0.0:80", cookie=1, inode=5, process="httpd", pid=12)


def traced(flows: Sequence[Flow], begin: float, end: float) -> TraceEvents:
    """Build the trace events between two times."""
    events = [event for flow in flows for event in _events(flow) if begin <= event[0] < end]
    events.sort(key=lambda event: event[0])
    table = np.zeros(len(events), TRACE_EVENT)
    for row, (time, kind, flow, old, new) in zip(table, events, strict=True):
        ends = make_table([flow.sock(S.ESTABLISHED)])[0]
        row["time"], row["kind"], row["old"], row["new"] = 1000.0 + time, kind, old, new
        row["socket"], row["family"] = flow.address or SOCKET + 64 * flow.cookie, uapi.AF_INET
        row["src"], row["dst"] = ends["idiag_src"], ends["idiag_dst"]
        row["sport"], row["dport"] = 0 if (old, new) == (7, 2) else ends["idiag_sport"], ends["idiag_dport"]
        row["cookie"] = flow.cookie if kind == TraceEventKind.DESTROYED else 0
    return TraceEvents(table)


def _events(flow: Flow) -> list[tuple[float, TraceEventKind, Flow, int, int]]:
    events: list[tuple[float, TraceEventKind, Flow, int, int]] = []
    old, states = (S.LISTEN if flow.server else S.CLOSED), list(zip(flow.states, flow.times, strict=False))
    for place, (state, time) in enumerate(states):
        if state is S.TIME_WAIT:
            break
        if state is S.SYN_RCVD:  # a request socket: its first trace event comes with the last ACK
            time = states[place + 1][1]
        events.append((time, TraceEventKind.STATE, flow, old, state))
        old = state
    if flow.path == "a reset":
        events.append((flow.full_end, TraceEventKind.RESET_RECEIVED, flow, old, old))
    events.append((flow.full_end, TraceEventKind.STATE, flow, old, S.CLOSED))
    events.append((flow.full_end + flow.held_s, TraceEventKind.DESTROYED, flow, 0, 0))
    return events


def destroyed(flows: Sequence[Flow], begin: float, end: float) -> DestroyedSockets:
    """Build the destroy events between two times; they come 2 ms late."""
    ended = sorted(
        (flow.full_end + flow.held_s + 0.002, flow.cookie, flow)
        for flow in flows
        if not flow.foreign and begin <= flow.full_end + flow.held_s + 0.002 < end
    )
    table = make_table([flow.sock(S.CLOSED) for _, _, flow in ended]).copy()
    infos = np.zeros(len(ended), uapi.TCP_INFO)
    infos["tcpi_bytes_sent"] = 100
    fins = np.array([flow.path != "a reset" for _, _, flow in ended], np.int64)
    client = np.array([not flow.server for _, _, flow in ended], np.int64)
    infos["tcpi_bytes_acked"] = 100 + fins + client
    infos["tcpi_bytes_received"] = fins  # the peer's FIN counts too
    when = 1000.0 + np.array([time for time, *_ in ended], np.float64)
    return DestroyedSockets(table, infos, when, uapi.TCP_INFO.itemsize)


def sample(flows: Sequence[Flow], time: float, before: float, trace: bool = True, events: bool = True) -> Sample:
    """Build a poll at this time, with the events since the one before."""
    rows = [LISTENER]
    rows += [flow.sock(state, time) for flow in flows if (state := flow.state(time)) is not None]
    made = make_sample(make_rows(rows, time=NOW + time))
    return replace(
        made,
        begin_monotonic_s=1000.0 + time,
        destroyed=destroyed(flows, before, time) if events else None,
        trace_events=traced(flows, before, time) if trace else None,
    )
