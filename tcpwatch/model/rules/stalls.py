"""Rules about what does not get through: `retransmissions`, `connect-stuck`, `zero-window`, `tcp-memory`.

Sources: snmp_counter.rst, tcp_retransmit_skb and tcp_rtx_synack in net/ipv4 (SYNs and SYN+ACKs that are sent again
count in RetransSegs and in TCPSynRetrans alike), tcp_probe_timer, tcp_prune_queue; ip-sysctl.rst (tcp_mem).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.stalls import UnansweredConnects, UnreadProcess, ZeroWindowPeer
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.query.groups import GroupField, SocketGroup, group_sockets
from tcpwatch.model.view import View


def retransmissions(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Data segments that are sent again, of those that are sent, host wide."""
    window_s = limits.retransmissions_window_s
    again, syns, sent = (_total(view, name, window_s) for name in ("RetransSegs", "TCPSynRetrans", "TCPOrigDataSent"))
    if again is None or sent is None or sent < limits.retransmissions_segments:
        return
    data = max(0.0, again - (syns or 0.0))
    share = data / sent
    if share >= limits.retransmissions_share:
        critical = share >= limits.retransmissions_critical_share
        yield Candidate(_lost(view, share, data, syns, sent, window_s, critical))


def _total(view: View, name: str, seconds: float) -> float | None:
    """Increase of a counter over the last seconds; None where too little of them is known."""
    slot_s = view.rate_trend.slot_s
    slots = view.rate_trend.per_s.get(name, ())[-max(1, round(seconds / slot_s)) :]
    known = [value for value in slots if not math.isnan(value)]
    return sum(known) * slot_s if known else None


def _worst_peer(view: View) -> SocketGroup | None:
    """To whom most is sent again, where tcp_info tells."""
    again = view.rows.throughput.retransmits_per_s(view.rows.cookie)
    repeated = view.rows.take(np.flatnonzero(again > 0))
    return max(
        group_sockets(repeated, GroupField.PEER).groups, key=lambda one: one.retransmits_per_s or 0.0, default=None
    )


def _lost(
    view: View, share: float, data: float, syns: float | None, sent: float, window_s: float, critical: bool
) -> Finding:
    worst = _worst_peer(view)
    most = f", most to {worst.name}" if worst else ""
    return Finding(
        "retransmissions",
        Severity.CRITICAL if critical else Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{units.share(share)} of {units.count(sent)} data segments sent again within {units.duration(window_s)}{most}",
        {
            "retransmitted_share": Figure(share, "share"),
            "retransmitted": Figure(round(data), "segments"),
            "data_segments": Figure(round(sent), "segments"),
            "syn_retransmitted": Figure(None if syns is None else round(syns), "segments"),
            "timeouts": Figure(view.rates.get("TCPTimeouts"), "timeouts/s"),
            "worst_peer": Figure(worst.name if worst else None),
            "worst_peer_retransmitted": Figure(worst.retransmits_per_s if worst else None, "segments/s"),
        },
        "Segments or their acknowledgements are lost on the way, or a peer is overwhelmed: connections slow down.",
        ("Is it one destination or all? In Connections, `a` groups by peer, with what is sent again to each.",
         "One: its path or host. All: this host's link, its errors and drops (ip -s link), or its own processor."),
        worst.filter if worst else "",
    )  # fmt: skip


def connect_stuck(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """connect()s whose SYNs one destination does not answer."""
    for one in view.stalls.unanswered:
        if one.count >= limits.connect_stuck_count:
            yield Candidate(_stuck(one))


def _stuck(one: UnansweredConnects) -> Finding:
    return Finding(
        "connect-stuck",
        Severity.WARNING,
        FindingSubject("destination", one.remote),
        f"{units.count(one.count)} connect()s unanswered, up to {one.retransmits} SYNs repeated",
        {"syn_sent": Figure(one.count, "sockets"), "repeats": Figure(one.retransmits, "SYNs")},
        "The first step of the handshake gets no answer: the host is down, or a firewall drops the SYNs or what "
        "answers them. A closed port would have been refused at once.",
        ("Does the host answer at all? Is there a rule that drops, here or there? Is the route right?",
         "A program waits more than two minutes for each; net.ipv4.tcp_syn_retries shortens it."),
        f"state:syn-sent {one.remote.remote_filter}",
    )  # fmt: skip


def zero_window(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A peer that takes nothing for a while, or a process of ours that reads nothing."""
    for peer in view.stalls.zero_window:
        if peer.longest_s >= limits.zero_window_age_s:
            yield Candidate(_peer_closed(peer))
    for process in view.stalls.unread:
        yield Candidate(_unread(process, view))


def _peer_closed(one: ZeroWindowPeer) -> Finding:
    return Finding(
        "zero-window",
        Severity.WARNING,
        FindingSubject("destination", one.remote),
        f"{units.count(one.count)} connections wait for a window, longest {units.duration(one.longest_s)}, "
        f"{units.size(one.unsent)} bytes unsent",
        {
            "connections": Figure(one.count, "connections"),
            "longest": Figure(one.longest_s, "s"),
            "unsent": Figure(one.unsent, "bytes"),
        },
        "The peer's receive window is closed: its program does not read what it was sent. This host probes, and waits.",
        ("Look at the program at the other end: it is stuck, or slower than what is sent to it.",),
        one.remote.remote_filter,
    )


def _unread(one: UnreadProcess, view: View) -> Finding:
    return Finding(
        "zero-window",
        Severity.WARNING,
        FindingSubject("process", one.process),
        f"{units.count(one.count)} connections not read, {units.size(one.unread_bytes)} bytes wait; "
        "their window is closed",
        {
            "connections": Figure(one.count, "connections"),
            "unread": Figure(one.unread_bytes, "bytes"),
            "windows_closed": Figure(view.rates.get("TCPToZeroWindowAdv"), "windows/s"),
        },
        "The program does not read what its peers send, so that this host has closed the window: they wait.",
        (f"See what {one.process} does instead of reading: a lock, a slow backend or disk, no thread left.",),
        f"pid:{one.owner.processes[0].pid} state:established,fin-wait-2",
    )


def tcp_memory(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """TCP's memory under pressure, near its limit, or taken back from sockets."""
    used, pressure = view.memory_pages.value, view.sample.sysctls.get("tcp_mem_pressure")
    pruned = view.rates.get("PruneCalled", 0) > 0
    near = (view.memory_pages.share or 0) > limits.memory_critical_share
    if pruned or near:
        yield Candidate(_memory(view, Severity.CRITICAL), Severity.CRITICAL if pruned else None)
    elif used is not None and pressure is not None and used > pressure:
        yield Candidate(_memory(view, Severity.WARNING))


def _memory(view: View, severity: Severity) -> Finding:
    pages, pruned = view.memory_pages, view.rates.get("PruneCalled")
    headline = f"{units.count(pages.value)} of {units.count(pages.limit)} pages in use"
    return Finding(
        "tcp-memory",
        severity,
        FindingSubject("host", view.sample.host),
        headline + (f", {units.rate(pruned)} receive queues/s pruned" if pruned else ""),
        {
            "memory": Figure(pages.value, "pages"),
            "pressure_from": Figure(view.sample.sysctls.get("tcp_mem_pressure"), "pages"),
            "limit": Figure(pages.limit, "pages"),
            "pruned": Figure(pruned, "queues/s"),
        },
        "Sockets' buffers take more than TCP may have (tcp_mem): windows shrink, and out-of-order data is thrown away.",
        ("Whose queues are long? In Connections, sort by Recv-Q and Send-Q.",
         "net.ipv4.tcp_mem sets the limit in pages, tcp_rmem and tcp_wmem what a socket may take."),
        "",
    )  # fmt: skip
