"""Filter: text typed by a person, parsed into a mask over rows.

Terms are separated by spaces, and all must match; `-` or `!` before a term negates it; quotes enclose text with spaces.
HELP lists the terms.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from tcpwatch.kernel.netlink.uapi import TIMER_NAMES
from tcpwatch.model.lifecycle.ending import NOT_ENDED, Ending
from tcpwatch.model.query import filter_terms as terms
from tcpwatch.model.query.address_match import Mask
from tcpwatch.model.query.filter_terms import Test
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.model.states import SPELLINGS, STATE_ORDER, Phase, Role, State, normalised_name
from tcpwatch.units import service_port

HELP: tuple[tuple[str, str], ...] = (
    ("state:tw,syn-recv", "state, in any spelling or abbreviation; or handshake, open, teardown"),
    ("port:443  :443", "local or remote port; also 1000-2000, a list, or a service name"),
    ("lport: rport:", "local port, remote port"),
    ("addr:10.0.", "local or remote address, its beginning, or a network: 10.0.0.0/8, fe80::/10"),
    ("laddr: raddr:", "local address, remote address"),
    ("if:eth0", "interface or VRF that the socket is bound to: name or index"),
    ("process:nginx", "name of a process that holds the socket, or part of it"),
    ("pid:12", "process id"),
    ("user:www-data", "user of the socket: name or user id"),
    ("role:server", "client, server, listener or unknown"),
    ("ending:reset,refused", "how the flow ended, or the beginning of that word; or live (Timelines, events)"),
    ("timer:persist", "running timer, or none"),
    ("inode: cookie:", "inode or cookie of the socket (0x… for hexadecimal)"),
    ("-term  !term", "exclude matches"),
    ("anything else", "search in everything that the row shows; quote text with spaces"),
)
"""(Form of a term, what it matches)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. Filters are equal if their texts are equal."""

    text: str = ""
    tests: tuple[Test, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Parse a filter text. Raises ValueError with one line: the problem, and what to type."""
        tests = []
        for sign, key, value in _terms(text):
            test = TERM_PARSERS[key](value) if key else terms.text_anywhere(value)
            tests.append(terms.negated(test) if sign else test)
        return cls(text.strip(), tuple(tests))

    @classmethod
    def parse_partial(cls, text: str) -> Filter:
        """Parse a text that is still being typed: ignore a last word that may become a key, as `sta` of `state:tw`.

        Raises ValueError as `parse` does.
        """
        head, _, last = text.rpartition(" ")
        word = last.lstrip("-!").lower()
        may_become_a_key = len(word) >= 3 and any(key.startswith(word) for key in (*TERM_PARSERS, *ALIASES))
        return cls.parse(head) if may_become_a_key and head.count('"') % 2 == 0 else cls.parse(text)

    def mask(self, rows: Rows) -> Mask:
        """Return which rows match, one bool per row."""
        if not self.tests:
            return np.ones(len(rows), np.bool_)
        return reduce(np.logical_and, (test(rows) for test in self.tests))


_TERM = re.compile(r"""([-!]?)(?:([A-Za-z]+):)?("[^"]*"|'[^']*'|[^\s"']\S*|(?=\s|$))(?=\s|$)""")


def _terms(text: str) -> list[tuple[str, str, str]]:
    """Return (sign, key, value) of each term; the key is empty for a text to search for."""
    parsed, at = [], 0
    text = text.strip()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TERM.match(text, at)
        if match is None:
            raise ValueError(f'unbalanced or misplaced quote: {text[at : at + 20]} — type "two words"')
        parsed.append(_term(match))
        at = match.end()
    return parsed


def _term(match: re.Match[str]) -> tuple[str, str, str]:
    sign, word, value = match.group(1), match.group(2) or "", match.group(3)
    bare = value[1:-1] if value[:1] in ('"', "'") else value
    key = ALIASES.get(word.lower(), word.lower())
    if re.fullmatch(r":(\d+)", value) and not word:
        return sign, "port", value[1:]
    if key in TERM_PARSERS:
        if not bare.strip():
            raise ValueError(f"{word}: needs a value. Type {EXAMPLES[key]}")
        return sign, key, bare
    _refuse_typo(word)
    searched = f"{word}:{bare}" if word else bare
    if not searched:
        raise ValueError(f"nothing after {sign}: type {sign}state:listen" if sign else "nothing between the quotes")
    return sign, "", searched


_HEXTET = re.compile("[0-9a-f]{0,4}", re.IGNORECASE)


def _refuse_typo(word: str) -> None:
    """Raise ValueError for a word that is nearly a key: it is a typo, not a text to search for."""
    if _HEXTET.fullmatch(word):
        return
    close = difflib.get_close_matches(word.lower(), TERM_PARSERS, 1, 0.75) if len(word) > 2 else []
    if close:
        raise ValueError(f"{word}: is not a term; did you mean {close[0]}: ? To search for the text, quote it")


def _state_names() -> dict[str, frozenset[State]]:
    """Return normalised name → states: all spellings, initials (tw), phases, and half-open."""
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
    return terms.codes("state", frozenset[State]().union(*map(_states_named, _listed(value))))


def _role(value: str) -> Test:
    wanted = [[role for role in Role if role.word.startswith(name.lower())] for name in _listed(value)]
    if any(len(matching) != 1 for matching in wanted):
        raise ValueError(f"{value!r} is not a role; type role:client, server, listener or unknown")
    return terms.codes("role", [matching[0] for matching in wanted])


def _ending(value: str) -> Test:
    wanted: set[int] = set()
    for name in map(normalised_name, _listed(value)):
        matching = {int(ending) for ending in Ending if _is_named(ending, name or "?")}
        if not matching and name != "live":
            words = "closed, reset, refused, unreachable, timed-out, killed or live"
            raise ValueError(f"{name!r} is not an ending; type ending:{words}")
        wanted |= matching or {NOT_ENDED}
    return terms.endings(wanted)


def _is_named(ending: Ending, begin: str) -> bool:
    return any(normalised_name(word).startswith(begin) for word in (ending.word, ending.short))


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] or [value]


def _timer(value: str) -> Test:
    names = ["none", *TIMER_NAMES[1:-1]]
    wanted = [[number for number, name in enumerate(names) if name.startswith(part)] for part in _listed(value.lower())]
    if any(len(matching) != 1 for matching in wanted):
        raise ValueError(f"{value!r} is not a timer; type timer:on, keepalive, timewait, persist or none")
    return terms.field("idiag_timer", [matching[0] for matching in wanted])


def _ports(key: str, ends: terms.Ends) -> Callable[[str], Test]:
    return lambda value: terms.ports([_port_range(key, part) for part in _listed(value)], ends)


def _port_range(key: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text, re.ASCII)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > 0xFFFF:
            raise ValueError(f"{key}:{text} is not a range of ports; type {EXAMPLES[key]} (ports end at 65535)")
        return first, last
    port = service_port(text.lower())
    if port is None:
        raise ValueError(f"{key}:{text} is not a port; type {EXAMPLES[key]}, {key}:1000-2000 or {key}:https")
    return port, port


_PREFIX = re.compile(r"[0-9a-f:.]+", re.IGNORECASE)


def _addresses(key: str, ends: terms.Ends) -> Callable[[str], Test]:
    return lambda value: _either(_address(key, part, ends) for part in _listed(value))


def _address(key: str, value: str, ends: terms.Ends) -> Test:
    """Return a test for a network, an address, or the beginning of an address."""
    bare = value.strip("[]")
    if bare == "*":
        return _either(terms.networks(ipaddress.ip_network(a), ends) for a in ("0.0.0.0/32", "::/128"))
    try:
        network = ipaddress.ip_network(bare, strict=False)
    except ValueError:
        network = None
    if network is None and ("/" in bare or not _PREFIX.fullmatch(bare)):
        raise ValueError(f"{key}:{value} is not an address; type {key}:10.0.0.1, {key}:10.0. or {key}:10.0.0.0/8")
    if network is None:
        return terms.starts_with(bare.lower(), ends)
    if bare.endswith("::") and bare != "::":  # may be typed only so far
        return _either([terms.networks(network, ends), terms.starts_with(bare.lower(), ends)])
    return terms.networks(network, ends)


def _either(tests: Iterable[Test]) -> Test:
    listed = list(tests)
    return lambda rows: terms.any_of(test(rows) for test in listed)


def _numbers(key: str, make: Callable[[list[int]], Test], bits: int = 32) -> Callable[[str], Test]:
    def build(value: str) -> Test:
        try:
            numbers = [int(part, 0) for part in _listed(value)]
        except ValueError:
            numbers = [-1]
        if min(numbers) < 0 or max(numbers) >= 1 << bits:
            raise ValueError(f"{key}:{value} is not a valid number; type {EXAMPLES[key]}")
        return make(numbers)

    return build


def _pids(wanted: list[int]) -> Test:
    return terms.owners(lambda owner: any(process.pid in wanted for process in owner.processes))


def _process(value: str) -> Test:
    wanted = value.casefold()
    return terms.owners(lambda owner: any(wanted in process.name.casefold() for process in owner.processes))


TERM_PARSERS: dict[str, Callable[[str], Test]] = {
    "state": _state,
    "port": _ports("port", terms.BOTH),
    "lport": _ports("lport", (terms.LOCAL,)),
    "rport": _ports("rport", (terms.REMOTE,)),
    "addr": _addresses("addr", terms.BOTH),
    "laddr": _addresses("laddr", (terms.LOCAL,)),
    "raddr": _addresses("raddr", (terms.REMOTE,)),
    "if": lambda value: terms.interfaces(_listed(value)),
    "pid": _numbers("pid", _pids),
    "process": _process,
    "user": terms.users,
    "role": _role,
    "ending": _ending,
    "timer": _timer,
    "inode": _numbers("inode", lambda wanted: terms.field("idiag_inode", wanted)),
    "cookie": _numbers("cookie", terms.cookies, 64),
}
"""Key of a term → function that returns a test for its value, or raises ValueError."""

ALIASES = {
    "sport": "lport", "dport": "rport", "src": "laddr", "dst": "raddr", "proc": "process", "uid": "user", "dev": "if",
    "interface": "if",
}  # fmt: skip
"""Names of the keys in other tools."""

EXAMPLES = {
    "state": "state:established", "port": "port:443", "lport": "lport:443", "rport": "rport:443", "if": "if:eth0",
    "addr": "addr:10.0.0.1", "laddr": "laddr:10.0.0.1", "raddr": "raddr:10.0.0.1", "pid": "pid:1234",
    "process": "process:nginx", "user": "user:root", "role": "role:server", "ending": "ending:reset",
    "timer": "timer:persist", "inode": "inode:4711", "cookie": "cookie:4711",
}  # fmt: skip
