"""Groups, listeners and timelines as records: name of the field → value, None where it is not known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from tcpwatch.exporters.csv_writer import BLOCK, records_csv
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.lifecycle.history import Moment, begins_with_last_ack
from tcpwatch.model.listeners.listeners import Listener
from tcpwatch.model.listeners.queue_limits import LimitSource
from tcpwatch.model.query.groups import SocketGroup
from tcpwatch.model.query.timeline import Timeline, timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArrangement
from tcpwatch.model.states import STATE_ORDER, State

_TIMED_STATES = tuple(state for state in STATE_ORDER if state not in (State.LISTEN, State.CLOSED))


def group_record(group: SocketGroup, unsupported: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a group; None for `unsupported` ones."""
    record: dict[str, Any] = {
        "by": group.by.value,
        "group": group.name,
        "filter": group.filter,
        "sockets": group.sockets,
        "share": round(group.share, 6),
        "established": group.established,
        "rx_bytes_per_s": _rounded(group.rx_per_s),
        "tx_bytes_per_s": _rounded(group.tx_per_s),
        "retransmits_per_s": _rounded(group.retransmits_per_s),
        "recv_queue": group.recv_queue,
        "send_queue": group.send_queue,
    }
    return {name: None if name in unsupported else value for name, value in record.items()}


def listener_record(listener: Listener) -> dict[str, Any]:
    """Return the fields of a listening socket. Each member of a group has the figures of the whole group."""
    process = listener.owner.processes[0] if listener.owner else None
    accept, syn = listener.accept_queue, listener.syn_queue
    return {
        "local_address": listener.local_address,
        "local_port": listener.local_port,
        "process": process.name if process else None,
        "pid": process.pid if process else None,
        "accept_queue": accept.depth,
        "accept_limit": accept.limit,
        "accept_peak": listener.accept_peak,
        "accept_capped_by": _limit_source(listener.accept_limit_source),
        "syn_queue": syn.depth,
        "syn_limit": syn.limit,
        "syn_peak": listener.syn_peak,
        "syn_capped_by": _limit_source(listener.syn_limit_source),
        "syn_repeated": listener.retransmitted,
        "accepted_per_s_seen": _rounded(listener.accepted_per_s),
        "drops": listener.drops,
        "drops_per_s": _rounded(listener.drops_per_s),
        "oldest_wait_s": _rounded(listener.waiting_s),
        "waits_longer": str(listener.waiting_is_minimum).lower() if listener.waiting_s is not None else None,
        "gave_up": listener.gave_up if accept.depth is not None else None,
        "group": listener.group_size,
        "interface": listener.interface,
        "inode": listener.inode or None,
        "cookie": listener.cookie,
        "held_by": _pids(listener.owner.processes) if listener.owner else None,
        "accepted_by": _pids(listener.accepted_by),
    }


def _pids(processes: Iterable[Process]) -> str | None:
    """Return process ids, ascending, with spaces between them."""
    return " ".join(map(str, sorted(process.pid for process in processes))) or None


def timeline_record(row: Timeline) -> dict[str, Any]:
    """Return the fields of a timeline; times are Unix seconds, `<state>_s` is the time spent in that state.

    `begin_known` and `end_known` are the origin of the time: poll, event (a destroy event) or trace. `_slack_s` is how
    much earlier it may have been, None where that is unknown.
    """
    spent = dict.fromkeys(_TIMED_STATES, 0.0)
    for stretch in row.periods:
        if stretch.state in spent:
            spent[stretch.state] += max(0.0, stretch.duration_s(row.now))
    seen = {stretch.state for at, stretch in enumerate(row.periods) if not begins_with_last_ack(stretch, at == 0)}
    return {
        "cookie": row.cookie,
        "local_address": row.local[0],
        "local_port": row.local[1],
        "remote_address": row.remote[0],
        "remote_port": row.remote[1],
        "role": row.role.word if row.role else None,
        "process": row.process or None,
        "pid": row.pid,
        "live": row.live,
        "state": row.state.name if row.state is not None else None,
        "ending": row.ending.word if row.ending is not None else None,
        "received_bytes": row.received_bytes,
        "sent_bytes": row.sent_bytes,
        "length_s": round(row.length_s, 6),
        **_moment_fields("begin", row.begin, row.began_earlier),
        **_moment_fields("end", row.end, False),
        **{f"{state.name.lower()}_s": round(spent[state], 6) if state in seen else None for state in _TIMED_STATES},
    }


def timelines_csv(chosen: TimelineArrangement) -> Iterator[str]:
    """Yield the timelines in the chosen order as CSV text."""
    blocks = (timelines_at(chosen, first, first + BLOCK) for first in range(0, len(chosen), BLOCK))
    return records_csv(map(timeline_record, chain.from_iterable(blocks)))


def tab_separated(record: Mapping[str, Any]) -> str:
    """Return the record's values with tabs between them; empty for None."""
    return "\t".join("" if value is None else str(value) for value in record.values())


def _moment_fields(name: str, moment: Moment | None, is_minimum: bool) -> dict[str, Any]:
    if moment is None:
        return dict.fromkeys((name, f"{name}_known", f"{name}_slack_s"))
    bounded = not is_minimum and moment.slack_s == moment.slack_s
    return {
        name: round(moment.time, 6),
        f"{name}_known": moment.origin.name.lower(),
        f"{name}_slack_s": round(moment.slack_s, 6) if bounded else None,
    }


def _limit_source(source: LimitSource) -> str | None:
    return None if source is LimitSource.UNKNOWN else source.value


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
