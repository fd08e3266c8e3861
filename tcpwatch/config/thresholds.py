"""Thresholds of the rules; the configuration file can override each. [H]: a heuristic, without a source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The values from which the rules report findings."""

    syn_queue_share: float = 0.8
    """Share of a SYN queue's limit, for a syn-queue-full warning. [H]"""
    accept_queue_share: float = 0.8
    """Share of an accept queue's limit, for an accept-queue-full warning. [H]"""
    accept_stalled_s: float = 30.0
    """Seconds without a successful accept() while connections wait, for accept-stalled. [H]"""
    accept_stalled_count: float = 100
    """Connections waiting then, for a critical accept-stalled. [H]"""
    flood_repeated_share: float = 0.5
    """Share of a full SYN queue's connections with SYN+ACK retransmits, for syn-flood. [H]"""
    flood_cookies_per_s: float = 50.0
    """SYN cookies sent per second, below which `flood_cookies_returned` is not checked. [H]"""
    flood_cookies_returned: float = 0.5
    """Cookies returned per cookie sent, below which it is a syn-flood. [H]"""
    listener_drops_count: float = 2
    """Segments that a listener drops for another reason than a full queue, for listener-drops. [H]"""
    listener_drops_s: float = 30.0
    """The time within which they are counted. [H]"""
    resets_factor: float = 10.0
    """Resets sent in the last 10 s, relative to the minute before, for resets. [H]"""
    resets_per_s: float = 5.0
    """Resets sent per second, below which there is no finding. [H]"""
    port_scan_ports: float = 20
    """Closed ports tried by one source in the last 10 s, for port-scan. [H]"""

    time_wait_share: float = 0.8
    """Share of tcp_max_tw_buckets, for a time-wait-buildup warning. [H]"""
    ports_share: float = 0.5
    """Share of ports in use to one destination, for a warning: connect() tries half of the ports first."""
    ports_critical_share: float = 0.8
    """The same, for a critical finding while the share grows. [H]"""
    ports_exhausted_share: float = 0.95
    """The same, for a critical finding in any case. [H]"""
    close_wait_count: float = 20
    """CLOSE_WAIT sockets of one program, listener or user, older than `close_wait_age_s`, for close-wait-leak. [H]"""
    close_wait_age_s: float = 60.0
    """[H]"""
    close_wait_descriptors_share: float = 0.5
    """Share of the process's RLIMIT_NOFILE, for a critical close-wait-leak. [H]"""
    half_closed_age_s: float = 300.0
    """Age of a FIN_WAIT_2 socket that a process holds, for half-closed. [H]"""
    orphans_share: float = 0.25
    """Share of tcp_max_orphans, for an orphans warning: the kernel counts idle orphans up to four times."""
    orphans_critical_share: float = 0.5
    """The same, for a critical finding: the kernel counts other orphans twice."""
    retransmissions_share: float = 0.01
    """Share of data segments retransmitted, for a retransmissions warning. [H]"""
    retransmissions_critical_share: float = 0.05
    """The same, for a critical finding. [H]"""
    retransmissions_window_s: float = 30.0
    """Time over which the share is measured. [H]"""
    retransmissions_segments: float = 100
    """Data segments within that time, below which there is no finding. [H]"""
    connect_stuck_count: float = 5
    """Unanswered connect() calls to one destination, for connect-stuck. [H]"""
    connect_stuck_repeats: float = 2
    """SYN retransmits of each of these calls. [H]"""
    connect_stuck_addresses: float = 5
    """Addresses of one network with unanswered connect() calls, for connect-stuck. [H]"""
    connect_stuck_wait_s: float = 0.1
    """Shortest time after which a connect() call that its caller has given up counts as unanswered. [H]"""
    connect_stuck_window_s: float = 30.0
    """Time for which such calls count. [H]"""
    silent_peer_count: float = 3
    """Connections to one address that retransmit, for peer-silent. [H]"""
    silent_peer_critical_count: float = 20
    """The same, for a critical finding. [H]"""
    silent_peer_addresses: float = 5
    """Silent addresses of one network, for peer-silent. [H]"""
    silent_peer_s: float = 10.0
    """Time without any segment from the peer, for peer-silent. [H]"""
    zero_window_age_s: float = 5.0
    """Age of a peer's zero window, for zero-window. [H]"""
    memory_critical_share: float = 0.9
    """Share of the third value of tcp_mem, for a critical tcp-memory. [H]"""


DEFAULT = Thresholds()


def allowed_range(name: str) -> tuple[float, float]:
    """Return the smallest and the largest allowed value of a threshold."""
    return (0.01, 1.0) if name.endswith(("_share", "_returned")) else (0.1, 1e9)
