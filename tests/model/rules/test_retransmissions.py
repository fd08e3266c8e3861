"""The rule `retransmissions` on made-up hosts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tcpwatch.config.thresholds import DEFAULT
from tcpwatch.model.analyses.retransmits import PeerRetransmits, Retransmits, _Step
from tcpwatch.model.analyses.silent_peers import SilentPeers
from tcpwatch.model.analyses.stalls import Stalls
from tcpwatch.model.finding import Finding, Severity
from tcpwatch.model.rules.retransmissions import retransmissions
from tcpwatch.model.sockets.remote_ends import RemoteEnds
from tcpwatch.model.view import View
from tests.support.views import make_table, make_view, sock

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


def lossy(again: float, syns: float, sent: float, seconds: float = 30, peers: PeerRetransmits | None = None) -> View:
    """A host that sent this in the last seconds."""
    return make_view(retransmits=Retransmits((_Step(1_000.0, seconds, again, syns, sent, peers),)))


def peers(**counts: int) -> PeerRetransmits:
    """`p1=5`: 5 segments to 192.0.2.1."""
    socks = [sock("ESTAB", "10.0.0.1:1", f"192.0.2.{name[1:]}:443") for name in counts]
    return PeerRetransmits(RemoteEnds.of(make_table(socks)), np.array(list(counts.values()), np.int64))


def findings(view: View) -> list[Finding]:
    return [candidate.finding for candidate in retransmissions(view, DEFAULT)]


@pytest.mark.parametrize(
    ("again", "syns", "sent", "expected"),
    [
        (0, 0, 1000, []),
        (9, 0, 1000, []),
        (10, 0, 1000, [WARNING]),
        (49, 0, 1000, [WARNING]),
        (50, 0, 1000, [CRITICAL]),
        (100, 100, 1000, []),  # SYNs and SYN+ACKs: that is connect-stuck's, or a flood
        (5, 9, 1000, []),
        (1, 0, 100, [WARNING]),
        (99, 0, 99, []),  # 99 segments prove nothing
        (0, 0, 0, []),
    ],
)
def test_shares(again: float, syns: float, sent: float, expected: list[Severity]) -> None:
    found = findings(lossy(again, syns, sent))
    assert [(str(one.subject), one.severity) for one in found] == [("host web-1", one) for one in expected]
    assert findings(make_view()) == [], "nothing is known"


def test_a_peer_that_is_proved_to_be_the_worst() -> None:
    (finding,) = findings(lossy(120, 20, 1_000, 10, peers(p1=95, p2=3)))
    assert finding.headline == "10 % of 1,000 data segments retransmitted within 10 s, 95 % of them to 192.0.2.1"
    assert finding.filter == "raddr:192.0.2.1"
    evidence = finding.evidence
    assert (evidence["worst_peer"].value, evidence["worst_peer_retransmitted"].value) == ("192.0.2.1", 9.5)


@pytest.mark.parametrize("known", [None, {}, {"p1": 40, "p2": 3}, {"p1": 50, "p2": 50}])
def test_nobody_is_blamed_without_proof(known: dict[str, int] | None) -> None:
    (finding,) = findings(lossy(100, 0, 1_000, 10, None if known is None else peers(**known)))
    assert finding.headline == "10 % of 1,000 data segments retransmitted within 10 s"
    assert (finding.filter, finding.evidence["worst_peer"].value) == ("", None)


def test_what_a_silent_peer_explains_is_not_said_twice() -> None:
    known = peers(p1=95, p2=5)
    silent = SilentPeers(addresses=known.remote.address_numbers[:1])
    view = lossy(100, 0, 1_000, 10, known)
    assert findings(replace(view, stalls=Stalls(silent=silent))) == []
    worse = lossy(105, 0, 1_000, 10, peers(p1=95, p2=10))
    assert len(findings(replace(worse, stalls=Stalls(silent=silent)))) == 1
