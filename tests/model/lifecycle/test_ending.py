"""The words and sentences for how a connection ended."""

from __future__ import annotations

import pytest

from tcpwatch.model.lifecycle.ending import Ending, sentence
from tcpwatch.model.states import State

STATELESS = {
    Ending.UNKNOWN, Ending.BY_US, Ending.BY_PEER, Ending.AT_ONCE, Ending.ORDERLY, Ending.REFUSED, Ending.UNREACHABLE,
    Ending.NOT_ACCEPTED, Ending.NO_PORT,
}  # fmt: skip
"""Endings whose sentence does not say in which state it was."""


def test_every_ending_has_a_word_and_a_sentence_of_its_own() -> None:
    assert len({ending.word for ending in Ending}) == len(Ending)
    assert len({sentence(ending, State.ESTABLISHED) for ending in Ending}) == len(Ending)


@pytest.mark.parametrize("ending", Ending)
def test_the_state_is_named_where_it_is_known(ending: Ending) -> None:
    for last in (State.ESTABLISHED, State.CLOSE_WAIT):
        assert (f" in {last.name}" in sentence(ending, last)) == (ending not in STATELESS)
    for nothing in (None, State.CLOSED):
        assert " in CLOSED" not in sentence(ending, nothing)
        assert "{" not in sentence(ending, nothing)
    assert sentence(ending, None) == sentence(ending, State.CLOSED)


def test_a_timeout_of_the_handshake_is_explained() -> None:
    said = {last: sentence(Ending.TIMED_OUT, last) for last in (State.SYN_SENT, State.SYN_RCVD, State.ESTABLISHED)}
    assert "SYN was never answered" in said[State.SYN_SENT]
    assert "last ACK" in said[State.SYN_RCVD]
    assert "in ESTABLISHED" in said[State.ESTABLISHED]
    assert "last ACK" not in sentence(Ending.GIVEN_UP, State.SYN_RCVD)
    assert "in SYN_SENT" in sentence(Ending.GIVEN_UP, State.SYN_SENT)
