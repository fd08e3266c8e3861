"""Ending: how a connection ended, as a word and as a sentence."""

from __future__ import annotations

import enum

from tcpwatch.model.states import State


class Ending(enum.IntEnum):
    """How the full socket of a connection ended; fits a uint8 column."""

    UNKNOWN = 0
    """It ended; how is not known."""
    BY_US = 1
    BY_PEER = 2
    AT_ONCE = 3
    """Both ends sent a FIN before they received that of the other."""
    ORDERLY = 4
    """Our FIN was acknowledged; which end closed first is not known."""
    RESET_SENT = 5
    RESET_RECEIVED = 6
    RESET = 7
    """Without FINs; which end sent the reset is not known."""
    TIMED_OUT = 8
    REFUSED = 9
    """A reset answered connect()."""
    GIVEN_UP = 10
    """Our application closed the socket before the handshake was complete."""
    KILLED = 11
    """By SOCK_DESTROY (ss -K), which sends a reset if the connection is open."""
    NOT_ACCEPTED = 12
    """Reset by us in the accept queue: the listener closed, or tcp_abort_on_overflow is set."""
    UNREACHABLE = 13
    """An ICMP error answered the handshake: from a router, a rejecting firewall, or this host's neighbour discovery."""
    NO_PORT = 14
    """connect() found no local port and failed with EADDRNOTAVAIL; no SYN was sent."""

    @property
    def word(self) -> str:
        """Return the name for filters and JSON: `closed by us`, `reset sent`."""
        return _WORDS.get(self) or self.name.lower().replace("_", " ")

    @property
    def short(self) -> str:
        """Return the name for narrow columns."""
        return "not connected" if self is Ending.GIVEN_UP else self.word

    @property
    def text(self) -> str:
        """Return the name for lines with more room."""
        return _TEXTS.get(self, self.word)


NOT_ENDED = 255
"""Value in a column of endings for a connection that has not ended."""

ORDERLY_ENDINGS = {
    Ending.BY_US: "closed by us",
    Ending.BY_PEER: "closed by peer",
    Ending.AT_ONCE: "closed at once",
    Ending.ORDERLY: "closed",
}
"""Endings with a FIN from each side → their names."""
_WORDS = {**ORDERLY_ENDINGS, Ending.NO_PORT: "no local port"}
_TEXTS = {Ending.GIVEN_UP: "closed before connecting", Ending.NO_PORT: "no local port (EADDRNOTAVAIL)"}


def sentence(ending: Ending, last: State | None) -> str:
    """Return how a connection ended, as a sentence; `last` is its last state, if known."""
    if ending is Ending.TIMED_OUT and last is State.SYN_SENT:
        return "Timed out: the SYN was never answered."
    if ending is Ending.TIMED_OUT and last is State.SYN_RCVD:
        return "Timed out: the last ACK of the handshake never arrived."
    where = f" in {last.name}" if last not in (None, State.CLOSED) else ""
    return _SENTENCES[ending].format(where=where)


_SENTENCES = {
    Ending.UNKNOWN: "It ended; how is not known.",
    Ending.BY_US: "Closed by this end: its FIN came before the peer's (active close).",
    Ending.BY_PEER: "Closed by the peer: its FIN came before ours (passive close).",
    Ending.AT_ONCE: "Closed by both ends at once: their FINs crossed.",
    Ending.ORDERLY: "Closed: this end's FIN was acknowledged; which end closed first is not known.",
    Ending.RESET_SENT: "Reset sent{where}: this end aborted the connection.",
    Ending.RESET_RECEIVED: "Reset received{where}: the peer aborted the connection.",
    Ending.RESET: "Reset{where}: which end sent it is not known.",
    Ending.TIMED_OUT: "Timed out{where}: the peer stopped answering.",
    Ending.REFUSED: "Refused: the peer answered the SYN with a reset.",
    Ending.GIVEN_UP: "Closed before connecting{where}: this end closed it before the handshake was complete.",
    Ending.KILLED: "Killed{where}: the socket was destroyed on request (ss -K).",
    Ending.UNREACHABLE: "Unreachable: an ICMP error ended the handshake (no route, no host, or a rejecting firewall).",
    Ending.NO_PORT: "No local port: connect() failed with EADDRNOTAVAIL before a SYN was sent.",
    Ending.NOT_ACCEPTED: "Reset by this end in the accept queue: the application never accepted it.",
}
