"""Names of users (getpwuid(3)), without waiting long for a name service (nsswitch.conf(5))."""

from __future__ import annotations

import math
import pwd
from functools import partial
from time import monotonic

from tcpwatch.blocking import BlockingCalls
from tcpwatch.units.printable import printable

_LIMIT = 64
_MISSING_S = 60.0
"""A user may be added; looking again after this time costs little."""

_lookups = BlockingCalls[str | None](threads=2)
_known: dict[int, tuple[str | None, float]] = {}
"""uid → name, and until when it is kept in monotonic seconds."""


def user_name(uid: int) -> str | None:
    """Return the name of a user, None if there is none. Raises Unanswered: a later call may have the name.

    Called by the thread that polls.
    """
    name, until = _known.get(uid, (None, 0.0))
    now = monotonic()
    if now >= until:
        name = _lookups.answer(uid, partial(_look_up, uid))
        _known[uid] = name, math.inf if name else now + _MISSING_S
    return name


def lookups_block() -> bool:
    """Return whether a user's name is not known yet, since this was last asked."""
    return _lookups.blocked()


def _look_up(uid: int) -> str | None:
    try:
        return printable(pwd.getpwuid(uid).pw_name, _LIMIT)
    except KeyError:
        return None
