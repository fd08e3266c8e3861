"""How a state is drawn on a time line: a letter, then a line, and a mark at its edges.

The colour shows the phase and the letter the state, so that nothing is lost without colour.
"""

from __future__ import annotations

from rich.style import Style

from tcpwatch.model.states import Phase, State
from tcpwatch.widgets.palette import Palette

_MARKS = {
    State.LISTEN: ("N", "┄"),  # not l, which looks like 1
    State.SYN_SENT: ("S", "┄"),
    State.SYN_RCVD: ("R", "┄"),
    State.ESTABLISHED: ("E", "━"),
    State.FIN_WAIT_1: ("1", "─"),
    State.FIN_WAIT_2: ("2", "╍"),
    State.CLOSE_WAIT: ("C", "╍"),
    State.LAST_ACK: ("L", "─"),
    State.CLOSING: ("X", "─"),
    State.TIME_WAIT: ("T", "┈"),
    State.CLOSED: ("·", " "),
}
STATE_LETTERS: dict[State, str] = {state: letter for state, (letter, _) in _MARKS.items()}
STATE_FILLS: dict[State, str] = {state: fill for state, (_, fill) in _MARKS.items()}
"""The line after the letter: heavy where data may flow, broken where it may flow one way only."""

EDGE_EXACT, EDGE_POLLED, EDGE_EARLIER, EDGE_OPEN = "│", "┊", "…", "▸"
"""Edges of a period: exact; between two polls; begun before the first poll; not ended yet."""


def phase_style(phase: Phase, colours: Palette) -> Style:
    """Return the colour of a phase."""
    styles = {Phase.HANDSHAKE: colours.handshake, Phase.OPEN: colours.open, Phase.TEARDOWN: colours.teardown}
    return styles.get(phase, colours.dim)


def state_style(state: State, colours: Palette) -> Style:
    """Return the colour of a state: that of its phase."""
    return phase_style(state.facts.phase, colours)
