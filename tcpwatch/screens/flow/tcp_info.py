"""info_sections: tcp_info as text: every field that the kernel sent, with its unit, in groups.

Source: include/uapi/linux/tcp.h and net/ipv4/tcp.c (tcp_get_info) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tcpwatch import units
from tcpwatch.model.states import State
from tcpwatch.widgets.sections import Entry, Section

_NEVER_U4 = 0xFFFF_FFFF
_NO_THRESHOLD = 0x7FFF_FFFF
_NO_RATE = 0xFFFF_FFFF_FFFF_FFFF

FormatField = Callable[[int, bool], str]
"""(value, exact) → text."""


def _us(value: int, exact: bool) -> str:
    if exact or value < 1000:
        return f"{value:,} µs"
    return f"{value / 1000:,.1f} ms" if value < 1_000_000 else units.duration(value / 1e6)


def _min_rtt(value: int, exact: bool) -> str:
    return units.UNKNOWN if value == _NEVER_U4 else _us(value, exact)


def _ms(value: int, exact: bool) -> str:
    return f"{value:,} ms" if exact or value < 1000 else units.duration(value / 1000)


def _rate(value: int, exact: bool) -> str:
    return "unlimited" if value == _NO_RATE else units.byte_rate(value, exact)


def _segments(value: int, exact: bool) -> str:
    return f"{units.count(value, exact)} segments"


def _threshold(value: int, exact: bool) -> str:
    return "none yet" if value >= _NO_THRESHOLD else _segments(value, exact)


def _state(value: int, exact: bool) -> str:
    return State(value).name if value in State._value2member_map_ else str(value)


_CA_STATES = ("open", "disorder", "window reduced", "recovery", "loss")


def _ca_state(value: int, exact: bool) -> str:
    return _CA_STATES[value] if value < len(_CA_STATES) else str(value)


_OPTIONS = ("timestamps", "SACK", "window scale", "ECN", "ECN seen", "SYN data", "µs timestamps", "fast open")


def _options(value: int, exact: bool) -> str:
    return ", ".join(name for bit, name in enumerate(_OPTIONS) if value >> bit & 1) or "none"


def _shift(value: int, exact: bool) -> str:
    return f"× {1 << value:,}"


def _yes_no(value: int, exact: bool) -> str:
    return "yes" if value else "no"


def _unavailable(value: int, exact: bool) -> str:
    return units.UNKNOWN


_FASTOPEN_FAILED = ("no failure", "no cookie", "data not acknowledged", "SYN retransmitted")


def _fastopen(value: int, exact: bool) -> str:
    return _FASTOPEN_FAILED[value] if value < len(_FASTOPEN_FAILED) else str(value)


GROUPS: tuple[tuple[str, tuple[tuple[str, str, FormatField], ...]], ...] = (
    ("Round trip", (
        ("rtt", "smoothed", _us), ("rttvar", "variation", _us), ("min_rtt", "smallest", _min_rtt),
        ("rcv_rtt", "receiver's", _us), ("rto", "timeout (RTO)", _us), ("ato", "delayed ACK", _us),
    )),
    ("Congestion", (
        ("ca_state", "state", _ca_state), ("snd_cwnd", "window", _segments),
        ("snd_ssthresh", "ssthresh", _threshold),
        ("unacked", "unacknowledged", _segments), ("sacked", "SACKed", _segments), ("lost", "lost", _segments),
        ("retrans", "retransmitted", _segments), ("fackets", "forward ACKed", _segments),
        ("reordering", "reordering", _segments), ("reord_seen", "reordered", units.count),
        ("delivered", "delivered", _segments), ("delivered_ce", "with ECN mark", _segments),
    )),
    ("Rates", (
        ("delivery_rate", "delivery", _rate), ("pacing_rate", "pacing", _rate),
        ("max_pacing_rate", "pacing limit", _rate), ("delivery_rate_app_limited", "app-limited", _yes_no),
    )),
    ("Sending time", (
        ("busy_time", "busy sending", _us), ("rwnd_limited", "window-limited", _us),
        ("sndbuf_limited", "buffer-limited", _us),
    )),
    ("Retransmissions", (
        ("retransmits", "timeouts now", units.count), ("backoff", "backoff", units.count),
        ("probes", "window probes", units.count),
        ("total_retrans", "total", _segments), ("bytes_retrans", "bytes", units.byte_size),
        ("dsack_dups", "spurious (DSACK)", units.count), ("rehash", "path rehashes", units.count),
        ("total_rto", "timeouts", units.count), ("total_rto_recoveries", "RTO recoveries", units.count),
        ("total_rto_time", "recovery time", _ms),
    )),
    ("Sent", (
        ("bytes_sent", "sent", units.byte_size), ("bytes_acked", "acknowledged", units.byte_size),
        ("segs_out", "segments", units.count), ("data_segs_out", "with data", units.count),
        ("notsent_bytes", "not sent yet", units.byte_size), ("snd_wnd", "peer's window", units.byte_size),
        ("snd_mss", "segment size", units.byte_size), ("last_data_sent", "last data", _ms),
        ("last_ack_sent", "last ACK", _unavailable),  # the kernel does not keep it, and always sends 0
    )),
    ("Received", (
        ("bytes_received", "received", units.byte_size), ("segs_in", "segments", units.count),
        ("data_segs_in", "with data", units.count), ("rcv_ooopack", "out of order", units.count),
        ("rcv_wnd", "own window", units.byte_size), ("rcv_space", "buffer tuned to", units.byte_size),
        ("rcv_ssthresh", "window limit", units.byte_size), ("rcv_mss", "segment size", units.byte_size),
        ("last_data_recv", "last data", _ms), ("last_ack_recv", "last ACK", _ms),
    )),
    ("Negotiated", (
        ("state", "state", _state), ("options", "options", _options), ("fastopen_client_fail", "fast open", _fastopen),
        ("snd_wscale", "send scale", _shift), ("rcv_wscale", "receive scale", _shift),
        ("pmtu", "path MTU", units.byte_size), ("advmss", "MSS advertised", units.byte_size),
    )),
)  # fmt: skip
"""Title of each group, and its fields: the kernel's name without tcpi_, the label, and its format."""

_COUNTS = {"last_data_sent": "data_segs_out", "last_data_recv": "data_segs_in", "last_ack_recv": "delivered"}
"""Age of the last event of a kind → the number of these events. Without any, the kernel sends the age of the socket, or
the uptime of the host."""
_NOTES = {"bytes_acked": "bytes_acked-SYN-FIN", "bytes_received": "bytes_received-FIN"}
"""Fields that are shown without their control bytes (sockets.payload)."""
_KNOWN = frozenset(name for _, fields in GROUPS for name, _, _ in fields)


def info_sections(info: Mapping[str, int], exact: bool = False) -> list[Section]:
    """Return all groups; a field that was not sent is `–`, and a new one is shown with the kernel's name."""
    sections = [
        Section(title, [_entry(info, name, label, show, exact) for name, label, show in fields], 16)
        for title, fields in GROUPS
    ]
    unnamed = sorted(set(info) - _KNOWN)
    if unnamed:
        sections.append(Section("Other", [Entry(name, f"{info[name]:,}") for name in unnamed], 16))
    return sections


def _entry(info: Mapping[str, int], name: str, label: str, show: FormatField, exact: bool) -> Entry:
    value = info.get(name)
    if value is None:
        return Entry(label, units.UNKNOWN, note=name)
    note = _NOTES.get(name, name)
    if name not in _COUNTS:
        return Entry(label, show(value, exact), note=note)
    none = info.get(_COUNTS[name]) == 0
    return Entry(label, "none" if none else f"{show(value, exact)} ago", note=note)
