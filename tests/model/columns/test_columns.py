"""The list of columns: the public contract of the exported ones, and each column's values, order and text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tcpwatch.kernel.proc import owner_finder
from tcpwatch.model.columns.columns import BY_KEY, COLUMNS, EXPORTED, IN_TABLE, MARK_SIGNS, SocketColumn
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import STATE_ORDER, State
from tests.support.kernel.infos import make_infos
from tests.support.views import Sock, make_rows, sock

CONTRACT = [
    "state", "local_address", "local_port", "remote_address", "remote_port", "recv_queue", "send_queue", "timer",
    "timer_s", "retransmits", "role", "uid", "user", "closer", "phase", "pid", "process", "pids",
    "accepted_by", "command",
    "owner_unknown", "inode", "cookie", "interface", "cgroup_id", "shutdown", "age_s", "state_age_s",
    "rx_bytes_per_s", "tx_bytes_per_s", "rtt_ms", "limited_by", "retransmits_total",
    "congestion",
]  # fmt: skip
ALL_STATES = [sock(state, f"10.0.0.1:{80 + state}", f"192.0.2.1:{4000 + state}") for state in State]
FULL = sock(
    "ESTAB", "10.0.0.1:443", "192.0.2.9:50000", process="nginx", pid=12, command="nginx -g", also=[(34, "worker")],
    uid=33, user="www", recv_queue=5, send_queue=200_000, timer="on", timer_s=1.204, retransmits=3, role="server",
    closer="peer", age_s=12.3456, state_age_s=2, inode=99, interface="eth0", cgroup_id=7, shutdown=1, cookie=2**64 - 1,
)  # fmt: skip
BARE = sock("TIME_WAIT", "[2001:db8::1]:9", "[2001:db8::2]:1", user="root", begin_seen=False, age_s=7, cookie=4)
ANY = sock("LISTEN", "[::]:80", "[::]:0", cookie=5)
MAPPED = sock("ESTAB", "10.0.0.1:80", "192.0.2.1:4000", mapped=True, cookie=6)


SENDING = {
    "congestion": b"cubic",
    "rtt": 23_456,
    "total_retrans": 12,
    "busy_time": 4_000_000,
    "rwnd_limited": 4_000_000,
}
ROUND_TRIPS = [
    (999, "0.999 ms", "0.999 ms"), (1_000, "1.00 ms", "1 ms"), (9_994, "9.99 ms", "9.994 ms"),
    (9_995, "10.0 ms", "9.995 ms"), (10_600, "10.6 ms", "10.6 ms"), (99_949, "99.9 ms", "99.949 ms"),
    (99_950, "100 ms", "99.95 ms"), (100_400, "100 ms", "100.4 ms"),
]  # fmt: skip
THROUGHPUT = Throughput(
    make_infos(
        {
            2**64 - 1: {**SENDING, "bytes_received": 5_001},
            7: {"rtt": 45},
            8: {"rtt": 1_250_000},
            **{at: {"rtt": rtt} for at, (rtt, *_) in enumerate(ROUND_TRIPS, 20)},
        },
        1005,
    ),
    make_infos({2**64 - 1: {}}),
)


def value(key: str, spec: Sock) -> Any:
    return BY_KEY[key].values(replace(make_rows([spec]), throughput=THROUGHPUT))[0]


def shown(key: str, spec: Sock, exact: bool = False) -> str:
    return BY_KEY[key].show(value(key, spec), exact)


def test_exported_keys_and_their_order_are_a_contract() -> None:
    assert [column.key for column in EXPORTED] == CONTRACT


def test_keys_are_unique_and_every_column_has_help() -> None:
    assert len(BY_KEY) == len(COLUMNS)
    assert all(column.help and column.title and column.width > 0 for column in COLUMNS)
    assert IN_TABLE[0].key == "state"
    assert all(column.exported or column.in_table for column in COLUMNS)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.key)
@pytest.mark.parametrize("specs", [ALL_STATES, [FULL, BARE, ANY, MAPPED], []], ids=["states", "kinds", "none"])
def test_every_column_works_on_every_row(column: SocketColumn, specs: list[Sock]) -> None:
    rows = make_rows(specs)
    values = column.values(rows)
    assert len(values) == len(rows)
    for exact in (False, True):
        assert all(column.show(one, exact).isprintable() for one in values)
    for key in column.sort(rows):
        assert key.shape == (len(rows),)
    if column.exported:
        assert json.loads(json.dumps(values, allow_nan=False)) == values


EXPORTS: dict[str, tuple[object, object]] = {
    # Values of the rows FULL and BARE: unknown is None, not 0.
    "state": ("ESTABLISHED", "TIME_WAIT"),
    "local_address": ("10.0.0.1", "2001:db8::1"),
    "local_port": (443, 9),
    "remote_address": ("192.0.2.9", "2001:db8::2"),
    "remote_port": (50_000, 1),
    "recv_queue": (5, 0),
    "send_queue": (200_000, 0),
    "timer": ("on", None),
    "timer_s": (1.204, None),
    "retransmits": (3, 0),
    "role": ("server", None),
    "uid": (33, None),
    "user": ("www", None),
    "closer": ("peer", None),
    "phase": ("open", "teardown"),
    "pid": (12, None),
    "process": ("nginx", None),
    "pids": ([12, 34], None),
    "accepted_by": (None, None),
    "command": ("nginx -g", None),
    "owner_unknown": (None, WHY_UNKNOWN[owner_finder.UNKNOWN_NO_PROCESS]),
    "inode": (99, 0),
    "cookie": (2**64 - 1, 4),
    "interface": ("eth0", None),
    "cgroup_id": (7, None),
    "shutdown": ("receive", None),
    "age_s": (12.346, 7.0),
    "state_age_s": (2.0, 7.0),
    "rx_bytes_per_s": (1000.2, None),
    "tx_bytes_per_s": (0.0, None),
    "rtt_ms": (23.456, None),
    "limited_by": ("receiver", None),
    "retransmits_total": (12, None),
    "congestion": ("cubic", None),
}


@pytest.mark.parametrize("key", CONTRACT)
def test_exported_values(key: str) -> None:
    full, bare = EXPORTS[key]
    assert (value(key, FULL), value(key, BARE)) == (full, bare)


@pytest.mark.parametrize(("inode", "uid", "known"), [(9, 0, 0), (9, 7, 7), (0, 7, 7), (0, 0, None)])
def test_uid_0_without_a_process_is_unknown(inode: int, uid: int, known: int | None) -> None:
    assert value("uid", sock("ESTAB", "10.0.0.1:1", inode=inode, uid=uid)) == known


def test_mapped_addresses_are_shown_as_ipv4() -> None:
    assert (value("local_address", MAPPED), value("remote_address", MAPPED)) == ("10.0.0.1", "192.0.2.1")


@pytest.mark.parametrize(("mask", "word"), [(0, None), (1, "receive"), (2, "send"), (3, "both"), (None, None)])
def test_shutdown(mask: int | None, word: str | None) -> None:
    assert value("shutdown", sock("ESTAB", "10.0.0.1:1", shutdown=mask)) == word


@pytest.mark.parametrize(
    ("key", "spec", "text", "exact"),
    [
        ("local", FULL, "10.0.0.1%eth0:https", "10.0.0.1%eth0:443"),
        ("local", ANY, "*:http", "[::]:80"),
        ("remote", ANY, "*:*", "[::]:*"),
        ("local", BARE, "[2001:db8::1]:discard", "[2001:db8::1]:9"),
        ("send_queue", FULL, "195 k", "200000"),
        ("owner", FULL, "nginx[12] +1", "nginx[12] +1"),
        ("owner", BARE, "", ""),
        ("timers", FULL, "on 1.2 s", "on 1.2 s"),
        ("timers", BARE, "", ""),
        ("state_age", FULL, "2 s", "2 s"),
        ("age", BARE, ">7 s", ">7 s"),
        ("state_age", BARE, ">7 s", ">7 s"),
        ("user_or_uid", FULL, "www", "33"),
        ("user_or_uid", BARE, "", ""),
        ("timer_s", BARE, "–", "–"),
        ("rx_bytes_per_s", FULL, "1000", "1000"),
        ("tx_bytes_per_s", BARE, "–", "–"),
        ("rtt_ms", FULL, "23.5 ms", "23.456 ms"),
        ("rtt_ms", replace(FULL, cookie=7), "0.045 ms", "0.045 ms"),
        ("rtt_ms", replace(FULL, cookie=8), "1250 ms", "1250 ms"),
        ("rtt_ms", BARE, "–", "–"),
        *(("rtt_ms", replace(FULL, cookie=at), *texts) for at, (_, *texts) in enumerate(ROUND_TRIPS, 20)),
        ("limited_by", FULL, "receiver", "receiver"),
        ("limited_by", BARE, "–", "–"),
        ("retransmits_total", FULL, "12", "12"),
        ("congestion", FULL, "cubic", "cubic"),
        ("congestion", BARE, "–", "–"),
        ("interface", BARE, "–", "–"),
    ],
)
def test_texts(key: str, spec: Sock, text: str, exact: str) -> None:
    assert (shown(key, spec), shown(key, spec, exact=True)) == (text, exact)


def test_an_age_is_a_minimum_for_flows_older_than_tcpwatch_until_the_state_changes() -> None:
    changed = sock("CLOSE_WAIT", "10.0.0.1:1", begin_seen=False, age_s=60, state_age_s=3)
    assert (shown("age", changed), shown("state_age", changed)) == (">1 m 00 s", "3 s")


@pytest.mark.parametrize(
    ("facts", "ages"),
    [
        ({"begin_seen": False, "age_s": 0}, (None, None)),  # a single look
        ({"begin_seen": False, "age_s": 5}, (5.0, 5.0)),  # since it was first seen
        ({"begin_seen": False, "age_s": 5, "state_age_s": 0}, (5.0, 0.0)),
        ({"age_s": 0}, (0.0, 0.0)),  # it has just begun
    ],
)
def test_the_age_of_an_older_flow_is_unknown_at_first(facts: dict[str, Any], ages: tuple[float, float]) -> None:
    spec = sock("ESTAB", "10.0.0.1:1", **facts)
    assert (value("age_s", spec), value("state_age_s", spec)) == ages


@pytest.mark.parametrize("code", sorted(WHY_UNKNOWN))
def test_an_unknown_owner_has_a_reason(code: int) -> None:
    spec = sock("ESTAB", "10.0.0.1:1", owner_code=code)
    assert value("owner_unknown", spec) == WHY_UNKNOWN[code]
    assert shown("owner", spec) in ("", "?", "…")
    assert value("pid", spec) is None


def test_the_owner_of_a_closed_socket_is_not_looked_up_later() -> None:
    spec = sock("ESTAB", "10.0.0.1:1", owner_code=owner_finder.UNKNOWN_NOT_LOOKED)
    assert value("owner_unknown", spec) == "not looked up yet"
    assert value("owner_unknown", replace(spec, mark=Mark.CLOSED)) == "unknown"


def shared(state: str, *names: str, accepting: int | None) -> Rows:
    """Return the row of a socket with processes of these names, with pids from 1 on."""
    rows = make_rows([sock(state, "10.0.0.1:1", process=names[0], pid=1, also=[*enumerate(names[1:], 2)])])
    return replace(rows, owners=[replace(rows.owners[0], accepting=accepting)])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (shared("LISTEN", "app", "systemd", accepting=1), (1, "app", [1, 2], [1])),
        (shared("LISTEN", "nginx", "nginx", "nginx", accepting=2), (1, "nginx", [1, 2, 3], [1, 2])),
        (shared("LISTEN", "app", "systemd", accepting=0), (1, "app", [1, 2], None)),
        (shared("LISTEN", "app", accepting=None), (1, "app", [1], [1])),
        (shared("ESTAB", "app", "app", accepting=None), (1, "app", [1, 2], None)),
        (shared("ESTAB", "nginx", "nginx", accepting=2), (None, "nginx", None, None)),
        (shared("ESTAB", "app", "systemd", accepting=0), (None, None, None, None)),
    ],
)
def test_processes_that_share_a_listener(rows: Rows, expected: tuple[object, ...]) -> None:
    assert tuple(BY_KEY[key].values(rows)[0] for key in ("pid", "process", "pids", "accepted_by")) == expected


def held_by(name: str, pid: int) -> Sock:
    return sock("ESTAB", "10.0.0.1:1", process=name, pid=pid)


def with_timer(seconds: float) -> Sock:
    return sock("ESTAB", "10.0.0.1:1", timer="on", timer_s=seconds)


def sorted_by(key: str, rows: Rows) -> list[int]:
    """Return the cookies in the order of a column."""
    return [int(cookie) for cookie in rows.cookie[np.lexsort(BY_KEY[key].sort(rows)[::-1])]]


@pytest.mark.parametrize(
    ("key", "specs"),
    [
        # Each list is in order: cookies count from 1.
        ("state", [sock(state, "10.0.0.1:1") for state in STATE_ORDER]),
        ("local", [sock("ESTAB", end) for end in ("9.0.0.1:99", "10.0.0.1:8", "10.0.0.1:443", "200.0.0.1:1")]),
        ("local", [sock("LISTEN", end, "[::]:0") for end in ("[::1]:1", "[::1]:2", "[2001:db8::1]:1")]),
        ("local", [sock("LISTEN", "200.0.0.1:9"), sock("LISTEN", "[::]:1", "[::]:0")]),
        ("remote", [sock("ESTAB", "10.0.0.1:1", end) for end in ("1.0.0.9:2", "1.0.0.10:1", "200.0.0.1:1")]),
        ("recv_queue", [sock("ESTAB", "10.0.0.1:1", recv_queue=n) for n in (0, 9, 10, 4_000_000_000)]),
        ("owner", [sock("ESTAB", "10.0.0.1:1"), *(held_by(*process) for process in (("a", 9), ("a", 10), ("b", 1)))]),
        ("timers", [sock("ESTAB", "10.0.0.1:1"), *(with_timer(seconds) for seconds in (0, 2, 10))]),
        ("state_age", [sock("ESTAB", "10.0.0.1:1", age_s=99, state_age_s=s) for s in (0, 1, 50)]),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_order(key: str, specs: list[Sock], reverse: bool) -> None:
    """The result does not depend on the order of the rows."""
    rows = make_rows(specs)
    order = np.arange(len(rows))
    assert sorted_by(key, rows.take(order[::-1] if reverse else order)) == list(range(1, len(specs) + 1))


@pytest.mark.parametrize("code", sorted(WHY_UNKNOWN))
def test_a_socket_of_an_unknown_owner_comes_before_those_of_known_ones(code: int) -> None:
    rows = make_rows([sock("ESTAB", "10.0.0.1:1", owner_code=code), held_by("a", 9), held_by("b", 1)])
    assert sorted_by("owner", rows) == [1, 2, 3]


@pytest.mark.parametrize(
    "key", ["rx_bytes_per_s", "tx_bytes_per_s", "rtt_ms", "limited_by", "retransmits_total", "congestion"]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_order_of_throughput(key: str, reverse: bool) -> None:
    """Unknown values (cookie 4) come before all known ones, also before 0."""
    names = ("bytes_received", "bytes_acked", "total_retrans")
    busy = {1: {"rtt": 1}, 2: {"busy_time": 10**6, "rwnd_limited": 10**6, "rtt": 2}, 3: {"busy_time": 10**6, "rtt": 10}}
    last: dict[int, dict[str, Any]] = {cookie: dict.fromkeys(names, 5 * (cookie - 1)) | busy[cookie] for cookie in busy}
    for cookie, name in ((1, b"bbr"), (2, b"cubic"), (3, b"highspeed-2")):
        last[cookie]["congestion"] = name
    last[1]["bytes_acked"] += key == "limited_by"
    throughput = Throughput(make_infos(last, 1001), make_infos({cookie: {} for cookie in last}))
    rows = replace(make_rows([sock("ESTAB", "10.0.0.1:1")] * 4), throughput=throughput)
    order = np.arange(len(rows))
    assert sorted_by(key, rows.take(order[::-1] if reverse else order)) == [4, 1, 2, 3]


def test_marks_differ_without_colour() -> None:
    assert MARK_SIGNS.keys() == set(Mark)
    assert len(set(MARK_SIGNS.values())) == len(Mark)


# The table: how wide each column is, on a narrow screen and on a wide one. One letter is one cell.
NARROW = [
    "State      |", "Local                |", "Remote               |", "Recv-Q|", "Send-Q|", "  Rx/s|", "  Tx/s|",
    "     RTT|", "Limit      |", "Retrans|", "Congestion|", "Process   |", "Timer             |", "Retr|",
    "Role    |", "  In state|", "       Age|", "User    |", "Closed by|", "Phase    |", "Command             |",
    "     Inode|", "    Cookie|", "If      |", "  Cgroup|", "Shutdown|",
]  # fmt: skip
MAY_GROW = {
    "local": 26, "remote": 26, "recv_queue": 4, "send_queue": 4, "rx_bytes_per_s": 5, "tx_bytes_per_s": 5, "rtt_ms": 5,
    "owner": 14, "user_or_uid": 4, "command": 40,
}  # fmt: skip
DROPPED = [
    "congestion", "shutdown", "command", "phase", "interface", "cookie", "inode", "cgroup_id", "closer", "age",
    "user_or_uid", "retransmits_total role", "retransmits", "rx_bytes_per_s tx_bytes_per_s rtt_ms limited_by timers",
    "state_age", "send_queue", "owner", "recv_queue", "local", "state remote",
]  # fmt: skip


def test_the_widths_of_the_table() -> None:
    shown = [f"{one.title:{'>' if one.right else '<'}{one.width}}|" for one in IN_TABLE]
    assert shown == NARROW
    assert {one.key: one.grow for one in IN_TABLE if one.grow} == MAY_GROW


def test_the_order_in_which_a_narrow_screen_drops_columns() -> None:
    by_priority: dict[int, list[str]] = {}
    for one in IN_TABLE:
        by_priority.setdefault(one.priority, []).append(one.key)
    assert [" ".join(by_priority[number]) for number in sorted(by_priority, reverse=True)] == DROPPED
    assert {one.key for one in IN_TABLE if one.priority == 0} == {"state", "remote"}, "never dropped"
