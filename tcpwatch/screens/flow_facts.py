"""What the flow screen says of a flow, as sections of labelled facts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tcpwatch import text
from tcpwatch.kernel.processes import Process
from tcpwatch.model.cells import WHY_UNKNOWN
from tcpwatch.model.columns import BY_KEY
from tcpwatch.model.rows import Rows
from tcpwatch.model.states import Closer, Role, State
from tcpwatch.model.transitions import Origin, Transition
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.sections import Entry, Section
from tcpwatch.widgets.tcp_info import info_sections

_ROLES = {
    Role.UNKNOWN: text.UNKNOWN,
    Role.CLIENT: "client: this host opened the connection",
    Role.SERVER: "server: the other end opened the connection",
    Role.LISTENER: "listener: waits for connections",
}
_CLOSERS = {
    Closer.UNKNOWN: text.UNKNOWN,
    Closer.LOCAL: "this end, first (active close)",
    Closer.PEER: "the other end, first (passive close)",
    Closer.BOTH: "both ends at once",
}
_ORIGINS = {Origin.POLL: "polled"}


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """The last that is known of a flow."""

    row: Rows
    """Of one row."""
    tcp_info: Mapping[str, int] | None = None
    info_time: float | None = None
    """Unix seconds of the sample that had `tcp_info`."""
    asked: bool = False
    """A poll was taken that looked for tcp_info."""
    transitions: tuple[Transition, ...] = ()
    gone: float | None = None
    """Unix seconds of the first sample without the flow."""
    untold: frozenset[str] = frozenset()
    """Keys of the columns that the source does not tell."""

    @property
    def state(self) -> State:
        """The last one."""
        return State(int(self.row.state[0]))

    def value(self, key: str) -> object:
        """A column's value."""
        return BY_KEY[key].values(self.row)[0]

    def cell(self, key: str, exact: bool = False) -> str:
        """A column's value as the table shows it; `–` for what is not known."""
        if key in self.untold:
            return text.UNKNOWN
        column = BY_KEY[key]
        return column.show(column.values(self.row)[0], exact) or text.UNKNOWN


def headline(facts: Facts) -> str:
    """One line: both ends, who called whom, and the state; a listener has one end."""
    role = Role(int(facts.row.role[0]))
    arrow = {Role.CLIENT: "→", Role.SERVER: "←"}.get(role, "·")
    state = f"closed, was {facts.state.name}" if facts.gone is not None else facts.state.name
    if not facts.row.table["idiag_dport"][0]:
        return f"{facts.cell('local', True)}  {state}"
    return f"{facts.cell('local', True)} {arrow} {facts.cell('remote', True)}  {state}"


def flow_sections(facts: Facts, now: float, colours: Palette, exact: bool = False) -> list[Section]:
    """Everything, in the order in which one asks for it; `now` is the time of the last sample."""
    return [
        Section("Connection", list(_connection(facts, now, colours, exact))),
        Section("States seen", list(_states(facts, now, colours))),
        Section("Owner", list(_owner(facts))),
        Section("Queues and timer", list(_queues(facts, colours, exact))),
        Section("Socket", list(_socket(facts, exact))),
        *_info(facts, now, exact),
    ]


def _connection(facts: Facts, now: float, colours: Palette, exact: bool) -> Iterator[Entry]:
    state = facts.state
    about = state.facts
    if facts.gone is not None:
        yield Entry("", f"Closed {text.duration(now - facts.gone)} ago; these are the last facts.", colours.warning)
    yield Entry("local", facts.cell("local", exact))
    yield Entry("remote", facts.cell("remote", exact))
    yield Entry("role", _ROLES[Role(int(facts.row.role[0]))])
    yield Entry("state", f"{state.name}  {about.zh}", colours.of_phase(about.phase), f"kernel {about.kernel}")
    yield Entry("", about.meaning)
    if about.step:
        yield Entry("step", f"{about.step} of the {about.phase.value}")
    yield Entry("in this state", facts.cell("state_age").replace(">", "at least "))
    yield Entry("known for", facts.cell("age").replace(">", "at least "))
    yield Entry("closed by", _CLOSERS[Closer(int(facts.row.closer[0]))])


def _states(facts: Facts, now: float, colours: Palette) -> Iterator[Entry]:
    """Each state with the clock time it was seen first and how long it lasted."""
    if not facts.transitions:
        state, since = facts.state, float(facts.row.since[0])
        least = "" if facts.row.born[0] or since > float(facts.row.first_seen[0]) else "at least "
        end = facts.gone if facts.gone is not None else now
        yield Entry(
            state.name, f"{_clock(since)}  {least}{text.duration(end - since)}", colours.of_phase(state.facts.phase)
        )
        yield Entry("", "No change of state was seen yet.", colours.dim)
        return
    first = facts.transitions[0]
    if first.old is not None:
        since = float(facts.row.first_seen[0])
        lasted = f"{_clock(since)}  at least {text.duration(first.time - since)}"
        yield Entry(first.old.name, lasted, colours.of_phase(first.old.facts.phase))
    ends = [*(t.time for t in facts.transitions[1:]), facts.gone if facts.gone is not None else now]
    for change, end in zip(facts.transitions, ends, strict=True):
        known = _ORIGINS[change.origin]
        if change.new is None:
            yield Entry("(gone)", _clock(change.time), colours.dim, known)
            continue
        lasted = f"{_clock(change.time)}  {text.duration(end - change.time)}"
        yield Entry(change.new.name, lasted, colours.of_phase(change.new.facts.phase), known)


def _clock(unix: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix)) + f".{int(unix * 10) % 10}"


def _owner(facts: Facts) -> Iterator[Entry]:
    code = int(facts.row.owner[0])
    if code < 0:
        yield Entry("process", WHY_UNKNOWN[code])
    else:
        for process in facts.row.owners[code].processes:
            yield from _process(process)
    if facts.cell("uid") == text.UNKNOWN:
        yield Entry("socket's user", text.UNKNOWN)
    else:
        yield Entry("socket's user", f"{facts.cell('user_or_uid')} ({facts.cell('uid')})")


def _process(process: Process) -> Iterator[Entry]:
    yield Entry("process", f"{process.name}[{process.pid}]")
    yield Entry("command", process.command or text.UNKNOWN)
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.started))
    yield Entry("runs as", f"{process.user} ({process.uid}), since {started}")


def _queues(facts: Facts, colours: Palette, exact: bool) -> Iterator[Entry]:
    receive, send = (int(facts.row.table[name][0]) for name in ("idiag_rqueue", "idiag_wqueue"))
    if "recv_queue" in facts.untold:
        yield Entry("queues", text.UNKNOWN)
    elif facts.state is State.LISTEN:
        full = receive > send
        yield Entry("accept queue", f"{receive:,} of {send:,} wait to be accepted", colours.alarm if full else None)
    else:
        yield Entry("receive queue", f"{text.size(receive, exact)} bytes not read by the application")
        yield Entry("send queue", f"{text.size(send, exact)} bytes not acknowledged by the peer")
        yield Entry("throughput", _throughput(facts, exact))
    yield Entry("timer", facts.cell("timers"))
    yield Entry("retransmits", facts.cell("retransmits"))


def _throughput(facts: Facts, exact: bool) -> str:
    """`rx 98 kB/s, tx 1.21 MB/s, limited by receiver`, between the last two times that all were asked."""
    if facts.value("rx_bytes_per_s") is None:
        return text.UNKNOWN
    received, sent = (_per_second(facts.cell(f"{way}_bytes_per_s", exact)) for way in ("rx", "tx"))
    limit = facts.value("limited_by")
    return f"rx {received}, tx {sent}" + (f", limited by {limit}" if limit else "")


def _per_second(size: str) -> str:
    return f"{size} B/s" if size[-1].isdigit() else f"{size}B/s"


def _socket(facts: Facts, exact: bool) -> Iterator[Entry]:
    for label, key in (
        ("shut down", "shutdown"),
        ("interface", "interface"),
        ("cgroup", "cgroup_id"),
        ("inode", "inode"),
        ("cookie", "cookie"),
    ):
        yield Entry(label, facts.cell(key, exact))


def _info(facts: Facts, now: float, exact: bool) -> list[Section]:
    if facts.tcp_info is None:
        why = "the kernel tells none for this socket" if facts.asked else "comes with the next poll"
        return [Section("tcp_info", [Entry("", f"tcp_info: {why}.")])]
    sections = info_sections(facts.tcp_info, exact)
    if facts.info_time is not None and now > facts.info_time:
        old = Entry("", f"tcp_info as it was {text.duration(now - facts.info_time)} ago; the kernel tells no more.")
        sections.insert(0, Section("tcp_info", [old]))
    return sections
