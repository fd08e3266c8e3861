"""Rules about data that is not read or not sent: `zero-window`, `tcp-memory`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.stalls import UnreadProgram
from tcpwatch.model.analyses.zero_windows import ZeroWindowGroup
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.rules.subjects import program_subject
from tcpwatch.model.sockets.endpoint import Endpoint
from tcpwatch.model.sockets.programs import Program
from tcpwatch.model.view import View


@rule("zero-window", rank=80, needs=("timers", "queues", "TCPToZeroWindowAdv"))
def zero_window(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A peer, or a process of this host, does not read the data sent to it.

    Warning: the receive windows of peers have been zero, or too small to send, for 5 s; or this host advertises a zero
        window while a process does not read a long receive queue.
    Source: RFC 9293, section 3.8.6.1; tcp_probe_timer (net/ipv4/tcp_timer.c); snmp_counter.rst (TCPToZeroWindowAdv).
    """
    for group in view.stalls.zero_window.groups:
        yield Candidate(_peers_finding(view, group))
    for unread in view.stalls.unread:
        yield Candidate(_unread_finding(unread, view))


def _peers_finding(view: View, group: ZeroWindowGroup) -> Finding:
    subject, filter_text = _subject(view, group.subject)
    connections = units.plural(group.count, "connection")
    peers = ""
    if not isinstance(group.subject, Endpoint):
        noun = "client" if isinstance(group.subject, ListenerKey) else "destination"
        peers = f" to {units.plural(group.peers, noun)}"
    names = f"; {units.listing(group.examples, group.peers)}" if peers else ""
    window = "the peer's receive window" if group.peers == 1 else "their receive windows"
    return Finding(
        Severity.WARNING,
        subject,
        f"{connections}{peers} blocked by {window}, longest {units.duration(group.longest_s)}, "
        f"{units.byte_size(group.unsent)} unsent{names}",
        {
            "connections": Figure(group.count, "connections"),
            "longest": Figure(group.longest_s, "s"),
            "unsent": Figure(group.unsent, "bytes"),
            "peers": Figure(group.peers, "peers"),
        },
        "The peer's receive window is zero, or too small for the next segment: its application does not read the data "
        "that arrives, or too slowly. This host sends window probes and waits.",
        ("Check the application at the other end: it is stuck, or too slow for the data sent to it.",),
        filter_text,
    )


def _subject(view: View, subject: ListenerKey | Program | Endpoint | None) -> tuple[FindingSubject, str]:
    """Return the subject of the finding, and the filter that selects its connections."""
    if isinstance(subject, ListenerKey):
        return FindingSubject("listener", ListenerSubject(subject)), f"{subject.local_filter} timer:persist"
    if isinstance(subject, Endpoint):
        return FindingSubject("destination", subject), f"{subject.remote_filter} timer:persist"
    if subject is None:
        return FindingSubject("host", view.sample.host), "timer:persist"
    return program_subject(subject), f"{subject.filter} timer:persist"


def _unread_finding(unread: UnreadProgram, view: View) -> Finding:
    program = unread.program
    count = len(program.processes)
    reader = f"{program.name} is" if count == 1 else f"{units.count(count)} processes are"
    return Finding(
        Severity.WARNING,
        program_subject(program),
        f"{reader} not reading {units.plural(unread.count, 'connection')} ({units.byte_size(unread.unread_bytes)} "
        f"queued, zero window) from {units.listing(unread.examples, unread.peers)}",
        {
            "connections": Figure(unread.count, "connections"),
            "unread": Figure(unread.unread_bytes, "bytes"),
            "windows_closed": Figure(view.rates.get("TCPToZeroWindowAdv"), "windows/s"),
            "processes": Figure(count, "processes"),
            "peers": Figure(unread.peers, "peers"),
        },
        "The application does not read the data that its peers send. The receive buffers are full, so this host "
        "advertises a zero window and the peers wait.",
        (f"Check what keeps {program} from reading: a lock, a slow backend or disk, all threads busy.",),
        f"{program.filter} state:established,fin-wait-2",
    )


@rule("tcp-memory", rank=100, needs=("tcp_mem_pressure", "tcp_mem_high", "TCP_mem", "PruneCalled"))
def tcp_memory(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The buffers of all TCP sockets use too much memory, or what arrives does not fit into those of some.

    Warning: TCP is above the pressure value of tcp_mem; or the kernel prunes receive queues.
    Critical: TCP uses 90 % of the limit in tcp_mem, or the kernel prunes while TCP is above the pressure value.
    Source: ip-sysctl.rst (tcp_mem), tcp_prune_queue (net/ipv4/tcp_input.c).
    """
    used, pressure = view.memory_pages.value, view.sample.sysctls.get("tcp_mem_pressure")
    pruning = view.rates.get("PruneCalled", 0) > 0
    near_limit = (view.memory_pages.share or 0) > limits.memory_critical_share
    pressed = used is not None and pressure is not None and used > pressure
    if near_limit or (pressed and pruning):
        yield Candidate(_memory_finding(view, Severity.CRITICAL), Severity.CRITICAL if pruning else None)
    elif pressed:
        yield Candidate(_memory_finding(view, Severity.WARNING))
    elif pruning:
        yield Candidate(_pruned_finding(view))


def _memory_finding(view: View, severity: Severity) -> Finding:
    pages, pruned = view.memory_pages, view.rates.get("PruneCalled")
    headline = f"{units.count(pages.value)} of {units.count(pages.limit)} pages in use"
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(pruned)} receive queues/s pruned" if pruned else ""),
        _memory_figures(view),
        "All socket buffers together use more memory than the pressure value of net.ipv4.tcp_mem: the kernel shrinks "
        "windows.",
        (
            _LONG_QUEUES,
            "net.ipv4.tcp_mem limits all sockets together, in pages; tcp_rmem and tcp_wmem limit one socket.",
        ),
    )


def _pruned_finding(view: View) -> Finding:
    """Return the finding about receive queues that are pruned though TCP as a whole has memory, as far as is known."""
    return Finding(
        Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{units.rate(view.rates.get('PruneCalled'))} receive queues/s pruned",
        _memory_figures(view),
        "What arrived did not fit into the receive buffers of some sockets (SO_RCVBUF, net.ipv4.tcp_rmem): the kernel "
        "merges it, and drops data that came out of order.",
        (_LONG_QUEUES,),
    )


_LONG_QUEUES = "Find the long queues: on the Connections screen, sort by Recv-Q and by Send-Q."


def _memory_figures(view: View) -> dict[str, Figure]:
    return {
        "memory": Figure(view.memory_pages.value, "pages"),
        "pressure_from": Figure(view.sample.sysctls.get("tcp_mem_pressure"), "pages"),
        "limit": Figure(view.memory_pages.limit, "pages"),
        "pruned": Figure(view.rates.get("PruneCalled"), "queues/s"),
    }
