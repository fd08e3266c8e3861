"""Filter: the text that a person types, as a mask over rows.

Terms stand side by side, separated by blanks, and all must hold; `-` or `!` before a term turns it round; quotes
hold blanks together. `HELP` lists the terms.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from tcpwatch.kernel.proc.owner_finder import Owner
from tcpwatch.model.lifecycle.ending import NOT_ENDED, Ending
from tcpwatch.model.query import filter_terms as terms
from tcpwatch.model.query.address_match import Mask
from tcpwatch.model.query.filter_terms import Test
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SPELLINGS, STATE_ORDER, Phase, Role, State, normalised_name
from tcpwatch.units import service_port

HELP: tuple[tuple[str, str], ...] = (
    ("state:tw,syn-recv", "state, in any spelling or a clear beginning; or handshake, open, teardown"),
    ("port:443  :443", "port of either end; also 1000-2000, a list, or a service's name"),
    ("lport: rport:", "local port, remote port"),
    ("addr:10.0.", "address of either end, what it begins with, or a network: 10.0.0.0/8, fe80::/10"),
    ("laddr: raddr:", "local address, remote address"),
    ("process:nginx", "part of the name of a process that holds the socket"),
    ("pid:12", "its process id"),
    ("user:www-data", "the socket's user: name or number"),
    ("role:server", "client, server, listener or unknown"),
    ("ending:reset,refused", "how it ended, or what that begins with; or live (Timelines and events know)"),
    ("inode: cookie:", "the socket's inode, its cookie (0x… for hexadecimal)"),
    ("-term  !term", "what does not pass the term"),
    ("anything else", "is searched for in all that a row shows; quotes hold blanks together"),
)
"""Each form of a term, and what it asks."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. Two are equal when their texts are."""

    text: str = ""
    tests: tuple[Test, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Understand a filter text; raises ValueError with one line: what is wrong, and what to type."""
        found = []
        for sign, key, value in _terms(text):
            test = TERM_PARSERS[key](value) if key else terms.text_anywhere(value)
            found.append(_negated(test) if sign else test)
        return cls(text.strip(), tuple(found))

    @classmethod
    def parse_partial(cls, text: str) -> Filter:
        """As `parse`, but a last word that may yet become a key does not count: `sta` on the way to `state:tw`.

        Raises ValueError as `parse` does.
        """
        head, _, last = text.rpartition(" ")
        word = last.lstrip("-!").lower()
        may_become_a_key = len(word) >= 3 and any(key.startswith(word) for key in (*TERM_PARSERS, *ALIASES))
        return cls.parse(head) if may_become_a_key and head.count('"') % 2 == 0 else cls.parse(text)

    def mask(self, rows: Rows) -> Mask:
        """The rows that pass: one bool a row."""
        if not self.tests:
            return np.ones(len(rows), np.bool_)
        return reduce(np.logical_and, (test(rows) for test in self.tests))


def _negated(test: Test) -> Test:
    return lambda rows: ~test(rows)


_TERM = re.compile(r"""([-!]?)(?:([A-Za-z]+):)?("[^"]*"|'[^']*'|[^\s"']\S*|(?=\s|$))(?=\s|$)""")


def _terms(text: str) -> list[tuple[str, str, str]]:
    """(sign, key, value) of each term; the key is empty for a text to be searched for."""
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TERM.match(text, at)
        if match is None:
            raise ValueError(f'a quote is open or in the wrong place: {text[at : at + 20]} — type "two words"')
        found.append(_term(match))
        at = match.end()
    return found


def _term(match: re.Match[str]) -> tuple[str, str, str]:
    sign, word, value = match.group(1), match.group(2) or "", match.group(3)
    bare = value[1:-1] if value[:1] in ('"', "'") else value
    key = ALIASES.get(word.lower(), word.lower())
    if re.fullmatch(r":(\d+)", value) and not word:
        return sign, "port", value[1:]
    if key in TERM_PARSERS:
        if not bare.strip():
            raise ValueError(f"{word}: what? Type {EXAMPLES[key]}")
        return sign, key, bare
    _refuse_slip(word)
    searched = f"{word}:{bare}" if word else bare
    if not searched:
        raise ValueError(f"nothing after {sign}: type {sign}state:listen" if sign else "nothing between the quotes")
    return sign, "", searched


_HEXTET = re.compile("[0-9a-f]{0,4}", re.IGNORECASE)


def _refuse_slip(word: str) -> None:
    """A word that is nearly a key is a slip of the finger, not something to search for."""
    if _HEXTET.fullmatch(word):
        return
    close = difflib.get_close_matches(word.lower(), TERM_PARSERS, 1, 0.75) if len(word) > 2 else []
    if close:
        raise ValueError(f"{word}: is no term; did you mean {close[0]}: ? To search for the text, quote it")


def _state_names() -> dict[str, frozenset[State]]:
    """Squeezed name → states: all spellings, initials (tw), phases, and what the SYN queue is called."""
    names = {name: frozenset([state]) for name, state in SPELLINGS.items()}
    for state in State:
        words = state.name.split("_")
        if len(words) > 1:
            names["".join(word[0] for word in words).lower()] = frozenset([state])
    names["halfopen"] = frozenset([State.SYN_RCVD])
    for phase in (Phase.HANDSHAKE, Phase.OPEN, Phase.TEARDOWN):
        names[phase.value] = frozenset(s for s in State if s.facts.phase is phase)
    return names


_STATE_NAMES = _state_names()


def _states_named(text: str) -> frozenset[State]:
    name = normalised_name(text)
    if name in _STATE_NAMES:
        return _STATE_NAMES[name]
    meant = {states for full, states in _STATE_NAMES.items() if name and full.startswith(name)}
    if len(meant) == 1:
        return meant.pop()
    single = [s.name.lower().replace("_", "-") for s in STATE_ORDER if frozenset([s]) in meant]
    if single:
        raise ValueError(f"state:{text} may be {' or '.join(single)}; type more of it")
    raise ValueError(f"no state is spelled {text!r}; type state:established, state:tw or state:teardown")


def _state(value: str) -> Test:
    return terms.states(frozenset[State]().union(*map(_states_named, _listed(value))))


def _role(value: str) -> Test:
    wanted = [[role for role in Role if role.word.startswith(name.lower())] for name in _listed(value)]
    if any(len(found) != 1 for found in wanted):
        raise ValueError(f"no role is called {value!r}; type role:client, server, listener or unknown")
    return terms.roles([found[0] for found in wanted])


def _ending(value: str) -> Test:
    wanted: set[int] = set()
    for name in map(normalised_name, _listed(value)):
        found = {int(ending) for ending in Ending if normalised_name(ending.word).startswith(name or "?")}
        if not found and name != "live":
            words = "closed, reset, refused, unreachable, timed-out, killed or live"
            raise ValueError(f"no flow ends {name!r}; type ending:{words}")
        wanted |= found or {NOT_ENDED}
    return terms.endings(wanted)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] or [value]


def _ports(key: str, ends: terms.Ends) -> Callable[[str], Test]:
    return lambda value: terms.ports([_port_range(key, part) for part in _listed(value)], ends)


def _port_range(key: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > 0xFFFF:
            raise ValueError(f"{key}:{text} is no range of ports; type {EXAMPLES[key]} (ports end at 65535)")
        return first, last
    port = service_port(text.lower())
    if port is None:
        raise ValueError(f"{key}:{text} is no port; type {EXAMPLES[key]}, {key}:1000-2000 or {key}:https")
    return port, port


_PREFIX = re.compile(r"[0-9a-f:.]+", re.IGNORECASE)


def _addresses(key: str, ends: terms.Ends) -> Callable[[str], Test]:
    def build(value: str) -> Test:
        found = [_address(key, part, ends) for part in _listed(value)]
        return lambda rows: terms.any_of(test(rows) for test in found)

    return build


def _address(key: str, value: str, ends: terms.Ends) -> Test:
    """A network, a whole address, or else the beginning of one, as text."""
    bare = value.strip("[]")
    if bare == "*":
        return _either(terms.networks(ipaddress.ip_network(a), ends) for a in ("0.0.0.0/32", "::/128"))
    try:
        network = ipaddress.ip_network(bare, strict=False)
    except ValueError:
        network = None
    if network is None and ("/" in bare or not _PREFIX.fullmatch(bare)):
        raise ValueError(f"{key}:{value} is no address; type {key}:10.0.0.1, {key}:10.0. or {key}:10.0.0.0/8")
    if network is None:
        return terms.starts_with(bare.lower(), ends)
    if bare.endswith("::") and bare != "::":  # may be as far as the typing got
        return _either([terms.networks(network, ends), terms.starts_with(bare.lower(), ends)])
    return terms.networks(network, ends)


def _either(found: Iterable[Test]) -> Test:
    listed = list(found)
    return lambda rows: terms.any_of(test(rows) for test in listed)


def _numbers(key: str, make: Callable[[list[int]], Test], bits: int = 32) -> Callable[[str], Test]:
    def build(value: str) -> Test:
        try:
            numbers = [int(part, 0) for part in _listed(value)]
        except ValueError:
            numbers = [-1]
        if min(numbers) < 0 or max(numbers) >= 1 << bits:
            raise ValueError(f"{key}:{value} is no such number; type {EXAMPLES[key]}")
        return make(numbers)

    return build


def _pids(wanted: list[int]) -> Test:
    return terms.owners(lambda owner: any(process.pid in wanted for process in owner.processes))


def _process(value: str) -> Test:
    wanted = value.casefold()

    def test(owner: Owner) -> bool:
        return any(wanted in process.name.casefold() for process in owner.processes)

    return terms.owners(test)


TERM_PARSERS: dict[str, Callable[[str], Test]] = {
    "state": _state,
    "port": _ports("port", terms.BOTH),
    "lport": _ports("lport", (terms.LOCAL,)),
    "rport": _ports("rport", (terms.REMOTE,)),
    "addr": _addresses("addr", terms.BOTH),
    "laddr": _addresses("laddr", (terms.LOCAL,)),
    "raddr": _addresses("raddr", (terms.REMOTE,)),
    "pid": _numbers("pid", _pids),
    "process": _process,
    "user": terms.users,
    "role": _role,
    "ending": _ending,
    "inode": _numbers("inode", lambda wanted: terms.field("idiag_inode", wanted)),
    "cookie": _numbers("cookie", terms.cookies, 64),
}
"""Key of a term → what makes a test of its value, raising ValueError."""

ALIASES = {"sport": "lport", "dport": "rport", "src": "laddr", "dst": "raddr", "proc": "process", "uid": "user"}
"""What other tools call them."""

EXAMPLES = {
    "state": "state:established", "port": "port:443", "lport": "lport:443", "rport": "rport:443",
    "addr": "addr:10.0.0.1", "laddr": "laddr:10.0.0.1", "raddr": "raddr:10.0.0.1", "pid": "pid:1234",
    "process": "process:nginx", "user": "user:root", "role": "role:server", "ending": "ending:reset",
    "inode": "inode:4711", "cookie": "cookie:4711",
}  # fmt: skip
