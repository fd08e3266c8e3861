"""THE table of thresholds; the settings file can override each by its name. [H]: chosen by us, no authority."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where rules begin to speak."""

    syn_queue_share: float = 0.8
    """Of a SYN queue's limit: syn-queue-full warns. [H]"""
    accept_queue_share: float = 0.8
    """Of an accept queue's limit: accept-queue-full warns. [H]"""
    flood_repeated_share: float = 0.5
    """Of the half-open connections of a full SYN queue, those whose SYN+ACK was repeated: above it, syn-flood. [H]"""
    flood_cookies_per_s: float = 50.0
    """Cookies sent per second from which on their return is judged. [H]"""
    flood_cookies_returned: float = 0.5
    """Cookies returned per cookie sent: below it, syn-flood. [H]"""
    resets_factor: float = 10.0
    """Resets sent, the last 10 s against the minute before. [H]"""
    resets_per_s: float = 5.0
    """Resets sent per second below which nothing is said. [H]"""
    port_scan_ports: float = 20
    """Closed ports that one source tried in the last 10 s: port-scan. [H]"""

    time_wait_share: float = 0.8
    """TIME_WAIT of tcp_max_tw_buckets: time-wait-buildup warns. [H]"""
    ports_share: float = 0.5
    """Ports in use toward one destination: port-exhaustion warns, as connect() searches every other port first."""
    ports_critical_share: float = 0.8
    """And critical from here on while they become more. [H]"""
    ports_exhausted_share: float = 0.95
    """And from here on in any case. [H]"""
    close_wait_count: float = 20
    """CLOSE_WAITs of one process, older than `close_wait_age_s`: close-wait-leak. [H]"""
    close_wait_age_s: float = 60.0
    """[H]"""
    close_wait_descriptors_share: float = 0.5
    """Of the process's RLIMIT_NOFILE: then it is critical. [H]"""
    half_closed_age_s: float = 300.0
    """FIN_WAIT_2 that a process holds: half-closed. [H]"""
    orphans_share: float = 0.25
    """Of tcp_max_orphans: orphans warns, as the kernel weighs idle ones up to four times."""
    orphans_critical_share: float = 0.5
    """As it weighs others twice."""
    retransmissions_share: float = 0.01
    """Data segments sent again: retransmissions warns. [H]"""
    retransmissions_critical_share: float = 0.05
    """[H]"""
    retransmissions_window_s: float = 30.0
    """[H]"""
    retransmissions_segments: float = 100
    """Data segments within that time, below which nothing is said. [H]"""
    connect_stuck_count: float = 5
    """connect()s to one destination without an answer: connect-stuck. [H]"""
    connect_stuck_repeats: float = 2
    """SYNs that each of them has repeated. [H]"""
    zero_window_age_s: float = 5.0
    """A peer's closed window: zero-window. [H]"""
    memory_critical_share: float = 0.9
    """Of the last figure of tcp_mem: tcp-memory is critical. [H]"""


DEFAULT = Thresholds()


def allowed_range(name: str) -> tuple[float, float]:
    """The least and the most that a threshold may be set to."""
    return (0.01, 1.0) if name.endswith(("_share", "_returned")) else (0.1, 1e9)
