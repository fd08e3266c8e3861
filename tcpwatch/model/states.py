"""The eleven states of RFC 9293 as Linux numbers them, with every spelling people use for them.

Sources: RFC 9293 section 3.3.2 (names and diagram), include/net/tcp_states.h (numbers), ss(8) (its short
names). The misspelt forms come from the documents that this project follows: they are accepted as input and
never shown.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.Enum):
    """The part of a connection that a state belongs to."""

    NONE = "none"
    HANDSHAKE = "handshake"
    OPEN = "open"
    TEARDOWN = "teardown"


class Role(enum.IntEnum):
    """Which end of the connection this socket is; fits a uint8 column."""

    UNKNOWN = 0
    CLIENT = 1
    SERVER = 2
    LISTENER = 3

    @property
    def word(self) -> str:
        """Return the role as the UI and JSON show it."""
        return self.name.lower()


class Closer(enum.IntEnum):
    """Who sent the first FIN, as far as the states seen so far show; fits a uint8 column."""

    UNKNOWN = 0
    LOCAL = 1
    PEER = 2
    BOTH = 3

    @property
    def word(self) -> str:
        """Return the closer as the UI and JSON show it."""
        return self.name.lower()


class State(enum.IntEnum):
    """A TCP state: the value is the kernel's number (tcp_states.h), the name is RFC 9293's."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RCVD = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11

    @property
    def facts(self) -> StateFacts:
        """Return the description of this state."""
        return FACTS[self]

    @classmethod
    def parse(cls, text: str) -> State:
        """Return the state that `text` spells, in any case, with `-`, `_`, blank or nothing between the words.

        Raises ValueError with the accepted names when nothing matches.
        """
        state = SPELLINGS.get(normalised_name(text))
        if state is None:
            names = ", ".join(s.name for s in STATE_ORDER)
            raise ValueError(f"no TCP state is spelled {text!r}; the states are {names}")
        return state


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The names and the description of one state."""

    kernel: str  # the kernel's name without TCP_
    ss: str  # as ss(8) prints it
    zh: str  # the documents' name
    phase: Phase
    step: int  # 1-3 of the handshake, 1-4 of the teardown; 0 where it is no step
    side: str  # who is in it: "both", "server", "client", "active closer", "passive closer"
    meaning: str
    spellings: tuple[str, ...] = ()  # further ones, as the documents and other tools have them


S, P = State, Phase
FACTS: dict[State, StateFacts] = {
    S.CLOSED: StateFacts(
        "CLOSE", "UNCONN", "关闭", P.NONE, 0, "both",
        "No connection. A socket shown here is bound to a port and neither listens nor connects.",
    ),
    S.LISTEN: StateFacts(
        "LISTEN", "LISTEN", "监听", P.HANDSHAKE, 0, "server",
        "Waits for the first SYN of any client.", ("LISTENING",),
    ),
    S.SYN_SENT: StateFacts(
        "SYN_SENT", "SYN-SENT", "同步已发送", P.HANDSHAKE, 1, "client",
        "SYN sent; waits for the SYN+ACK. It stays here when nobody answers.",
        ("SYN_SEND", "SYNC_SENT"),
    ),
    S.SYN_RCVD: StateFacts(
        "SYN_RECV", "SYN-RECV", "同步已接收", P.HANDSHAKE, 2, "server",
        "SYN+ACK sent; waits for the last ACK. Half-open: this is the SYN queue.",
        ("SYN_REVD", "SYNC_RCVD", "NEW_SYN_RECV"),
    ),
    S.ESTABLISHED: StateFacts(
        "ESTABLISHED", "ESTAB", "已建立", P.OPEN, 0, "both",
        "The handshake is done and data may flow both ways.", ("ESTABLISED",),
    ),
    S.FIN_WAIT_1: StateFacts(
        "FIN_WAIT1", "FIN-WAIT-1", "终止等待1", P.TEARDOWN, 1, "active closer",
        "FIN sent; waits for its acknowledgement.", ("CLOSED_WAIT1",),
    ),
    S.CLOSE_WAIT: StateFacts(
        "CLOSE_WAIT", "CLOSE-WAIT", "关闭等待", P.TEARDOWN, 2, "passive closer",
        "The peer's FIN is acknowledged; our application has not closed its end.",
        ("CLOSE_WAIT2",),
    ),
    S.FIN_WAIT_2: StateFacts(
        "FIN_WAIT2", "FIN-WAIT-2", "终止等待2", P.TEARDOWN, 2, "active closer",
        "Our FIN is acknowledged; half-closed: the peer may still send.",
    ),
    S.LAST_ACK: StateFacts(
        "LAST_ACK", "LAST-ACK", "最后确认", P.TEARDOWN, 3, "passive closer",
        "Our own FIN is sent as the second one; waits for the last ACK.",
    ),
    S.CLOSING: StateFacts(
        "CLOSING", "CLOSING", "同时关闭", P.TEARDOWN, 3, "both",
        "Both ends sent a FIN at once and neither is acknowledged yet.",
    ),
    S.TIME_WAIT: StateFacts(
        "TIME_WAIT", "TIME-WAIT", "时间等待", P.TEARDOWN, 4, "active closer",
        "The last ACK is sent; waits 60 s, so that it can be repeated and old segments die.",
        ("TIMED_WAIT",),
    ),
}  # fmt: skip

TIME_WAIT_S = 60
"""TCP_TIMEWAIT_LEN (include/net/tcp.h); tcp_fin_timeout does not change it."""
SMALL_SOCKET_STATES = (State.TIME_WAIT, State.FIN_WAIT_2)
"""States in which a small socket continues a connection after the end of its full socket."""
STATE_ORDER: tuple[State, ...] = (
    S.LISTEN, S.SYN_SENT, S.SYN_RCVD, S.ESTABLISHED, S.FIN_WAIT_1, S.CLOSE_WAIT, S.FIN_WAIT_2,
    S.LAST_ACK, S.CLOSING, S.TIME_WAIT, S.CLOSED,
)  # fmt: skip
"""The states in the order in which a connection enters them, CLOSED last."""


def normalised_name(text: str) -> str:
    """Return a name in lower case, without the separators that people put between its words."""
    return text.strip().casefold().replace("-", "").replace("_", "").replace(" ", "")


def _spellings() -> dict[str, State]:
    table: dict[str, State] = {}
    for state, facts in FACTS.items():
        for text in (state.name, facts.kernel, facts.ss, facts.zh, *facts.spellings):
            other = table.setdefault(normalised_name(text), state)
            assert other is state, f"{text} spells both {other.name} and {state.name}"
    return table


SPELLINGS: dict[str, State] = _spellings()
"""Normalised name → state, for every spelling."""
