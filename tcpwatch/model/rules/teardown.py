"""Rules about connections that close badly: `time-wait-buildup`, `close-wait-leak`, `half-closed`, `orphans`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.teardown import CloseWaits, HalfClosed, SocketHolder
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.rules.subjects import program_subject
from tcpwatch.model.sockets.programs import Program
from tcpwatch.model.states import State
from tcpwatch.model.view import View


@rule("time-wait-buildup", rank=70, needs=("tcp_max_tw_buckets", "TCPTimeWaitOverflow"))
def time_wait_buildup(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """TIME_WAIT sockets reach the host's limit.

    Warning: they are above 80 % of tcp_max_tw_buckets.
    Critical: the limit is reached, and the kernel closes sockets without TIME_WAIT.
    Source: inet_twsk_alloc and tcp_time_wait (net/ipv4), ip-sysctl.rst (tcp_max_tw_buckets).
    """
    if view.rates.get("TCPTimeWaitOverflow", 0) > 0:
        yield Candidate(_time_wait_finding(view, Severity.CRITICAL), Severity.CRITICAL)
    elif (view.time_wait.share or 0) > limits.time_wait_share:
        yield Candidate(_time_wait_finding(view, Severity.WARNING))


def _time_wait_finding(view: View, severity: Severity) -> Finding:
    summary, gauge, overflow = view.teardown.time_wait, view.time_wait, view.rates.get("TCPTimeWaitOverflow")
    headline = f"{units.count(gauge.value)} of {units.count(gauge.limit)} TIME_WAIT"
    if overflow:
        headline += f", {units.rate(overflow)}/s closed without it"
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        f"{headline}; {units.count(summary.server)} on the server side, {units.count(summary.client)} on the client "
        "side",
        {
            "time_wait": Figure(gauge.value, "sockets"),
            "tcp_max_tw_buckets": Figure(gauge.limit, "sockets"),
            "of_servers": Figure(summary.server, "sockets"),
            "of_clients": Figure(summary.client, "sockets"),
            "entered": Figure(summary.entered_per_s, "sockets/s"),
            "left": Figure(summary.left_per_s, "sockets/s"),
            "ending_in_10_s": Figure(sum(summary.ending_by_second[:10]), "sockets"),
            "closed_without": Figure(overflow, "sockets/s"),
        },
        "The side that closes first stays in TIME_WAIT for 60 s, so that delayed segments do not reach a new "
        "connection. On the server side this costs only memory, on the client side one port each.",
        ("Let the client close first, or keep connections open (keep-alive, a connection pool) instead of opening one "
         "for each request.",
         "net.ipv4.tcp_max_tw_buckets sets the limit; tcp_fin_timeout does not shorten TIME_WAIT."),
        "state:time-wait",
    )  # fmt: skip


@rule("close-wait-leak", rank=60, needs=("queues", "inodes", "tcp_info"))
def close_wait_leak(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A program does not close connections that its peers have closed.

    Warning: its processes have 20 CLOSE_WAIT sockets older than 60 s; or a listener or a user has, whose programs are
        unknown or have fewer each.
    Critical: in addition, their number grew in each of the last five minutes, or is 50 % of a process's file
        descriptor limit.
    Source: RFC 9293, section 3.6; getrlimit(2) (RLIMIT_NOFILE).
    """
    for waits in (*view.teardown.close_wait, *view.teardown.close_wait_spread):
        if waits.old >= limits.close_wait_count:
            critical = waits.growing or waits.share >= limits.close_wait_descriptors_share
            yield Candidate(_close_wait_finding(waits, Severity.CRITICAL if critical else Severity.WARNING))


def _subject(holder: SocketHolder) -> FindingSubject:
    if isinstance(holder, ListenerKey):
        return FindingSubject("listener", ListenerSubject(holder))
    if not isinstance(holder, Program):
        return FindingSubject("user", str(holder))
    return program_subject(holder)


def _processes(pids: Sequence[int]) -> str:
    """Return ` in 3 processes`; empty for one process."""
    return f" in {units.plural(len(pids), 'process', 'processes')}" if len(pids) > 1 else ""


def _owner_unknown(number: int, count: int, why: int) -> str:
    """Return how many of the sockets have an unknown owner, and why; empty if none has."""
    if not number:
        return ""
    some = "" if number == count else f" of {units.count(number)}"
    return f", owner{some} unknown: {WHY_UNKNOWN[why].removeprefix('unknown: ')}"


def _close_wait_finding(waits: CloseWaits, severity: Severity) -> Finding:
    kinds = {"EOF seen": waits.eof_seen, "EOF pending": waits.eof_pending, "data pending": waits.data_pending}
    present = {kind: number for kind, number in kinds.items() if number}
    if len(present) == 1:
        detail = f"; application {_CLOSE_WAIT_APPLICATION[next(iter(present))]}"
    else:
        parts = ", ".join(f"{units.count(number)} {kind}" for kind, number in present.items())
        detail = f" ({parts})" if parts else ""
    most = max(present, key=lambda kind: present[kind], default="")
    why = _CLOSE_WAIT_WHY.get(most, _CLOSE_WAIT_WHY_UNKNOWN)
    processes = _processes(waits.pids)
    share = f", {'at most ' * bool(processes)}{units.share(waits.share)} of fd limit" if waits.limit else ""
    owner = _owner_unknown(waits.hidden, waits.count, waits.why_hidden)
    return Finding(
        severity,
        _subject(waits.holder),
        f"{units.count(waits.count)} CLOSE_WAIT{processes}{detail}, oldest {units.duration(waits.oldest_s)}{share}"
        f"{owner}",
        {
            "close_wait": Figure(waits.count, "sockets"),
            "never_closed": Figure(waits.eof_seen, "sockets"),
            "end_not_read": Figure(waits.eof_pending, "sockets"),
            "data_unread": Figure(waits.data_pending, "sockets"),
            "old": Figure(waits.old, "sockets"),
            "oldest": Figure(waits.oldest_s, "s"),
            "processes": Figure(len(waits.pids) or None, "processes"),
            "owner_unknown": Figure(waits.hidden, "sockets"),
            "descriptor_limit": Figure(waits.limit, "descriptors"),
            "growing": Figure("yes" if waits.growing else "no"),
        },
        why,
        _close_wait_advice(waits, most),
        waits.filter,
    )


def _close_wait_advice(waits: CloseWaits, most: str) -> tuple[str, ...]:
    cause = (
        "Look for a code path without close(), often after an error."
        if most == "EOF seen"
        else "Check what keeps the application from reading: a lock, a slow backend, all threads busy."
    )
    many = len(waits.pids) > 1
    restart = f"Restart the process{'es' * many} to free the sockets"
    if waits.growing:
        restart += f"; otherwise {'they' if many else 'it'} will run out of file descriptors"
    return f"No kernel setting helps: only the application can end CLOSE_WAIT. {cause}", f"{restart}."


_CLOSE_WAIT_APPLICATION = {
    "EOF seen": "read EOF but has not closed",
    "EOF pending": "has not read EOF",
    "data pending": "has not read the data",
}
_CLOSE_WAIT_WHY_UNKNOWN = "The peers have closed, and the application has not."
_CLOSE_WAIT_WHY = {
    "EOF seen": "The peers have closed, and the application has read EOF but not called close(): it leaks sockets, or "
    "still sends.",
    "EOF pending": "The peers have closed, and the application does not read EOF: it is stuck, or waits for something "
    "else.",
    "data pending": "The peers have sent data and closed, and the application reads neither the data nor EOF: it is "
    "stuck, or overloaded.",
}


@rule("half-closed", rank=120, needs=("inodes", "tcp_info"))
def half_closed(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A program calls shutdown() but not close(), and its peers do not close either.

    Warning: one of its processes, or a user's process that is not visible, has held a socket in FIN_WAIT_2 for 5
        minutes.
    Source: RFC 9293, section 3.6; ip-sysctl.rst (tcp_fin_timeout).
    """
    for held in (*view.teardown.half_closed, *view.teardown.half_closed_hidden):
        if held.old:
            yield Candidate(_half_closed_finding(held))


def _half_closed_finding(held: HalfClosed) -> Finding:
    owner = "" if held.pids else _owner_unknown(held.count, held.count, held.why_hidden)
    return Finding(
        Severity.WARNING,
        _subject(held.holder),
        f"{units.count(held.count)} half-closed in FIN_WAIT_2{_processes(held.pids)}, oldest "
        f"{units.duration(held.oldest_s)}{owner}",
        {
            "fin_wait_2": Figure(held.count, "sockets"),
            "old": Figure(held.old, "sockets"),
            "oldest": Figure(held.oldest_s, "s"),
        },
        "The application has shut down its side and keeps the socket, and the peer has not closed. tcp_fin_timeout "
        "applies only after close(), so this may last forever.",
        ("If the application expects nothing more from the peer, it should call close(), not only shutdown().",),
        held.filter,
    )


@rule("orphans", rank=110, needs=("tcp_max_orphans", "TCP_orphan", "TCPAbortOnMemory"))
def orphans(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Peers do not acknowledge the FIN of sockets that the processes have closed.

    Warning: these orphans are above 25 % of tcp_max_orphans, as the kernel counts an idle one up to four times.
    Critical: they are above 50 %, or the kernel kills some.
    Source: tcp_check_oom (net/ipv4/tcp.c), tcp_out_of_resources (net/ipv4/tcp_timer.c), ip-sysctl.rst
        (tcp_max_orphans).
    """
    share = view.orphans.share or 0.0
    if view.rates.get("TCPAbortOnMemory", 0) > 0:
        yield Candidate(_orphans_finding(view, Severity.CRITICAL), Severity.CRITICAL)
    elif share > limits.orphans_share:
        critical = share > limits.orphans_critical_share
        yield Candidate(_orphans_finding(view, Severity.CRITICAL if critical else Severity.WARNING))


def _orphans_finding(view: View, severity: Severity) -> Finding:
    gauge, killed = view.orphans, view.rates.get("TCPAbortOnMemory")
    headline = f"{units.plural(gauge.value, 'orphan')}, {units.share(gauge.share)} of tcp_max_orphans"
    states = {state: view.teardown.orphaned[state] for state in (State.FIN_WAIT_1, State.LAST_ACK, State.CLOSING)}
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(killed)}/s killed" if killed else ""),
        {
            "orphans": Figure(gauge.value, "sockets"),
            "tcp_max_orphans": Figure(gauge.limit, "sockets"),
            **{state.name.lower(): Figure(number, "sockets") for state, number in states.items()},
            "killed_for_memory": Figure(killed, "sockets/s"),
        },
        "Processes have closed these sockets, and the peers do not acknowledge the FIN: they are unreachable, a "
        "firewall drops their packets, or they do not read the data before the FIN. The kernel keeps trying, and "
        "counts an idle orphan up to four times against the limit.",
        ("Check which peers are affected: the filter below lists the sockets. net.ipv4.tcp_orphan_retries shortens how "
         "long the kernel tries.",),
        "state:fin-wait-1,last-ack,closing inode:0",
    )  # fmt: skip
