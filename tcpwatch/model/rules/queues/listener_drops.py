"""Rule about listeners that drop segments though their queues have room: `listener-drops`."""

from __future__ import annotations

from collections.abc import Iterator

from tcpwatch import units
from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import Candidate, Figure, Finding, FindingSubject, ListenerSubject, Severity
from tcpwatch.model.listeners.listener_drops import ListenerDrops
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.rules.registry import rule
from tcpwatch.model.view import View


@rule("listener-drops", rank=35, needs=("queues",))
def listener_drops(view: View, limits: Thresholds) -> Iterator[Candidate]:
    """A listener drops segments for another reason than a full queue.

    Warning: a listener drops two segments within 30 s while a counter of their reason rises (TCPMD5*, TCPAO*,
        TSEcrRejected, PAWS*, TCPMinTTLDrop); or it drops more than the counters of the host explain, in two steps.
    Source: tcp_v4_rcv and tcp_inbound_hash (net/ipv4), sock_diag(7) (SK_MEMINFO_DROPS), RFC 2385, RFC 5925, RFC 7323.
    """
    cookies = {drops.cookie for drops in view.listener_drops}
    listeners = {listener.cookie: listener for listener in view.listeners_with_cookies(cookies)}
    most: dict[int, ListenerDrops] = {}
    for drops in view.listener_drops:
        proved = bool(drops.counter) or drops.steps > 1
        fewer = drops.cookie not in most or most[drops.cookie].dropped < drops.dropped
        if proved and fewer and drops.dropped >= limits.listener_drops_count and drops.cookie in listeners:
            most[drops.cookie] = drops
    for cookie, drops in most.items():  # drops of two steps are counted already, or a counter proves the reason
        yield Candidate(_finding(listeners[cookie], drops, limits), Severity.WARNING)


def _finding(listener: Listener, drops: ListenerDrops, limits: Thresholds) -> Finding:
    dropped = f"{units.plural(drops.dropped, 'segment')} dropped within {units.duration(limits.listener_drops_s)}"
    reason = (
        f", {drops.counter} rose by {units.count(drops.rose)}"
        if drops.counter
        else ", for a reason that no counter names"
    )
    return Finding(
        Severity.WARNING,
        FindingSubject("listener", ListenerSubject(listener.key, listener.inode if listener.group_size > 1 else 0)),
        ", ".join(filter(None, (listener.process, dropped + reason))),
        {
            "dropped": Figure(drops.dropped, "segments"),
            "counter": Figure(drops.counter or None),
            "counter_rise": Figure(drops.rose if drops.counter else None),
            "drops_since_open": Figure(listener.drops, "segments"),
            "process": Figure(listener.process or None),
        },
        f"The queues of the listener have room. {_why(drops.counter)}",
        (_advice(drops.counter),),
        f"state:listen {listener.key.local_filter}",
    )


def _why(counter: str) -> str:
    return _REASONS.get(_family(counter), _UNNAMED)[0]


def _advice(counter: str) -> str:
    return _REASONS.get(_family(counter), _UNNAMED)[1]


def _family(counter: str) -> str:
    return next((family for family in _REASONS if counter.startswith(family)), "")


_UNNAMED = (
    "The kernel drops segments, and no counter names the reason. A filter of the socket (SO_ATTACH_FILTER) is one that "
    "has no counter.",
    "The tracepoint skb:kfree_skb has the reason of each drop: perf trace -e skb:kfree_skb, or dropwatch.",
)
_NAMES = "The addresses are in the trace events tcp:tcp_hash_* and tcp:tcp_ao_*, before Linux 6.11 in the kernel log."
_REASONS = {
    "TCPMD5NotFound": (
        "It has a TCP-MD5 key for these clients, and their segments carry no signature.",
        f"Set the key at the clients (BGP: the neighbour's password), or remove it here. {_NAMES}",
    ),
    "TCPMD5Unexpected": (
        "The clients' segments carry a TCP-MD5 signature, and the listener has no key for them.",
        f"Set the key here for the clients' addresses, or remove it there. {_NAMES}",
    ),
    "TCPMD5Failure": (
        "The clients' TCP-MD5 signatures do not match: the keys differ, or something on the path changes segments.",
        f"Compare the keys; NAT between the ends breaks the signature. {_NAMES}",
    ),
    "TCPAO": (
        "The clients' segments do not pass TCP-AO: no key, another key, or no signature (RFC 5925).",
        f"Compare the keys and their ids at both ends. {_NAMES}",
    ),
    "TSEcrRejected": (
        "Last ACKs of handshakes echo a timestamp that the kernel did not send (RFC 7323).",
        "Look for a middlebox that changes TCP timestamps.",
    ),
    "PAWS": (
        "Segments carry an older timestamp than the last one of their connection (PAWS, RFC 7323).",
        "Look for clients behind one NAT address whose timestamps differ, or a middlebox that changes timestamps.",
    ),
    "TCPMinTTLDrop": (
        "Segments arrive with a smaller TTL than the application demands (IP_MINTTL, RFC 5082).",
        "Compare the demanded TTL with the number of hops to the clients.",
    ),
}
"""Beginning of a counter's name → why, advice."""
