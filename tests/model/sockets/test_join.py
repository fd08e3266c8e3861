"""Samples joined by cookie: stories as data, and random ones against a slow join of dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.model.sockets import join
from tcpwatch.model.sockets.rows import Mark, Rows
from tcpwatch.model.states import Closer, Role, State
from tcpwatch.sample import Sample
from tests.support.views import NOW, make_rows, make_sample, sock

# Each round is a sample, one second after the one before. A flow is written `cookie state port` and, behind the
# colon, what is to be known of it then: mark, role, first closer (? unknown), round first seen, round since which it
# is in its state; `*` behind the first means that we saw it begin. An application holds the socket, unless `waits`
# stands behind the port or it is half-open; `inode` marks a half-open one that an application holds.
STORIES = {
    "what was there before us": """
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : none server ? 1 1 | 3 ESTAB 99 : none ? ? 1 1
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : none server ? 1 1 | 3 ESTAB 99 : none ? ? 1 1
    """,
    "a life on the server": """
        1 LISTEN 80 : none listener ? 1 1
        1 LISTEN 80 : none listener ? 1 1 | 2 SYN_RCVD 80 : new server ? 2* 2
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : changed server ? 2* 3
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : none server ? 2* 3
        1 LISTEN 80 : none listener ? 1 1 | 2 CLOSE_WAIT 80 : changed server peer 2* 5
        1 LISTEN 80 : none listener ? 1 1 | 2 LAST_ACK 80 : changed server peer 2* 6
        1 LISTEN 80 : none listener ? 1 1
    """,
    "a life of a client": """
        1 CLOSED 99 : none ? ? 1 1
        1 SYN_SENT 99 : changed client ? 1 2
        1 ESTAB 99 : changed client ? 1 3
        1 FIN_WAIT_1 99 : changed client local 1 4
        1 FIN_WAIT_2 99 : changed client local 1 5
        1 TIME_WAIT 99 : changed client local 1 6
        -
    """,
    "both closed at once": """
        1 ESTAB 99 : none ? ? 1 1
        1 CLOSING 99 : changed ? both 1 2
        1 TIME_WAIT 99 : changed ? both 1 3
    """,
    "a closer seen too late": """
        1 ESTAB 99 : none ? ? 1 1 | 2 ESTAB 98 : none ? ? 1 1
        1 TIME_WAIT 99 : changed ? local 1 2 | 2 LAST_ACK 98 : changed ? peer 1 2
    """,
    "both called": """
        1 SYN_SENT 99 inode : none client ? 1 1 | 2 SYN_RCVD 98 inode : none client ? 1 1
        1 SYN_RCVD 99 inode : changed client ? 1 2 | 2 ESTAB 98 inode : changed client ? 1 2
    """,
    "accepted before the last ACK, with TCP Fast Open": """
        1 LISTEN 80 : none listener ? 1 1 | 2 SYN_RCVD 80 inode : none server ? 1 1
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : changed server ? 1 2 | 3 SYN_RCVD 80 inode : new server ? 2* 2
    """,
    "half-open without its listener": "1 SYN_RCVD 80 : none server ? 1 1",
    "a call from a listener's port": """
        1 LISTEN 80 : none listener ? 1 1 | 2 SYN_SENT 80 : none client ? 1 1
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 80 : changed client ? 1 2
    """,
    "a listener that came late": """
        1 ESTAB 80 : none ? ? 1 1 | 2 ESTAB 99 : none ? ? 1 1
        1 ESTAB 80 : none server ? 1 1 | 2 ESTAB 99 : none ? ? 1 1 | 3 LISTEN 80 : new listener ? 2* 2
        1 ESTAB 80 : none server ? 1 1 | 2 ESTAB 99 : none ? ? 1 1
    """,
    "a socket that listens, stops and calls": """
        1 LISTEN 80 : none listener ? 1 1
        1 CLOSED 80 : changed ? ? 1 2
        1 SYN_SENT 80 : changed client ? 1 3
    """,
    "a socket that was bound, then connected": """
        1 CLOSED 99 : none ? ? 1 1
        1 ESTAB 99 : changed client ? 1 2
    """,
    "accepted for an address that no listener has, and from a listener that has closed": """
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 443 waits : none server ? 1 1 | 3 ESTAB 80 : none server ? 1 1
        1 LISTEN 80 : none listener ? 1 1 | 2 ESTAB 443 : none server ? 1 1 | 3 ESTAB 80 : none server ? 1 1
        2 CLOSE_WAIT 443 : changed server peer 1 3 | 3 ESTAB 80 : none server ? 1 1
    """,
    "waits for an address that no listener has, and its client has closed": """
        -
        4 CLOSE_WAIT 444 waits : new server peer 2* 2
    """,
    "all at once": """
        2 ESTAB 99 : none ? ? 1 1 | 4 ESTAB 98 : none ? ? 1 1 | 6 ESTAB 97 : none ? ? 1 1
        1 ESTAB 96 : new client ? 2* 2 | 4 CLOSE_WAIT 98 : changed ? peer 1 2 | 7 SYN_RCVD 95 : new server ? 2* 2
        -
        4 ESTAB 98 : new client ? 4* 4
    """,
}


@dataclass(frozen=True, slots=True)
class Flow:
    """One line of a scenario."""

    cookie: int
    state: State
    port: int
    held: bool
    known: tuple[str, ...]


def read(text: str) -> list[list[Flow]]:
    """Flows by round; a round without any is written `-`."""
    rounds = filter(None, map(str.strip, text.split("\n")))
    return [[flow(part) for part in line.split("|") if line != "-"] for line in rounds]


def flow(text: str) -> Flow:
    facts, _, known = text.partition(":")
    cookie, state, port, *held = facts.split()
    is_held = held != ["waits"] and (State.parse(state) is not State.SYN_RCVD or held == ["inode"])
    return Flow(int(cookie), State.parse(state), int(port), is_held, tuple(known.split()))


def sample_of(round_: list[Flow], number: int) -> Sample:
    remote = "192.0.2.1:4000"
    specs = [sock(f.state, f"10.0.0.1:{f.port}", remote, cookie=f.cookie, inode=f.held) for f in round_]
    return make_sample(make_rows(specs, time=NOW + number))


def known_of(rows: Rows, at: int) -> tuple[str, ...]:
    first, since = round(rows.first_seen[at] - NOW), round(rows.since[at] - NOW)
    role, closer = (word.replace("unknown", "?") for word in (Role(rows.role[at]).word, Closer(rows.closer[at]).word))
    return Mark(rows.mark[at]).name.lower(), role, closer, f"{first}{'*' * bool(rows.begin_seen[at])}", str(since)


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    joined: join.Join | None = None
    for number, round_ in enumerate(read(STORIES[name]), 1):
        sample = sample_of(round_, number)
        joined = join.join(joined, sample) if joined else join.first(sample)
        rows = joined.rows
        assert {int(c): known_of(rows, at) for at, c in enumerate(rows.cookie)} == {f.cookie: f.known for f in round_}


# Against a slow reference -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Memory:
    """What the reference remembers of a flow."""

    state: int
    port: int
    first_seen: int
    since: int
    begin_seen: bool
    role: int
    closer: int
    mark: int


def judge(
    state: State,
    port: int,
    held: bool,
    listening: set[int],
    role: Role,
    closer: Closer,
    default: Role,
    was_bound: bool = False,
) -> tuple[Role, Closer]:
    if state is State.LISTEN:
        role = Role.LISTENER
    elif state is State.CLOSED:
        role = Role.UNKNOWN
    elif role is Role.UNKNOWN:
        waits = state in (State.SYN_RCVD, State.ESTABLISHED, State.CLOSE_WAIT) and not held
        calls = state is State.SYN_SENT or (state is State.SYN_RCVD and port not in listening) or was_bound
        role = Role.SERVER if waits else Role.CLIENT if calls else Role.SERVER if port in listening else default
    unknown = state is State.TIME_WAIT and closer is Closer.UNKNOWN
    if unknown or state in (State.FIN_WAIT_1, State.FIN_WAIT_2):
        closer = Closer.LOCAL
    elif state in (State.CLOSE_WAIT, State.LAST_ACK):
        closer = Closer.PEER
    elif state is State.CLOSING:
        closer = Closer.BOTH
    return role, closer


def reference(before: dict[int, Memory] | None, round_: list[Flow], number: int) -> dict[int, Memory]:
    listening = {f.port for f in round_ if f.state is State.LISTEN}
    earlier = {m.port for m in (before or {}).values() if m.state == State.LISTEN}
    after = {}
    for f in round_:
        known = (before or {}).get(f.cookie)
        if known is None:
            default = Role.UNKNOWN if before is None else Role.CLIENT
            role, closer = judge(f.state, f.port, f.held, listening, Role.UNKNOWN, Closer.UNKNOWN, default)
            mark = Mark.NONE if before is None else Mark.NEW
            known = Memory(f.state, f.port, number, number, before is not None, role, closer, mark)
        elif known.state != f.state:
            default = Role.CLIENT if known.begin_seen else Role.UNKNOWN
            roles = Role(known.role), Closer(known.closer), default, known.state == State.CLOSED
            role, closer = judge(f.state, f.port, f.held, listening, *roles)
            known = replace(known, state=f.state, since=number, role=role, closer=closer, mark=Mark.CHANGED)
        else:
            known = replace(known, mark=Mark.NONE)
        late = before is not None and f.port in listening - earlier and f.state not in (State.SYN_SENT, State.CLOSED)
        if late and known.role in (Role.CLIENT, Role.UNKNOWN):
            known = replace(known, role=Role.SERVER)
        after[f.cookie] = replace(known, port=f.port)
    return after


def memories(joined: join.Join) -> dict[int, Memory]:
    rows = joined.rows
    ages = rows.first_seen - NOW, rows.since - NOW
    columns = (rows.state, rows.table["idiag_sport"], *ages, rows.begin_seen, rows.role, rows.closer, rows.mark)
    lists = [column.tolist() for column in columns]
    return {c: Memory(*values) for c, *values in zip(rows.cookie.tolist(), *lists, strict=True)}


COOKIES = st.sampled_from([1, 2, 3, 5, 8, 2**40, 2**64 - 1])
FLOWS = st.builds(
    Flow, COOKIES, st.sampled_from(list(State)), st.sampled_from([80, 81, 99]), st.booleans(), st.just(())
)
ROUNDS = st.lists(st.lists(FLOWS, max_size=7, unique_by=lambda f: f.cookie), min_size=1, max_size=5)


@given(ROUNDS)
def test_joining_is_what_dictionaries_do(rounds: list[list[Flow]]) -> None:
    ports = {f.cookie: f.port for round_ in rounds for f in round_}  # a socket does not change its port
    joined: join.Join | None = None
    expected: dict[int, Memory] | None = None
    for number, drawn in enumerate(rounds, 1):
        round_ = [replace(f, port=ports[f.cookie]) for f in drawn]
        sample, before = sample_of(round_, number), expected
        joined = join.join(joined, sample) if joined else join.first(sample)
        expected = reference(before, round_, number)
        assert memories(joined) == expected
        check_changes(joined, before, expected)


def check_changes(joined: join.Join, before: dict[int, Memory] | None, after: dict[int, Memory]) -> None:
    ended = {} if before is None else {c: m.state for c, m in before.items() if c not in after}
    assert joined.ended_cookie.tolist() == sorted(ended)
    assert dict(zip(joined.closed.cookie.tolist(), joined.closed.state.tolist(), strict=True)) == ended
    assert (joined.closed.mark == Mark.CLOSED).all()
    cookie = joined.rows.cookie
    assert set(cookie[joined.new].tolist()) == {c for c, m in after.items() if m.mark == Mark.NEW}
    old = dict(zip(cookie[joined.changed].tolist(), joined.old_state.tolist(), strict=True))
    assert old == {c: (before or {})[c].state for c, m in after.items() if m.mark == Mark.CHANGED}


# Bounds -------------------------------------------------------------------------------------------


def test_ended_flows_are_kept_up_to_a_number_and_counted_beyond() -> None:
    many = join.CLOSED_KEPT + 100
    rows = make_rows([sock("TIME_WAIT", "10.0.0.1:80", f"192.0.2.1:{port + 1}") for port in range(many)])
    joined = join.join(join.first(make_sample(rows)), make_sample(make_rows([], time=NOW + 5)))
    assert len(joined.closed) == join.CLOSED_KEPT
    assert len(joined.ended_cookie) == len(joined.ended_previous) == many
    assert joined.closed.time == NOW + 5


def test_nothing_changed_in_the_first_sample() -> None:
    found = join.first(sample_of([flow("1 LISTEN 80"), flow("2 ESTAB 80")], 1))
    changes = (found.ended_cookie, found.ended_previous, found.changed, found.changed_previous, found.old_state)
    assert [len(column) for column in (*changes, found.new, found.closed)] == [0] * 7


def test_what_was_joined_cannot_be_written_to() -> None:
    first = join.first(sample_of([flow("1 ESTAB 80")], 1))
    joined = join.join(first, sample_of([flow("1 CLOSE_WAIT 80")], 2))
    for rows in (first.rows, joined.rows):
        for name in ("first_seen", "since", "begin_seen", "role", "closer", "mark"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(rows, name)[0] = 0
    assert known_of(first.rows, 0) == ("none", "?", "?", "1", "1")


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)), st.sampled_from([1, 10**12]))
def test_shared_cookies_close_together_and_far_apart(mine: set[int], others: set[int], distance: int) -> None:
    here, there = (np.array(sorted(s), np.uint64) * np.uint64(distance) for s in (mine, others))
    known, stays = join._shared(here, there)
    assert known.tolist() == [cookie in others for cookie in sorted(mine)]
    assert stays.tolist() == [cookie in mine for cookie in sorted(others)]
