"""Rules about peers that do not answer: `connect-stuck` and `peer-silent`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.analyses.silent_peers import SilentPeer, SilentPeers
from tcpwatch.model.analyses.unanswered_connects import Unanswered, UnansweredConnects
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, Severity
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View

SEPARATE = 5
"""Peers with a finding each. If more do not answer, there is one finding about all of them."""
_NAMED = 3


@rule("connect-stuck", rank=50, needs=("timers",))
def connect_stuck(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A destination does not answer connection attempts of this host.

    Warning: 5 attempts to one destination, or one or more to each of 5 addresses of one network, got no answer: they
        wait after at least 2 SYN retries, or were given up in the last 30 s, and none succeeded since.
    Source: RFC 9293, section 3.10.7.3; ip-sysctl.rst (tcp_syn_retries); tcp_segs_in (include/net/tcp.h).
    """
    unanswered = view.stalls.unanswered
    if unanswered.stuck > SEPARATE:
        yield Candidate(_many_stuck(view, unanswered))
        return
    for destination in unanswered.destinations:
        if destination.attempts >= limits.connect_stuck_count or destination.addresses > 1:
            yield Candidate(_stuck(destination, limits))


_STUCK_WHY = (
    "The SYN gets no answer: the host is down, its service accepts no more connections, or a firewall drops the SYNs "
    "or the answers. A closed port would refuse the connection at once."
)
_STUCK_ADVICE = (
    "Check whether the host answers at all, the accept queue of its service, firewalls here and there, and the route.",
)
_WAITING_ADVICE = (
    "net.ipv4.tcp_syn_retries limits the retries of attempts without a timeout of the application, by default to more "
    "than two minutes."
)
_GIVEN_UP_ADVICE = (
    "The callers close their sockets before an answer comes: check that their timeout is longer than the round trip."
)


def _stuck(destination: UnansweredConnects, limits: Thresholds) -> Finding:
    addresses = ""
    if destination.addresses > 1:
        names = units.listing(destination.examples, destination.addresses)
        addresses = f" to {units.plural(destination.addresses, 'address', 'addresses')} ({names})"
    attempts = units.plural(destination.attempts, "connection attempt")
    retries = f", up to {units.plural(destination.retransmits, 'SYN retry', 'SYN retries')}"
    window = f" within {units.duration(limits.connect_stuck_window_s)}"
    given_up = units.count(destination.given_up)
    if not destination.given_up:
        headline = f"{attempts}{addresses} unanswered{retries}"
    elif destination.count:
        headline = f"{attempts}{addresses} unanswered{retries}; {given_up} of them given up{window}"
    else:
        headline = f"{attempts}{addresses} given up without an answer{window}"
    return Finding(
        Severity.WARNING,
        FindingSubject("destination", destination.remote),
        headline,
        {
            "syn_sent": Figure(destination.count, "sockets"),
            "repeats": Figure(destination.retransmits, "SYNs"),
            "given_up": Figure(destination.given_up, "attempts"),
            "longest_wait": Figure(destination.longest_s if destination.given_up else None, "s"),
            "addresses": Figure(destination.addresses, "addresses"),
        },
        _STUCK_WHY,
        _STUCK_ADVICE + (_WAITING_ADVICE,) * bool(destination.count) + (_GIVEN_UP_ADVICE,) * bool(destination.given_up),
        f"state:syn-sent {destination.remote.remote_filter}",
    )


def _many_stuck(view: View, unanswered: Unanswered) -> Finding:
    names = units.listing([str(connects.remote) for connects in unanswered.destinations[:_NAMED]], unanswered.stuck)
    return Finding(
        Severity.WARNING,
        FindingSubject("host", view.sample.host),
        f"{units.plural(unanswered.stuck_attempts, 'connection attempt')} to "
        f"{units.plural(unanswered.stuck, 'destination')} unanswered: {names}",
        {
            "attempts": Figure(unanswered.stuck_attempts, "attempts"),
            "destinations": Figure(unanswered.stuck, "destinations"),
        },
        _STUCK_WHY,
        ("Many destinations at once: check this host's own firewall, its route and its link first.", *_STUCK_ADVICE),
        "state:syn-sent",
    )


@rule("peer-silent", rank=45, needs=("timers", "tcp_info"))
def peer_silent(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A peer with open connections does not answer any more.

    Warning: 3 connections to one address, or connections to 5 addresses of one network, have retransmitted or probed
        for 10 s, and in this time nothing came from it on any connection.
    Critical: 20 connections do.
    Source: RFC 9293, section 3.8.3; tcp_retransmit_timer (net/ipv4/tcp_timer.c), tcp_get_info (net/ipv4/tcp.c):
        tcpi_last_data_recv and tcpi_last_ack_recv.
    """
    silent = view.stalls.silent
    if silent.all_peers > SEPARATE:
        yield Candidate(_many_silent(view, silent, _severity(silent.connections, limits)))
        return
    for peer in silent.peers:
        yield Candidate(_silent(peer, _severity(peer.count, limits)))


def _severity(connections: int, limits: Thresholds) -> Severity:
    return Severity.CRITICAL if connections >= limits.silent_peer_critical_count else Severity.WARNING


_SILENT_WHY = (
    "Data, a FIN or probes are sent again and again, and neither an acknowledgement nor data comes back: the peer or "
    "the path to it is down. No FIN or reset came from it, so the connections stay open until the kernel gives up."
)
_SILENT_ADVICE = (
    "Check whether the host answers at all, and what changed on the path: a firewall or a NAT that lost its state, a "
    "moved address, a route.",
    "net.ipv4.tcp_retries2 limits the retransmissions, by default for about 15 minutes; TCP_USER_TIMEOUT does so for "
    "one socket.",
)


def _silent(peer: SilentPeer, severity: Severity) -> Finding:
    addresses = ""
    if peer.addresses > 1:
        names = units.listing(peer.examples, peer.addresses)
        addresses = f" to {units.plural(peer.addresses, 'address', 'addresses')} ({names})"
    attempts = f", {units.plural(peer.attempts, 'connection attempt')} unanswered" if peer.attempts else ""
    return Finding(
        severity,
        FindingSubject("destination", peer.remote),
        f"{units.plural(peer.count, 'connection')}{addresses} without an answer, nothing received for "
        f"{units.duration(peer.silent_s)}{attempts}",
        {
            "connections": Figure(peer.count, "connections"),
            "silent": Figure(peer.silent_s, "s"),
            "unacknowledged": Figure(peer.unacknowledged, "bytes"),
            "attempts": Figure(peer.attempts, "sockets"),
            "addresses": Figure(peer.addresses, "addresses"),
        },
        _SILENT_WHY,
        _SILENT_ADVICE,
        peer.remote.remote_filter,
    )


def _many_silent(view: View, silent: SilentPeers, severity: Severity) -> Finding:
    names = units.listing([str(peer.remote) for peer in silent.peers[:_NAMED]], silent.all_peers)
    return Finding(
        severity,
        FindingSubject("host", view.sample.host),
        f"{units.plural(silent.connections, 'connection')} to {units.plural(silent.all_peers, 'peer')} without an "
        f"answer: {names}",
        {
            "connections": Figure(silent.connections, "connections"),
            "peers": Figure(silent.all_peers, "peers"),
        },
        _SILENT_WHY,
        ("Many peers at once: check this host's own link, its route and its firewall first.", *_SILENT_ADVICE),
        f"raddr:{','.join(str(peer.remote) for peer in silent.peers)}"
        if len(silent.peers) == silent.all_peers
        else "timer:on,keepalive,persist",
    )
