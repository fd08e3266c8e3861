"""Depth and limit of a listener's accept queue and SYN queue, and which setting is the limit.

Accept queue: `idiag_wqueue` of a listener is min(backlog given to listen(), net.core.somaxconn) (sock_diag(7)).
SYN queue: the same value; with tcp_syncookies=0 no more than three quarters of tcp_max_syn_backlog, as the kernel
keeps the last quarter for peers that have connected before (tcp_conn_request in net/ipv4/tcp_input.c).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcpwatch import units
from tcpwatch.sample import Sample


@dataclass(frozen=True, slots=True)
class Queue:
    """Current depth and limit; None where unknown. The kernel lets a queue hold limit + 1 connections (Linux 6.18)."""

    depth: int | None
    limit: int | None

    @property
    def share(self) -> float:
        """Depth / limit; 0 where either is unknown. A limit of 0 counts as 1, since one connection fits."""
        return 0.0 if self.depth is None or self.limit is None else self.depth / max(self.limit, 1)

    @property
    def is_over_limit(self) -> bool:
        """Return whether the queue is full: the kernel adds nothing more."""
        return self.depth is not None and self.limit is not None and self.depth > self.limit


UNKNOWN_QUEUE = Queue(None, None)

SYN_QUEUE_SYSCTLS = ("tcp_syncookies", "tcp_max_syn_backlog")
"""They decide the limit of a SYN queue, and what the kernel does when it is full."""


class LimitSource(enum.Enum):
    """The setting that is a queue's limit; the value is its name for people."""

    SOMAXCONN = "net.core.somaxconn"
    LISTEN = "listen()"
    """The application's argument, or the value that somaxconn had when the application called listen()."""
    SYN_BACKLOG = "tcp_max_syn_backlog"
    """Three quarters of it."""
    UNKNOWN = units.UNKNOWN


def accept_limit_source(limit: int | None, somaxconn: int | None) -> LimitSource:
    """Return the setting that is the limit of an accept queue."""
    if limit is None or somaxconn is None:
        return LimitSource.UNKNOWN
    return LimitSource.SOMAXCONN if limit == somaxconn else LimitSource.LISTEN


def syn_queue_limits(sample: Sample, row: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the SYN queue's limit of each listening row, and whether tcp_max_syn_backlog is that limit."""
    backlog = sample.table["idiag_wqueue"][row].astype(np.float64)
    max_syn_backlog = sample.sysctls.get("tcp_max_syn_backlog")
    if sample.sysctls.get("tcp_syncookies") != 0 or max_syn_backlog is None:
        return backlog, np.zeros(len(backlog), np.bool_)
    three_quarters = max_syn_backlog - (max_syn_backlog >> 2)
    return np.minimum(backlog, three_quarters), backlog > three_quarters
