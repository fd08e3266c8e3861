"""flow_blocks: the facts of one connection as titled blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.columns.socket_values import why_unknown
from tcpwatch.model.lifecycle.ending import ORDERLY_ENDINGS, sentence
from tcpwatch.model.states import Closer, Role, State
from tcpwatch.screens.flow.facts import FlowFacts
from tcpwatch.screens.flow.graphs import graph_blocks
from tcpwatch.screens.flow.states import incident_blocks, states_block
from tcpwatch.screens.flow.tcp_info import info_sections
from tcpwatch.screens.shared.moments import began_earlier, elapsed_text
from tcpwatch.screens.shared.state_marks import phase_style
from tcpwatch.widgets.blocks import Block, block_of
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section

_ROLES = {
    Role.UNKNOWN: units.UNKNOWN,
    Role.CLIENT: "client: this end opened the connection",
    Role.SERVER: "server: the other end opened the connection",
    Role.LISTENER: "listener: waits for connections",
}
_CLOSERS = {
    Closer.UNKNOWN: units.UNKNOWN,
    Closer.LOCAL: "this end first (active close)",
    Closer.PEER: "the other end first (passive close)",
    Closer.BOTH: "both ends at the same time",
}


def headline(facts: FlowFacts, width: int | None = None) -> str:
    """Return one line: local and remote address, an arrow from client to server, and the state or how it ended.

    Addresses that do not fit in `width` cells are cut in the middle.
    """
    role = Role(int(facts.row.role[0]))
    arrow = {Role.CLIENT: "→", Role.SERVER: "←"}.get(role, "·")
    ends = [facts.cell("local", True)]
    if facts.row.table["idiag_dport"][0]:
        ends.append(facts.cell("remote", True))
    state = _state_text(facts)
    if width is not None:
        room = max(8, (width - len(state) - 2 - 3 * (len(ends) - 1)) // len(ends))
        spare = sum(max(0, room - len(end)) for end in ends)
        ends = [units.shortened(end, room + spare) for end in ends]
    return f"{f' {arrow} '.join(ends)}  {state}"


def _state_text(facts: FlowFacts) -> str:
    """Return `ESTABLISHED`, `TIME_WAIT, closed by us`, `closed by us`, or `closed, was ESTABLISHED`."""
    ending = facts.ending.text if facts.ending else ""
    if facts.ended_at is None:
        return f"{facts.state.name}, {ending}" if ending else facts.state.name
    return ending or f"closed, was {facts.state.name}"


def flow_blocks(facts: FlowFacts, now: float, colours: Palette, exact: bool = False) -> list[Block]:
    """Return all blocks, the most important first; `now` is the time of the last sample."""
    graph, live = facts.graph, facts.ended_at is None
    return [
        block_of(Section("Connection", list(_connection(facts, now, colours, exact)))),
        states_block(facts.history, now, facts.no_trace, facts.has_detail),
        *incident_blocks(facts.history, facts.trace),
        *(graph_blocks(graph, facts.state, live, exact) if graph else ()),
        block_of(Section("Owner", list(_owner(facts)))),
        block_of(Section("Queues and timer", list(_queues(facts, colours, exact)))),
        block_of(Section("Socket", list(_socket(facts, exact)))),
        *map(block_of, _info(facts, now, exact)),
    ]


def _connection(facts: FlowFacts, now: float, colours: Palette, exact: bool) -> Iterator[Entry]:
    state, description = facts.state, facts.state.facts
    if facts.ending is not None:
        style = colours.strong if facts.ending in ORDERLY_ENDINGS else colours.warning
        yield Entry("", sentence(facts.ending, facts.last_full_state), style)
    if facts.ended_at is not None:
        closed = f"Closed {units.duration(now - facts.ended_at)} ago; last known values:"
        yield Entry("", closed, colours.dim if facts.ending else colours.warning)
    yield Entry("local", facts.cell("local", exact))
    yield Entry("remote", facts.cell("remote", exact))
    yield Entry("role", _ROLES[Role(int(facts.row.role[0]))])
    yield Entry("state", state.name, phase_style(description.phase, colours), f"kernel {description.kernel}")
    if facts.ended_at is None:
        yield Entry("", description.meaning)
        if description.step:
            yield Entry("step", f"{description.step} of the {description.phase.value}")
        yield Entry("in this state", facts.cell("state_age").replace(">", "at least "))
        yield Entry("known for", facts.cell("age").replace(">", "at least "))
    elif facts.history.periods:
        first, last = facts.history.periods[0], facts.history.periods[-1]
        at_least = "at least " if began_earlier(first) else ""
        yield Entry("lifetime", at_least + elapsed_text(first.begin, last.end, facts.ended_at))
    if facts.ending is None:
        yield Entry("closed by", _CLOSERS[Closer(int(facts.row.closer[0]))])


def _owner(facts: FlowFacts) -> Iterator[Entry]:
    code = int(facts.row.owner[0])
    if code < 0:
        yield Entry("process", why_unknown(code, facts.ended_at is not None))
    else:
        owner = facts.row.owners[code]
        for at, process in enumerate(owner.processes):
            yield from _process(process, holding(owner, at, facts.state))
    if facts.cell("uid") == units.UNKNOWN:
        yield Entry("socket user", units.UNKNOWN)
    else:
        yield Entry("socket user", f"{facts.cell('user_or_uid')} ({facts.cell('uid')})")


def holding(owner: Owner, at: int, state: State | None) -> str:
    """Return how a process is connected with the socket."""
    if owner.accepting is None:
        return "last held by" if state is State.TIME_WAIT else "process"
    if state is not State.LISTEN:
        return "one of"
    return "accepted by" if at < len(owner.acceptors) else "held by"


def _process(process: Process, label: str) -> Iterator[Entry]:
    yield Entry(label, process.label)
    yield Entry("command", process.command or units.UNKNOWN)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.started_unix_s))
    yield Entry("runs as", f"{process.user} ({process.uid}), since {started}")


def _queues(facts: FlowFacts, colours: Palette, exact: bool) -> Iterator[Entry]:
    receive, send = (int(facts.row.table[name][0]) for name in ("idiag_rqueue", "idiag_wqueue"))
    if not facts.capabilities.queues:
        yield Entry("queues", units.UNKNOWN)
    elif facts.state is State.LISTEN:
        full = receive > send
        yield Entry("accept queue", f"{receive:,} of {send:,} waiting for accept()", colours.alarm if full else None)
    else:
        yield Entry("receive queue", f"{units.byte_size(receive, exact)} not read by the application")
        yield Entry("send queue", f"{units.byte_size(send, exact)} not acknowledged by the peer")
        yield Entry("throughput", _throughput(facts, exact))
    yield Entry("timer", facts.cell("timers"))
    yield Entry("retransmits", facts.cell("retransmits"))


def _throughput(facts: FlowFacts, exact: bool) -> str:
    """Return `rx 98 kB/s, tx 1.21 MB/s, limited by receiver`, between the last two polls with tcp_info."""
    if facts.value("rx_bytes_per_s") is None:
        return units.UNKNOWN
    received, sent = (units.byte_rate(facts.value(f"{direction}_bytes_per_s"), exact) for direction in ("rx", "tx"))
    limit = facts.value("limited_by")
    return f"rx {received}, tx {sent}" + (f", limited by {limit}" if limit else "")


def _socket(facts: FlowFacts, exact: bool) -> Iterator[Entry]:
    for label, key in (
        ("shut down", "shutdown"),
        ("interface", "interface"),
        ("cgroup", "cgroup_id"),
        ("inode", "inode"),
        ("cookie", "cookie"),
    ):
        yield Entry(label, facts.cell(key, exact))


def _info(facts: FlowFacts, now: float, exact: bool) -> list[Section]:
    if facts.tcp_info is None:
        why = "The kernel has none for this socket." if facts.detail_polled else "Expected with the next poll."
        return [Section("tcp_info", [Entry("", why)])]
    sections = info_sections(facts.tcp_info, exact)
    if facts.tcp_info_time is not None and now > facts.tcp_info_time:
        age = units.duration(now - facts.tcp_info_time)
        sections.insert(0, Section("tcp_info", [Entry("", f"Values of {age} ago; newer ones are not available.")]))
    return sections
