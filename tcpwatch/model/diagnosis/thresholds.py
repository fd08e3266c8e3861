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


DEFAULT = Thresholds()


def allowed(name: str) -> tuple[float, float]:
    """The least and the most that a threshold may be set to."""
    return (0.01, 1.0) if name.endswith(("_share", "_returned")) else (0.1, 1e9)
