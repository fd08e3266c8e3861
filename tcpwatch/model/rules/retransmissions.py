"""Rule about lost segments: `retransmissions`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("retransmissions", rank=90, needs=("RetransSegs", "TCPOrigDataSent"))
def retransmissions(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """Segments get lost between this host and its peers, or a peer is overloaded.

    Warning: this host retransmitted 1 % of its data segments in the last 30 s.
    Critical: it retransmitted 5 %.
    Source: snmp_counter.rst, tcp_retransmit_skb and tcp_rtx_synack (net/ipv4): retransmitted SYNs and SYN+ACKs count in
        RetransSegs and in TCPSynRetrans, so they are subtracted.
    """
    counted = view.retransmits
    if not counted.steps or counted.segments < limits.retransmissions_segments:
        return
    # What is retransmitted to silent peers is a finding of its own.
    explained = counted.to(view.stalls.silent.addresses)
    if (counted.data - explained) / counted.segments >= limits.retransmissions_share:
        critical = counted.data / counted.segments >= limits.retransmissions_critical_share
        yield Candidate(_finding(view, Severity.CRITICAL if critical else Severity.WARNING))


def _finding(view: View, severity: Severity) -> Finding:
    counted = view.retransmits
    data, segments, worst = counted.data, counted.segments, counted.worst_peer()
    share = min(1.0, worst.count / data) if worst else None
    most = f", {units.share(share)} of them to {worst.remote}" if worst else ""
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        f"{units.share(data / segments)} of {units.plural(round(segments), 'data segment')} retransmitted within "
        f"{units.duration(counted.seconds)}{most}",
        {
            "retransmitted_share": Figure(data / segments, "share"),
            "retransmitted": Figure(round(data), "segments"),
            "data_segments": Figure(round(segments), "segments"),
            "syn_retransmitted": Figure(round(counted.syns), "segments"),
            "timeouts": Figure(view.rates.get("TCPTimeouts"), "timeouts/s"),
            "worst_peer": Figure(str(worst.remote) if worst else None),
            "worst_peer_retransmitted": Figure(worst.count / counted.seconds if worst else None, "segments/s"),
            "worst_peer_share": Figure(share, "share"),
        },
        "Segments or their ACKs get lost or arrive late: the network loses them, or a peer is overloaded. Connections "
        "slow down.",
        ("Check whether one destination or all are affected: the Connections screen, grouped by peer (`a`), shows the "
         "retransmissions to each.",
         "One destination: check the path to it, and the host itself. All: check this host's link, its errors and "
         "drops (ip -s link), and its CPU load."),
        worst.remote.remote_filter if worst else "",
    )  # fmt: skip
