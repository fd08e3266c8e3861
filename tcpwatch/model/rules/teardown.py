"""Rules about connections that end badly: `time-wait-buildup`, `close-wait-leak`, `half-closed`, `orphans`.

Sources: inet_twsk_alloc and tcp_time_wait in net/ipv4, ip-sysctl.rst (tcp_max_tw_buckets, tcp_max_orphans),
tcp_check_oom in net/ipv4/tcp.c; RFC 9293, section 3.6.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.teardown import ProcessCloseWaits, ProcessHalfClosed
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.states import State
from tcpwatch.model.view import View


def time_wait_buildup(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """TIME_WAIT near its limit; or over it, where the kernel closes sockets without it."""
    overflow = view.rates.get("TCPTimeWaitOverflow", 0) > 0
    if overflow:
        yield Candidate(_time_wait_finding(view, Severity.CRITICAL), Severity.CRITICAL)
    elif (view.time_wait.share or 0) > limits.time_wait_share:
        yield Candidate(_time_wait_finding(view, Severity.WARNING))


def _time_wait_finding(view: View, severity: Severity) -> Finding:
    waits, gauge, overflow = view.teardown.time_wait, view.time_wait, view.rates.get("TCPTimeWaitOverflow")
    headline = f"{units.count(gauge.value)} of {units.count(gauge.limit)} TIME_WAIT"
    if overflow:
        headline += f", {units.rate(overflow)}/s closed without it"
    return Finding(
        "time-wait-buildup",
        severity,
        FindingSubject("host", view.sample.host),
        f"{headline}; {units.count(waits.server)} of the server's side, {units.count(waits.client)} of the client's",
        {
            "time_wait": Figure(gauge.value, "sockets"),
            "tcp_max_tw_buckets": Figure(gauge.limit, "sockets"),
            "of_servers": Figure(waits.server, "sockets"),
            "of_clients": Figure(waits.client, "sockets"),
            "entered": Figure(waits.entered_per_s, "sockets/s"),
            "left": Figure(waits.left_per_s, "sockets/s"),
            "ending_in_10_s": Figure(sum(waits.ending_by_second[:10]), "sockets"),
            "closed_without": Figure(overflow, "sockets/s"),
        },
        "Whoever closes first keeps TIME_WAIT for 60 s, so that late segments meet no new connection. On the server's "
        "side it costs memory only, on the client's a port each.",
        ("Let the client close first, or keep connections open (keep-alive, a pool) instead of one for each request.",
         "net.ipv4.tcp_max_tw_buckets sets the limit; tcp_fin_timeout does not shorten TIME_WAIT."),
        "state:time-wait",
    )  # fmt: skip


def close_wait_leak(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A process whose peers have closed long ago, and that does not."""
    for one in view.teardown.close_wait:
        if one.old >= limits.close_wait_count:
            worse = one.growing or one.share >= limits.close_wait_descriptors_share
            yield Candidate(_close_wait_finding(one, Severity.CRITICAL if worse else Severity.WARNING))


def _close_wait_finding(one: ProcessCloseWaits, severity: Severity) -> Finding:
    kinds = {"never closed": one.eof_seen, "end not read": one.eof_pending, "data unread": one.data_pending}
    told = ", ".join(f"{units.count(number)} {words}" for words, number in kinds.items() if number)
    why = _WHY_CLOSE_WAIT[max(kinds, key=lambda words: kinds[words])] if told else _WHY_UNTOLD
    share = f", {units.share(one.share)} of its descriptors" if one.limit else ""
    which = f" ({told})" if told else ""
    return Finding(
        "close-wait-leak",
        severity,
        FindingSubject("process", one.process),
        f"{units.count(one.count)} CLOSE_WAIT{which}, oldest {units.duration(one.oldest_s)}{share}",
        {
            "close_wait": Figure(one.count, "sockets"),
            "never_closed": Figure(one.eof_seen, "sockets"),
            "end_not_read": Figure(one.eof_pending, "sockets"),
            "data_unread": Figure(one.data_pending, "sockets"),
            "old": Figure(one.old, "sockets"),
            "oldest": Figure(one.oldest_s, "s"),
            "descriptor_limit": Figure(one.limit, "descriptors"),
            "growing": Figure("yes" if one.growing else "no"),
        },
        why,
        ("No knob helps: only the program can end CLOSE_WAIT, by close(). Look for a path that forgets it, often after "
         "an error.",
         "A restart frees them; its descriptors run out otherwise."),
        f"state:close-wait pid:{one.owner.processes[0].pid}",
    )  # fmt: skip


_WHY_UNTOLD = "The peers have closed, and the program has not."
_WHY_CLOSE_WAIT = {
    "never closed": "The peers have closed, the program has read the end and never calls close(): it leaks sockets.",
    "end not read": "The peers have closed, and the program does not read the end: it is stuck, or waits for something "
    "else.",
    "data unread": "The peers have sent data and closed, and the program reads neither: it is stuck, or overwhelmed.",
}


def half_closed(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """FIN_WAIT_2 that a process still holds: shutdown() without close() may last for ever."""
    for one in view.teardown.half_closed:
        if one.old:
            yield Candidate(_half_closed_finding(one))


def _half_closed_finding(one: ProcessHalfClosed) -> Finding:
    return Finding(
        "half-closed",
        Severity.WARNING,
        FindingSubject("process", one.process),
        f"{units.count(one.count)} half-closed in FIN_WAIT_2, oldest {units.duration(one.oldest_s)}",
        {
            "fin_wait_2": Figure(one.count, "sockets"),
            "old": Figure(one.old, "sockets"),
            "oldest": Figure(one.oldest_s, "s"),
        },
        "The program has shut its side down and keeps the socket; the peer has not closed. tcp_fin_timeout counts only "
        "after close(): this may last for ever.",
        ("If nothing is expected from the peer any more, the program should close() and not only shutdown().",),
        f"state:fin-wait-2 pid:{one.owner.processes[0].pid}",
    )


def orphans(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Sockets that no process holds, and whose end the peer does not acknowledge."""
    share, aborted = view.orphans.share or 0.0, view.rates.get("TCPAbortOnMemory", 0) > 0
    if aborted:
        yield Candidate(_orphans_finding(view, Severity.CRITICAL), Severity.CRITICAL)
    elif share > limits.orphans_share:
        critical = share > limits.orphans_critical_share
        yield Candidate(_orphans_finding(view, Severity.CRITICAL if critical else Severity.WARNING))


def _orphans_finding(view: View, severity: Severity) -> Finding:
    gauge, aborted = view.orphans, view.rates.get("TCPAbortOnMemory")
    headline = f"{units.count(gauge.value)} orphans, {units.share(gauge.share)} of tcp_max_orphans"
    states = {state: view.teardown.orphaned[state] for state in (State.FIN_WAIT_1, State.LAST_ACK, State.CLOSING)}
    return Finding(
        "orphans",
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(aborted)}/s killed" if aborted else ""),
        {
            "orphans": Figure(gauge.value, "sockets"),
            "tcp_max_orphans": Figure(gauge.limit, "sockets"),
            **{state.name.lower(): Figure(number, "sockets") for state, number in states.items()},
            "killed_for_memory": Figure(aborted, "sockets/s"),
        },
        "Programs have closed these sockets, and the peers do not acknowledge the FIN: they have vanished, or a "
        "firewall drops what they send. The kernel goes on trying, and weighs idle ones up to four times against the "
        "limit.",
        ("Which peers? The filter lists them. net.ipv4.tcp_orphan_retries shortens the time that is spent on each.",),
        "state:fin-wait-1,last-ack,closing inode:0",
    )
