"""Real TCP traffic on the real kernel, in a network namespace that nothing leaves.

    from tests import lab

    def test_a_leak_is_seen() -> None:
        lab.require(lab.namespaces, lab.tun)
        with lab.Namespace() as namespace, lab.Peer(namespace) as peer:
            with lab.produce(peer, "CLOSE_WAIT/eof-read", family=4) as it:
                ...  # the kernel has a socket it.local, it.remote in it.state

`Namespace` moves the main thread into a fresh network namespace; `Peer` adds a TUN device and
plays every host behind it: it opens, half-opens, acknowledges or stays silent, closes its window,
loses segments, resets, floods. `produce` brings one socket into any state by name: `STATES` are the
eleven of RFC 9293, `VARIANTS` are special cases of them, `CASES` are all of them with their
families, for `pytest.mark.parametrize`. Everything is undone at the end of the `with` block.

Everywhere `local` is the kernel's end of a connection and `remote` the peer's, as in a monitor's
table. Root needs nothing else; for an ordinary user `enter_user_namespace()` must be called
before any thread is started (numpy starts some on import), so early in the first conftest.py.
"""

from tests.lab.diag import bound_inactive, find_row
from tests.lab.machine.namespace import Namespace
from tests.lab.machine.requirements import ipv6, kernel, namespaces, program, require, tun
from tests.lab.machine.user_namespace import enter_user_namespace
from tests.lab.observe import Row, rows, tcp_state
from tests.lab.states import SCENARIOS, STATES, Produced, produce
from tests.lab.variants import VARIANTS
from tests.lab.waiting import wait_until
from tests.lab.wire.connection import Connection, Offer, Policy
from tests.lab.wire.flood import Flood, FloodReport, finish
from tests.lab.wire.packets import Endpoint, Family, Flag, Options, Segment, parse
from tests.lab.wire.peer import LOCAL, REMOTE, Peer
from tests.lab.wire.wire import Logged

CASES: tuple[tuple[str, Family], ...] = tuple(
    (plan.name, family) for plan in SCENARIOS.values() for family in plan.families
)

__all__ = [
    "CASES",
    "LOCAL",
    "REMOTE",
    "SCENARIOS",
    "STATES",
    "VARIANTS",
    "Connection",
    "Endpoint",
    "Family",
    "Flag",
    "Flood",
    "FloodReport",
    "Logged",
    "Namespace",
    "Offer",
    "Options",
    "Peer",
    "Policy",
    "Produced",
    "Row",
    "Segment",
    "bound_inactive",
    "enter_user_namespace",
    "find_row",
    "finish",
    "ipv6",
    "kernel",
    "namespaces",
    "parse",
    "produce",
    "program",
    "require",
    "rows",
    "tcp_state",
    "tun",
    "wait_until",
]
