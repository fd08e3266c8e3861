"""Two cookies of one flow, put together by its ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcpwatch.model.lifecycle.cookie_aliases import CookieAliases, resolve_aliases
from tests.support.views import Sock, make_rows, make_table, sock

LOCAL = "10.0.0.1:80"


def waits(cookie: int, port: int) -> Sock:
    return sock("TIME_WAIT", LOCAL, f"10.0.0.2:{port}", cookie=cookie, inode=0)


def step(
    aliases: CookieAliases, rows: Sequence[Sock], new: Sequence[int], events: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """`events` are cookie and remote port, in the order of time; gives the cookies by which their flows go on."""
    table = make_table([sock("CLOSED", LOCAL, f"10.0.0.2:{port}", cookie=cookie) for cookie, port in events])
    found = aliases.step(make_rows(rows), np.array(new, np.intp), table, np.arange(len(events), dtype=np.float64))
    cookies = np.array([cookie for cookie, _ in events], np.uint64)
    after = resolve_aliases(cookies, found)
    return dict(zip(cookies.tolist(), after.tolist(), strict=True))


def test_the_event_comes_with_the_small_socket() -> None:
    assert step(CookieAliases(), [waits(7, 4000), waits(8, 4001)], [0, 1], [(100, 4001), (101, 4000)]) == {
        100: 8,
        101: 7,
    }


def test_the_event_comes_later() -> None:
    aliases = CookieAliases()
    assert step(aliases, [waits(7, 4000)], [0], []) == {}
    assert step(aliases, [waits(7, 4000)], [], []) == {}
    assert step(aliases, [waits(7, 4000)], [], [(100, 4000)]) == {100: 7}
    assert step(aliases, [waits(7, 4000)], [], [(101, 4000)]) == {101: 101}  # it has its event


def test_one_that_was_asked_before_keeps_its_cookie() -> None:
    assert step(CookieAliases(), [waits(7, 4000)], [0], [(7, 4000)]) == {7: 7}


def test_other_ends_are_other_flows() -> None:
    assert step(CookieAliases(), [waits(7, 4000)], [0], [(100, 4001)]) == {100: 100}


def test_of_several_flows_with_the_same_ends_the_last_one_is_there() -> None:
    assert step(CookieAliases(), [waits(7, 4000)], [0], [(100, 4000), (101, 4000)]) == {100: 100, 101: 7}


def test_a_small_socket_that_made_room_for_the_next_flow_is_the_first_one_s() -> None:
    aliases = CookieAliases()
    step(aliases, [waits(7, 4000)], [0], [])
    assert step(aliases, [waits(9, 4000)], [0], [(100, 4000), (101, 4000)]) == {100: 7, 101: 9}


def test_a_vanished_small_socket_is_matched_once() -> None:
    aliases = CookieAliases()
    step(aliases, [waits(7, 4000)], [0], [])
    step(aliases, [], [], [])
    assert step(aliases, [], [], [(100, 4000)]) == {100: 100}
