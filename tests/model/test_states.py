"""Every spelling of a state that the project's documents and other tools use, and none that means nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.kernel.netlink import uapi
from tcpwatch.model.states import FACTS, STATE_ORDER, Closer, Phase, Role, State

SPELLINGS = {
    State.CLOSED: "CLOSED CLOSE UNCONN 关闭",
    State.LISTEN: "LISTEN LISTENING 监听",
    State.SYN_SENT: "SYN_SENT SYN_SEND SYNC_SENT 同步已发送",
    State.SYN_RCVD: "SYN_RCVD SYN_RECV SYN_REVD SYNC_RCVD NEW_SYN_RECV 同步已接收",
    State.ESTABLISHED: "ESTABLISHED ESTAB ESTABLISED 已建立",
    State.FIN_WAIT_1: "FIN_WAIT_1 FIN_WAIT1 CLOSED_WAIT1 终止等待1",
    State.CLOSE_WAIT: "CLOSE_WAIT CLOSE_WAIT2 关闭等待",
    State.FIN_WAIT_2: "FIN_WAIT_2 FIN_WAIT2 终止等待2",
    State.LAST_ACK: "LAST_ACK 最后确认",
    State.CLOSING: "CLOSING 同时关闭",
    State.TIME_WAIT: "TIME_WAIT TIMED_WAIT 时间等待",
}
PAIRS = [(text, state) for state, texts in SPELLINGS.items() for text in texts.split()]
SHOWN = {
    # kernel (tcp_states.h without TCP_), ss, phase, step
    State.CLOSED: (7, "CLOSE", "UNCONN", Phase.NONE, 0),
    State.LISTEN: (10, "LISTEN", "LISTEN", Phase.HANDSHAKE, 0),
    State.SYN_SENT: (2, "SYN_SENT", "SYN-SENT", Phase.HANDSHAKE, 1),
    State.SYN_RCVD: (3, "SYN_RECV", "SYN-RECV", Phase.HANDSHAKE, 2),
    State.ESTABLISHED: (1, "ESTABLISHED", "ESTAB", Phase.OPEN, 0),
    State.FIN_WAIT_1: (4, "FIN_WAIT1", "FIN-WAIT-1", Phase.TEARDOWN, 1),
    State.CLOSE_WAIT: (8, "CLOSE_WAIT", "CLOSE-WAIT", Phase.TEARDOWN, 2),
    State.FIN_WAIT_2: (5, "FIN_WAIT2", "FIN-WAIT-2", Phase.TEARDOWN, 2),
    State.LAST_ACK: (9, "LAST_ACK", "LAST-ACK", Phase.TEARDOWN, 3),
    State.CLOSING: (11, "CLOSING", "CLOSING", Phase.TEARDOWN, 3),
    State.TIME_WAIT: (6, "TIME_WAIT", "TIME-WAIT", Phase.TEARDOWN, 4),
}


@pytest.mark.parametrize(("text", "state"), PAIRS)
@pytest.mark.parametrize("separator", ["_", "-", " ", ""])
def test_every_spelling_is_understood(text: str, state: State, separator: str) -> None:
    for spelled in (text, text.lower(), text.title(), f"  {text}\n"):
        assert State.parse(spelled.replace("_", separator)) is state


@given(st.sampled_from(PAIRS), st.data())
def test_in_any_case_and_with_any_separator(pair: tuple[str, State], data: st.DataObject) -> None:
    text, state = pair
    letters = [data.draw(st.sampled_from([c.upper(), c.lower()] if c != "_" else ["_", "-", " ", ""])) for c in text]
    assert State.parse("".join(letters)) is state


KNOWN = {text.replace("_", "") for text, _ in PAIRS}


def squeezed(text: str) -> str:
    return text.upper().translate(dict.fromkeys(map(ord, "-_ "))).strip()


@given(
    st.one_of(
        st.text(max_size=12), st.sampled_from(sorted(KNOWN)).flatmap(lambda it: st.sampled_from([it[:-1], it + "X"]))
    )
)
def test_what_is_no_state_is_refused_by_name(text: str) -> None:
    if squeezed(text) in KNOWN:
        return
    with pytest.raises(ValueError, match="no TCP state is spelled") as caught:
        State.parse(text)
    assert all(state.name in str(caught.value) for state in State)


@pytest.mark.parametrize("text", ["", " ", "-", "FIN_WAIT", "WAIT", "SYN", "ACK", "FIN_WAIT_3", "7", "NONE"])
def test_half_a_name_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="the states are LISTEN, SYN_SENT"):
        State.parse(text)


def test_facts_are_those_of_the_documents() -> None:
    assert {s: (int(s), f.kernel, f.ss, f.phase, f.step) for s, f in FACTS.items()} == SHOWN
    assert {f.zh for f in FACTS.values()} == {texts.split()[-1] for texts in SPELLINGS.values()}
    assert all(state.facts is FACTS[state] for state in State)


def test_states_have_an_order() -> None:
    assert sorted(STATE_ORDER) == sorted(State)
    assert 1 << max(State) < uapi.TCPF_ALL


def test_words() -> None:
    assert [role.word for role in Role] == ["unknown", "client", "server", "listener"]
    assert [closer.word for closer in Closer] == ["unknown", "local", "peer", "both"]
