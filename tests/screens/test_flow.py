"""The flow screen: the facts of a connection, live and after its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from tcpwatch.app import TcpwatchApp
from tcpwatch.kernel.netlink.tcp_info import info_fields
from tcpwatch.kernel.netlink.uapi import TCP_INFO
from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, UNKNOWN_PERMISSION
from tcpwatch.model.columns.socket_values import WHY_UNKNOWN
from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.history import History
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.sockets.flow_graphs import FlowGraph
from tcpwatch.model.sockets.throughput import Throughput
from tcpwatch.model.states import State
from tcpwatch.model.view import FlowDetail, View
from tcpwatch.screens.flow.blocks import holding
from tcpwatch.screens.flow.page import FlowScreen
from tcpwatch.screens.flow.tcp_info import GROUPS, info_sections
from tcpwatch.screens.shared.page import FlowSelected
from tcpwatch.widgets.sections import wrapped
from tests.support.busy import HOSTILE
from tests.support.driving import at_sizes, at_widths, driven
from tests.support.flow_cases import (
    BY_PEER,
    NAN,
    OWNER,
    POLLED,
    RESET,
    TRACED,
    UNREACHABLE,
    archive_of,
    closed,
    moment,
    state_periods,
    wave,
)
from tests.support.kernel.infos import make_infos
from tests.support.shots import LARGE, SMALL, check_snapshot, make_app, page_shot, shot
from tests.support.views import NOW, Sock, make_view, sock

COOKIE = 7
NAMES = list(info_fields(bytes(TCP_INFO.itemsize)))  # as the kernel layer names them
INFO = {
    **{name: 3 + 977 * at for at, name in enumerate(NAMES)},
    "rtt": 23_456, "min_rtt": 0xFFFF_FFFF, "snd_ssthresh": 0x7FFF_FFFF, "max_pacing_rate": 0xFFFF_FFFF_FFFF_FFFF,
    "state": 1, "ca_state": 4, "options": 0b1011, "snd_wscale": 7, "rcv_wscale": 9,
    "delivery_rate_app_limited": 1, "fastopen_client_fail": 1, "bytes_sent": 12_345_678,
}  # fmt: skip
THROUGHPUT = Throughput(
    make_infos({COOKIE: {"bytes_received": 5_000, "bytes_acked": 9_000_000, "busy_time": 2_000_000}}, 1002),
    make_infos({COOKIE: {}}),
)


pytestmark = pytest.mark.usefixtures("utc")


def _flow(**given: Any) -> Sock:
    facts: dict[str, Any] = {
        "process": HOSTILE, "pid": 12, "command": f"/usr/bin/{HOSTILE} --for 服务器", "also": [(13, "worker")],
        "uid": 33, "user": "www-data", "recv_queue": 5, "send_queue": 123_456, "timer": "keepalive", "timer_s": 33,
        "role": "server", "age_s": 20, "state_age_s": 19, "cookie": COOKIE, "inode": 4711, "cgroup_id": 42,
        "shutdown": 2, "interface": "eth0",
    }  # fmt: skip
    state = given.pop("state", "ESTAB")
    local, remote = given.pop("ends", ("[2001:db8::1]:443", "[2001:db8::42]:40123"))
    return sock(state, local, remote, **{**facts, **given})


def _view(
    *socks: Sock,
    info: dict[str, int] | None = INFO,
    history: History = POLLED,
    ending: Ending | None = None,
    graph: FlowGraph | None = None,
    no_trace: str = "needs root",
    **given: Any,
) -> View:
    view = make_view(*socks, details={COOKIE: FlowDetail(info, (), history, ending, graph)}, **given)
    source = replace(view.sample.source, why_no_trace=no_trace)
    return replace(view, rows=replace(view.rows, throughput=THROUGHPUT), sample=replace(view.sample, source=source))


def _text(app: TcpwatchApp) -> str:
    """Everything on the screen and below it, in single blanks."""
    screen = app.screen
    assert isinstance(screen, FlowScreen)
    return " ".join(screen._flow.as_text().split())


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
async def test_snapshot(size: tuple[int, int]) -> None:
    app = make_app()
    async with driven(app, size) as pilot:
        app.show(_view(_flow(), graph=wave()))
        app.post_message(FlowSelected(COOKIE))
        await pilot.pause()
        check_snapshot(f"flow_{size[0]}x{size[1]}", page_shot(app))
        if size == SMALL:
            await pilot.press("pagedown")
            check_snapshot("flow_graphs_80x24", page_shot(app))
            await pilot.press("G")
            check_snapshot("flow_end_80x24", page_shot(app))


async def test_all_owners_are_shown_and_a_hostile_name_has_no_effect() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        for words in (f"{HOSTILE}[12]", "worker[13]", f"/usr/bin/{HOSTILE} --for 服务器", "www-data (33)"):
            assert words in _text(app)
        y, line = next((y, line) for y, line in enumerate(shot(app).splitlines()) if f"{HOSTILE}[12]" in line)
        await pilot.click(offset=(line.index(HOSTILE) + 12, y))
        assert not app._exit


@pytest.mark.parametrize(
    ("state", "accepting", "labels"),
    [
        ("ESTAB", None, ("process", "process")),
        ("TIME_WAIT", None, ("last held by", "last held by")),
        ("ESTAB", 0, ("one of", "one of")),
        ("LISTEN", 0, ("held by", "held by")),
        ("LISTEN", 1, ("accepted by", "held by")),
    ],
)
def test_how_a_process_is_connected_with_the_socket(state: str, accepting: int | None, labels: tuple[str, ...]) -> None:
    owner = _flow().owner
    assert owner is not None
    owner = replace(owner, accepting=accepting)
    assert tuple(holding(owner, at, State.parse(state)) for at in range(2)) == labels


async def test_why_there_is_no_owner() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.push_screen(FlowScreen(COOKIE))
        for code in (UNKNOWN_NO_PROCESS, UNKNOWN_PERMISSION):
            app.show(_view(_flow(process=None, owner_code=code)))
            await pilot.pause()
            assert WHY_UNKNOWN[code] in _text(app), code


async def test_the_owner_of_a_closed_connection_that_is_no_longer_kept_is_unknown() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(info=None, archive=archive_of(closed(_flow(), Ending.GIVEN_UP, State.SYN_SENT, owner=5))))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "Owner process: unknown socket user" in _text(app)
        assert "[2001:db8::42]:40123 closed before connecting" in _text(app)


async def test_states_with_times_and_durations() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow(closer="peer")))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        text = _text(app)
        assert "SYN_RCVD: 22:13:00.0, 1 s, polled ±1.0 s ESTABLISHED: 22:13:01.0, 19 s, polled ±1.0 s" in text
        assert "state: ESTABLISHED The handshake is done" in text  # no other name of the state beside it
        assert "the other end first (passive close)" in text


async def test_a_connection_older_than_the_first_sample_has_a_minimum_age() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow(begin_seen=False, state_age_s=20), history=History()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "in this state: at least 20 s known for: at least 20 s" in _text(app)
        assert "ESTABLISHED: 22:13:00.0, at least 20 s, polled" in _text(app)
        changed = History(
            state_periods(
                (State.ESTABLISHED, moment(20, Origin.POLL)), (State.CLOSE_WAIT, moment(5, Origin.POLL)), least=True
            )
        )
        app.show(_view(_flow(begin_seen=False, state="CLOSE_WAIT", state_age_s=5), history=changed))
        await pilot.pause()
        assert "ESTABLISHED: 22:13:00.0, at least 15 s, polled CLOSE_WAIT: 22:13:15.0, 5 s" in _text(app)


async def test_a_connection_that_closes_keeps_its_last_facts() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        app.show(make_view(step=3, closed=[_flow(send_queue=9)]))
        app.show(make_view(step=6))
        await pilot.pause()
        text = _text(app)
        assert "closed, was ESTABLISHED" in shot(app)
        for words in ("Closed 3 s ago", "smoothed: 23.5 ms", "Values of 5 s ago", "9 B not acknowledged",
                      "ESTABLISHED: 22:13:01.0, 21 s", "CLOSED: 22:13:22.0, polled ±1.0 s"):  # fmt: skip
            assert words in text


async def test_a_connection_without_detail_has_the_state_of_its_row() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(make_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        app.show(make_view(_flow(state="CLOSE_WAIT", state_age_s=1)))
        await pilot.pause()
        assert "States CLOSE_WAIT: 22:13:19.0, 1 s, polled" in _text(app)


TRACE = TraceStats(on=True, drop_reasons={17: "TCP_LISTEN_OVERFLOW"}, reset_reasons={2: "TCP_ABORT_ON_CLOSE"})


def _orderly() -> View:
    """Return a View of a traced connection in TIME_WAIT with the final tcp_info of its record."""
    flow = _flow(state="TIME_WAIT", role="client", closer="local", process=None, state_age_s=1.25, age_s=63.5)
    record = closed(flow, Ending.BY_US, State.FIN_WAIT_2, {"rtt": 1234})
    shown: dict[str, Any] = {"no_trace": "", "trace": TRACE, "graph": wave(), "archive": archive_of(record)}
    return _view(flow, info=None, history=TRACED, ending=Ending.BY_US, **shown)


def _reset() -> View:
    """Return a View of a connection that was reset before the screen opens."""
    record = closed(_flow(), Ending.RESET_SENT, State.ESTABLISHED, {"rtt": 1234, "bytes_acked": 77}, owner=5)
    known = replace(archive_of(record), owners=[OWNER], owners_from=5)
    return _view(info=None, history=RESET, ending=Ending.RESET_SENT, no_trace="", trace=TRACE, archive=known)


def _by_peer() -> View:
    record = closed(
        _flow(process=None), Ending.BY_PEER, State.LAST_ACK, begin=NOW - 200, begin_slack=NAN, end=NOW - 4.25
    )
    return _view(info=None, history=BY_PEER, ending=Ending.BY_PEER, archive=archive_of(record))


def _unreachable() -> View:
    record = closed(_flow(role="client"), Ending.UNREACHABLE, State.SYN_SENT, begin=NOW - 4, end=NOW - 2.5)
    return _view(
        info=None, history=UNREACHABLE, ending=Ending.UNREACHABLE, no_trace="", trace=TRACE, archive=archive_of(record)
    )


ENDS = {"orderly": _orderly, "reset": _reset, "by_peer": _by_peer, "unreachable": _unreachable}


async def test_snapshot_of_an_end() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        async for width, height in at_sizes(pilot, (SMALL, LARGE)):
            for name, view in ENDS.items():
                app.show(view())
                app.push_screen(FlowScreen(COOKIE))
                await pilot.pause()
                check_snapshot(f"flow_{name}_{width}x{height}", page_shot(app))
                await pilot.press("escape")


async def test_an_orderly_end_while_in_time_wait() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_orderly())
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        text = _text(app)
        for words in ("TIME_WAIT, closed by us", "its FIN came before the peer's",
                      "SYN_SENT: 22:12:16.500, 2.0 ms, trace",
                      "TIME_WAIT: 22:13:18.750, 1.2 s, trace", "2 retransmissions, 1 segment dropped",
                      "22:13:16.500 dropped TCP_LISTEN_OVERFLOW", "smoothed: 1.2 ms", "Values of 2 s ago",
                      "rtt: max 84.0 ms, now 81.0 ms, min 20.0 ms"):  # fmt: skip
            assert words in text
        assert "No trace" not in text
        assert "last known values" not in text


async def test_a_connection_that_closed_before_the_screen_opened() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_reset())
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        text = _text(app)
        for words in ("[2001:db8::1]:443 ← [2001:db8::42]:40123 reset sent", "Reset sent in ESTABLISHED", "nginx[12]",
                      "SYN_RCVD: –, unknown, trace", "CLOSED: 22:13:18.000, trace", "lifetime: 28 s",
                      "1 reset sent 22:13:18.000 reset sent TCP_ABORT_ON_CLOSE", "Closed 2 s ago", "smoothed: 1.2 ms",
                      "acknowledged: 77 B", "server: the other end opened"):  # fmt: skip
            assert words in text


async def test_a_closed_connection_before_its_detail_comes() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view(archive=archive_of(closed(_flow(process=None), Ending.UNKNOWN, State.ESTABLISHED))))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "Expected with the next poll." in shot(app)
        assert "closed, was ESTABLISHED" in shot(app)
        assert "It ended; how is not known." in shot(app)


async def test_a_connection_that_closes_on_screen_keeps_its_owner() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        record = closed(_flow(process=None, owner_code=UNKNOWN_NO_PROCESS), Ending.TIMED_OUT, State.ESTABLISHED)
        app.show(_view(step=3, info=None, ending=Ending.TIMED_OUT, archive=archive_of(record)))
        await pilot.pause()
        text = _text(app)
        assert "worker[13]" in text
        assert "Timed out in ESTABLISHED: the peer stopped answering." in text
        assert "smoothed: 23.5 ms" in text  # the record has none


async def test_without_a_trace_a_line_gives_the_reason() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "No trace (needs root): times are exact to one poll." in shot(app)


@pytest.mark.parametrize("no_color", [False, True])
async def test_every_theme_shows_the_same(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(theme="ansi-dark")
    async with driven(app, LARGE) as pilot:
        app.show(_orderly())
        for theme in ("ansi-dark", "textual-light", "textual-dark"):
            app.theme = theme
            app.push_screen(FlowScreen(COOKIE))
            await pilot.pause()
            assert app.current_theme.name == theme
            check_snapshot("flow_orderly_160x50", page_shot(app))
            await pilot.press("escape")


async def test_a_long_title_shortens_the_addresses_but_not_the_state() -> None:
    ends = "[2001:db8:1111:2222:3333:4444:5555:6666]:44321", "[2001:db8:1111:2222:3333:4444:5555:7777]:55432"
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_view(_flow(ends=ends)))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        title = shot(app).splitlines()[1]
        assert title.endswith(":55432  ESTABLISHED")
        assert "…" in title
        assert len(title) < SMALL[0]


RATES = (
        (THROUGHPUT, "throughput: rx 2,500 B/s, tx 4.29 MB/s, limited by network timer"),
        (
            Throughput(make_infos({COOKIE: {}}, 1001), THROUGHPUT.before),
            "throughput: rx 0 B/s, tx 0 B/s timer",
        ),
        (Throughput(), "throughput: – timer"),
)  # fmt: skip


async def test_throughput() -> None:
    view = _view(_flow())
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.push_screen(FlowScreen(COOKIE))
        for throughput, words in RATES:
            app.show(replace(view, rows=replace(view.rows, throughput=throughput)))
            await pilot.pause()
            assert words in _text(app), words


async def test_an_unknown_connection() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(make_view())
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "not in the kernel's table any more" in shot(app)


async def test_tcp_info_comes_later_or_never() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(make_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "Expected with the next poll" in _text(app)
        app.show(_view(_flow(), info=None))
        await pilot.pause()
        assert "The kernel has none for this socket" in _text(app)


async def test_a_listener_shows_its_accept_queue() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        listener = _flow(state="LISTEN", ends=("0.0.0.0:443", "0.0.0.0:0"), recv_queue=513, send_queue=512)
        app.show(_view(listener, history=History(), graph=wave()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        assert "accept queue: 513 of 512 waiting for accept()" in _text(app)
        assert "Accept queue over 1 m 30 s waiting: now 0" in _text(app)
        assert "Congestion window" not in _text(app)


def _values(info: dict[str, int], exact: bool = False) -> dict[str, str]:
    return {
        (e.note or e.label).partition("-")[0]: e.value
        for section in info_sections(info, exact)
        for e in section.entries
    }


def test_every_field_of_tcp_info_is_in_a_group() -> None:
    assert {name for _, fields in GROUPS for name, _, _ in fields} == set(NAMES)
    assert set(_values(INFO)) == set(NAMES)


def test_fields_as_text_with_units() -> None:
    values = _values(INFO)
    assert values["rtt"] == "23.5 ms"
    assert values["min_rtt"] == "–"
    assert values["snd_ssthresh"] == "none yet"
    assert values["max_pacing_rate"] == "unlimited"
    assert values["ca_state"] == "loss"
    assert values["state"] == "ESTABLISHED"
    assert values["options"] == "timestamps, SACK, ECN"
    assert (values["snd_wscale"], values["rcv_wscale"]) == ("× 128", "× 512")
    assert (values["delivery_rate_app_limited"], values["fastopen_client_fail"]) == ("yes", "no cookie")
    assert values["last_ack_sent"] == "–"  # the kernel does not keep it, and sends 0
    assert values["bytes_sent"] == "11.8 MB"
    assert _values(INFO, exact=True)["bytes_sent"].replace(",", "") == "12345678 B"
    assert _values(INFO, exact=True)["rtt"] == "23,456 µs"


@pytest.mark.parametrize(
    ("field", "count"), [("last_data_sent", "data_segs_out"), ("last_data_recv", "data_segs_in"),
                         ("last_ack_recv", "delivered")],
)  # fmt: skip
def test_what_never_was_has_no_age(field: str, count: str) -> None:
    """The kernel sends the uptime of the host then, or the age of the connection."""
    shown = [_values(info)[field] for info in ({field: 2_880_000, count: 0}, {field: 1_500, count: 1}, {field: 1_500})]
    assert shown == ["none", "1.5 s ago", "1.5 s ago"]


def test_a_missing_field_is_a_dash_and_a_new_field_has_the_kernels_name() -> None:
    values = _values({"rtt": 0, "tomorrow": 5})
    assert values["rtt"] == "0 µs"
    assert values["rto"] == "–"
    assert values["tomorrow"] == "5"


async def test_keys_scroll() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        reader = app.screen.focused
        assert reader is not None
        for keys, offset in (
            (["j"], 1), (["j", "k"], 1), (["up"], 0), (["down"], 1), (["down", "k"], 1), (["up"], 0),
            (["ctrl+d"], 9), (["ctrl+u"], 0), (["pagedown"], 18),
            (["pageup"], 0), (["G"], reader.max_scroll_y), (["g"], 0), (["end"], reader.max_scroll_y), (["home"], 0),
        ):  # fmt: skip
            await pilot.press(*keys)
            assert reader.scroll_offset.y == offset, keys


async def test_copy_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with driven(app, SMALL) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.press("c")
        assert copied[0].startswith("[2001:db8::1]%eth0:443 ← [2001:db8::42]:40123  ESTABLISHED\n")
        assert f"process: {HOSTILE}[12]" in copied[0]
        assert "  SYN_RCVD: 22:13:00.0, 1 s, polled ±1.0 s\n" in copied[0]
        await pilot.press("escape")
        assert not isinstance(app.screen, FlowScreen)


async def test_exact_numbers() -> None:
    app = make_app()
    async with driven(app, LARGE) as pilot:
        app.show(_view(_flow()))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.press("n")
        assert "123456 B not acknowledged" in _text(app).replace(",", "")


async def test_no_line_is_wider_than_the_screen() -> None:
    app = make_app()
    async with driven(app, SMALL) as pilot:
        app.show(_view(_flow(command="/usr/bin/日本語" * 30), history=TRACED, graph=wave(), ending=Ending.BY_US))
        app.push_screen(FlowScreen(COOKIE))
        await pilot.pause()
        reader = app.screen.focused
        async for width in at_widths(pilot, (30, 50, 80, 99, 100, 149, 150, 250), 24):
            assert reader.size.width in (width, width - 1)  # type: ignore[union-attr]
            for line in reader.lines:  # type: ignore[union-attr]
                assert sum(cell_len(text) for text, _ in line) <= reader.size.width  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "width", "lines"),
    [
        ("", 10, [""]), ("one two", 10, ["one two"]), ("one two", 6, ["one", "two"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]), ("日本語", 4, ["日本", "語"]), ("a 日本語 b", 4, ["a", "日本", "語 b"]),
    ],
)  # fmt: skip
def test_wrapped(value: str, width: int, lines: list[str]) -> None:
    assert wrapped(value, width) == lines
