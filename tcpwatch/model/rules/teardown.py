"""Rules about connections that close badly: `time-wait-buildup`, `close-wait-leak`, `half-closed`, `orphans`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.teardown import ProcessCloseWaits, ProcessHalfClosed
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.states import State
from tcpwatch.model.view import View


@rule("time-wait-buildup", rank=70)
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
        "time-wait-buildup",
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


@rule("close-wait-leak", rank=60)
def close_wait_leak(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A process does not close connections that its peers have closed.

    Warning: it has 20 CLOSE_WAIT sockets older than 60 s.
    Critical: in addition, their number grew in each of the last five minutes, or is 50 % of the process's file
        descriptor limit.
    Source: RFC 9293, section 3.6; getrlimit(2) (RLIMIT_NOFILE).
    """
    for process in view.teardown.close_wait:
        if process.old >= limits.close_wait_count:
            critical = process.growing or process.share >= limits.close_wait_descriptors_share
            yield Candidate(_close_wait_finding(process, Severity.CRITICAL if critical else Severity.WARNING))


def _close_wait_finding(process: ProcessCloseWaits, severity: Severity) -> Finding:
    kinds = {"EOF seen": process.eof_seen, "EOF pending": process.eof_pending, "data pending": process.data_pending}
    present = {kind: number for kind, number in kinds.items() if number}
    if len(present) == 1:
        detail = f"; application {_CLOSE_WAIT_APPLICATION[next(iter(present))]}"
    else:
        parts = ", ".join(f"{units.count(number)} {kind}" for kind, number in present.items())
        detail = f" ({parts})" if parts else ""
    why = _CLOSE_WAIT_WHY[max(present, key=lambda kind: present[kind])] if present else _CLOSE_WAIT_WHY_UNKNOWN
    share = f", {units.share(process.share)} of fd limit" if process.limit else ""
    return Finding(
        "close-wait-leak",
        severity,
        FindingSubject("process", process.process),
        f"{units.count(process.count)} CLOSE_WAIT{detail}, oldest {units.duration(process.oldest_s)}{share}",
        {
            "close_wait": Figure(process.count, "sockets"),
            "never_closed": Figure(process.eof_seen, "sockets"),
            "end_not_read": Figure(process.eof_pending, "sockets"),
            "data_unread": Figure(process.data_pending, "sockets"),
            "old": Figure(process.old, "sockets"),
            "oldest": Figure(process.oldest_s, "s"),
            "descriptor_limit": Figure(process.limit, "descriptors"),
            "growing": Figure("yes" if process.growing else "no"),
        },
        why,
        ("No kernel setting helps: only the application can end CLOSE_WAIT. Look for a code path that never calls "
         "close(), often after an error.",
         "Restart the process to free the sockets; otherwise it will run out of file descriptors."),
        f"state:close-wait pid:{process.owner.processes[0].pid}",
    )  # fmt: skip


_CLOSE_WAIT_APPLICATION = {
    "EOF seen": "read EOF but never closed",
    "EOF pending": "has not read EOF",
    "data pending": "has not read the data",
}
_CLOSE_WAIT_WHY_UNKNOWN = "The peers have closed, and the application has not."
_CLOSE_WAIT_WHY = {
    "EOF seen": "The peers have closed, and the application has read EOF but never calls close(): it leaks sockets.",
    "EOF pending": "The peers have closed, and the application does not read EOF: it is stuck, or waits for something "
    "else.",
    "data pending": "The peers have sent data and closed, and the application reads neither the data nor EOF: it is "
    "stuck, or overloaded.",
}


@rule("half-closed", rank=120)
def half_closed(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A process calls shutdown() but not close(), and its peers do not close either.

    Warning: it has held a socket in FIN_WAIT_2 for 5 minutes.
    Source: RFC 9293, section 3.6; ip-sysctl.rst (tcp_fin_timeout).
    """
    for process in view.teardown.half_closed:
        if process.old:
            yield Candidate(_half_closed_finding(process))


def _half_closed_finding(process: ProcessHalfClosed) -> Finding:
    return Finding(
        "half-closed",
        Severity.WARNING,
        FindingSubject("process", process.process),
        f"{units.count(process.count)} half-closed in FIN_WAIT_2, oldest {units.duration(process.oldest_s)}",
        {
            "fin_wait_2": Figure(process.count, "sockets"),
            "old": Figure(process.old, "sockets"),
            "oldest": Figure(process.oldest_s, "s"),
        },
        "The application has shut down its side and keeps the socket, and the peer has not closed. tcp_fin_timeout "
        "applies only after close(), so this may last forever.",
        ("If the application expects nothing more from the peer, it should call close(), not only shutdown().",),
        f"state:fin-wait-2 pid:{process.owner.processes[0].pid}",
    )


@rule("orphans", rank=110)
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
        "orphans",
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(killed)}/s killed" if killed else ""),
        {
            "orphans": Figure(gauge.value, "sockets"),
            "tcp_max_orphans": Figure(gauge.limit, "sockets"),
            **{state.name.lower(): Figure(number, "sockets") for state, number in states.items()},
            "killed_for_memory": Figure(killed, "sockets/s"),
        },
        "Processes have closed these sockets, and the peers do not acknowledge the FIN: they are unreachable, or a "
        "firewall drops their packets. The kernel keeps trying, and counts an idle orphan up to four times against "
        "the limit.",
        ("Check which peers are affected: the filter below lists the sockets. net.ipv4.tcp_orphan_retries shortens how "
         "long the kernel tries.",),
        "state:fin-wait-1,last-ack,closing inode:0",
    )  # fmt: skip
