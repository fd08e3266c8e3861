"""Rules about data that does not get through: `retransmissions`, `connect-stuck`, `zero-window`, `tcp-memory`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.stalls import UnansweredConnects, UnreadProcess, ZeroWindowPeer
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.query.groups import GroupField, SocketGroup, group_sockets
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("retransmissions", rank=90)
def retransmissions(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Segments get lost between this host and its peers, or a peer is overloaded.

    Warning: this host retransmitted 1 % of its data segments in the last 30 s.
    Critical: it retransmitted 5 %.
    Source: snmp_counter.rst, tcp_retransmit_skb and tcp_rtx_synack (net/ipv4): retransmitted SYNs and SYN+ACKs count in
        RetransSegs and in TCPSynRetrans, so they are subtracted.
    """
    window_s = limits.retransmissions_window_s
    all_, syns, sent = (_increase(view, name, window_s) for name in ("RetransSegs", "TCPSynRetrans", "TCPOrigDataSent"))
    if all_ is None or sent is None or sent < limits.retransmissions_segments:
        return
    data = max(0.0, all_ - (syns or 0.0))
    share = data / sent
    if share >= limits.retransmissions_share:
        severity = Severity.CRITICAL if share >= limits.retransmissions_critical_share else Severity.WARNING
        yield Candidate(_retransmissions_finding(view, severity, data, syns, sent, window_s))


def _increase(view: View, counter: str, seconds: float) -> float | None:
    """Return the increase of a counter over the last seconds, None if it is unknown."""
    per_s = view.rate_trend.get(counter, ())[-max(1, round(seconds)) :]
    known = [value for value in per_s if not math.isnan(value)]
    return sum(known) if known else None


def _worst_peer(view: View) -> SocketGroup | None:
    """Return the peer with the most retransmissions, None if tcp_info is missing."""
    retransmitted = view.rows.take(np.flatnonzero(view.rows.throughput.retransmits_per_s(view.rows.cookie) > 0))
    peers = group_sockets(retransmitted, GroupField.PEER).groups
    return max(peers, key=lambda peer: peer.retransmits_per_s or 0.0, default=None)


def _retransmissions_finding(
    view: View, severity: Severity, data: float, syns: float | None, sent: float, window_s: float
) -> Finding:
    worst = _worst_peer(view)
    most = f", most to {worst.name}" if worst else ""
    segments = f"{units.share(data / sent)} of {units.plural(sent, 'data segment')}"
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        f"{segments} retransmitted within {units.duration(window_s)}{most}",
        {
            "retransmitted_share": Figure(data / sent, "share"),
            "retransmitted": Figure(round(data), "segments"),
            "data_segments": Figure(round(sent), "segments"),
            "syn_retransmitted": Figure(None if syns is None else round(syns), "segments"),
            "timeouts": Figure(view.rates.get("TCPTimeouts"), "timeouts/s"),
            "worst_peer": Figure(worst.name if worst else None),
            "worst_peer_retransmitted": Figure(worst.retransmits_per_s if worst else None, "segments/s"),
        },
        "Segments or their ACKs get lost on the network, or a peer is overloaded: connections slow down.",
        ("Check whether one destination or all are affected: the Connections screen, grouped by peer (`a`), shows the "
         "retransmissions to each.",
         "One destination: check the path to it, and the host itself. All: check this host's link, its errors and "
         "drops (ip -s link), and its CPU load."),
        worst.filter if worst else "",
    )  # fmt: skip


@rule("connect-stuck", rank=50)
def connect_stuck(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A destination does not answer connection attempts of this host.

    Warning: 5 connection attempts to one destination wait for an answer, each after at least 2 SYN retries.
    Source: RFC 9293, section 3.10.7.3; ip-sysctl.rst (tcp_syn_retries).
    """
    for destination in view.stalls.unanswered:
        if destination.count >= limits.connect_stuck_count:
            yield Candidate(_connect_stuck_finding(destination))


def _connect_stuck_finding(destination: UnansweredConnects) -> Finding:
    attempts = units.plural(destination.count, "connection attempt")
    retries = units.plural(destination.retransmits, "SYN retry", "SYN retries")
    return Finding(
        Severity.WARNING,
        FindingSubject("destination", destination.remote),
        f"{attempts} unanswered, up to {retries}",
        {"syn_sent": Figure(destination.count, "sockets"), "repeats": Figure(destination.retransmits, "SYNs")},
        "The SYN gets no answer: the host is down, or a firewall drops the SYNs or the answers. A closed port would "
        "refuse the connection at once.",
        ("Check whether the host answers at all, whether a firewall here or there drops packets, and the route.",
         "Each attempt takes more than two minutes to fail; net.ipv4.tcp_syn_retries shortens this."),
        f"state:syn-sent {destination.remote.remote_filter}",
    )  # fmt: skip


@rule("zero-window", rank=80)
def zero_window(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A peer, or a process of this host, does not read the data sent to it.

    Warning: a peer's receive window has been zero for 5 s; or this host advertises a zero window while a process does
        not read a long receive queue.
    Source: RFC 9293, section 3.8.6.1; tcp_probe_timer (net/ipv4/tcp_timer.c); snmp_counter.rst (TCPToZeroWindowAdv).
    """
    for peer in view.stalls.zero_window:
        if peer.longest_s >= limits.zero_window_age_s:
            yield Candidate(_peer_finding(peer))
    for process in view.stalls.unread:
        yield Candidate(_process_finding(process, view))


def _peer_finding(peer: ZeroWindowPeer) -> Finding:
    connections = units.plural(peer.count, "connection")
    return Finding(
        Severity.WARNING,
        FindingSubject("destination", peer.remote),
        f"{connections} blocked by the peer's zero window, longest {units.duration(peer.longest_s)}, "
        f"{units.byte_size(peer.unsent)} unsent",
        {
            "connections": Figure(peer.count, "connections"),
            "longest": Figure(peer.longest_s, "s"),
            "unsent": Figure(peer.unsent, "bytes"),
        },
        "The peer's receive window is zero: its application does not read the data that arrives. This host sends "
        "window probes and waits.",
        ("Check the application at the other end: it is stuck, or too slow for the data sent to it.",),
        peer.remote.remote_filter,
    )


def _process_finding(process: UnreadProcess, view: View) -> Finding:
    connections = units.plural(process.count, "connection")
    return Finding(
        Severity.WARNING,
        FindingSubject("process", process.process),
        f"{process.owner.processes[0].name} is not reading {connections} "
        f"({units.byte_size(process.unread_bytes)} queued, zero window)",
        {
            "connections": Figure(process.count, "connections"),
            "unread": Figure(process.unread_bytes, "bytes"),
            "windows_closed": Figure(view.rates.get("TCPToZeroWindowAdv"), "windows/s"),
        },
        "The application does not read the data that its peers send. The receive buffers are full, so this host "
        "advertises a zero window and the peers wait.",
        (f"Check what keeps {process.process} from reading: a lock, a slow backend or disk, all threads busy.",),
        f"pid:{process.owner.processes[0].pid} state:established,fin-wait-2",
    )


@rule("tcp-memory", rank=100)
def tcp_memory(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """The buffers of all TCP sockets use too much memory.

    Warning: TCP is above the pressure value of tcp_mem.
    Critical: TCP uses 90 % of the limit in tcp_mem, or the kernel prunes receive queues.
    Source: ip-sysctl.rst (tcp_mem), tcp_prune_queue (net/ipv4/tcp_input.c).
    """
    used, pressure = view.memory_pages.value, view.sample.sysctls.get("tcp_mem_pressure")
    pruning = view.rates.get("PruneCalled", 0) > 0
    near_limit = (view.memory_pages.share or 0) > limits.memory_critical_share
    if pruning or near_limit:
        yield Candidate(_memory_finding(view, Severity.CRITICAL), Severity.CRITICAL if pruning else None)
    elif used is not None and pressure is not None and used > pressure:
        yield Candidate(_memory_finding(view, Severity.WARNING))


def _memory_finding(view: View, severity: Severity) -> Finding:
    pages, pruned = view.memory_pages, view.rates.get("PruneCalled")
    headline = f"{units.count(pages.value)} of {units.count(pages.limit)} pages in use"
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(pruned)} receive queues/s pruned" if pruned else ""),
        {
            "memory": Figure(pages.value, "pages"),
            "pressure_from": Figure(view.sample.sysctls.get("tcp_mem_pressure"), "pages"),
            "limit": Figure(pages.limit, "pages"),
            "pruned": Figure(pruned, "queues/s"),
        },
        "Socket buffers use more memory than tcp_mem allows: the kernel shrinks windows and drops out-of-order data.",
        ("Find the long queues: on the Connections screen, sort by Recv-Q and by Send-Q.",
         "net.ipv4.tcp_mem limits all sockets together, in pages; tcp_rmem and tcp_wmem limit one socket."),
    )  # fmt: skip
