"""Listeners as CSV (RFC 4180, lines ended by a newline alone), one line a socket."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource

Value = str | int | float


def values_of(one: Listener) -> dict[str, Value]:
    """Name of the column → value; empty for what is not known. What a group has in common says each of its sockets."""
    process = one.owner.processes[0] if one.owner else None
    told = one.accept_queue.depth is not None
    values: dict[str, Value | None] = {
        "local_address": one.local_address,
        "local_port": one.local_port,
        "process": process.name if process else None,
        "pid": process.pid if process else None,
        "accept_queue": one.accept_queue.depth,
        "accept_limit": one.accept_queue.limit,
        "accept_peak": one.accept_peak,
        "accept_capped_by": _cap(one.accept_limit_source),
        "syn_queue": one.syn_queue.depth,
        "syn_limit": one.syn_queue.limit,
        "syn_peak": one.syn_peak,
        "syn_capped_by": _cap(one.syn_limit_source),
        "syn_repeated": one.retransmitted,
        "accepted_per_s_seen": _rounded(one.accepted_per_s),
        "drops": one.drops,
        "drops_per_s": _rounded(one.drops_per_s),
        "oldest_wait_s": _rounded(one.waiting_s),
        "waits_longer": str(one.waiting_is_minimum).lower() if one.waiting_s is not None else None,
        "gave_up": one.client_closed if told else None,
        "group": one.group_size,
        "interface": one.interface,
        "inode": one.inode or None,
        "cookie": one.cookie,
    }
    return {name: "" if value is None else value for name, value in values.items()}


def _cap(cap: LimitSource) -> str | None:
    return None if cap is LimitSource.UNKNOWN else cap.value


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def csv_lines(listeners: Sequence[Listener]) -> Iterator[str]:
    """A line of names, then one for each socket; nothing at all for none."""
    for at, one in enumerate(listeners):
        values = values_of(one)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if at == 0:
            writer.writerow(values)
        writer.writerow(values.values())
        yield text.getvalue()
