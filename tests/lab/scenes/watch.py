"""Compare the findings of each step with those that the file of a scene expects.

This is the only module of the lab that imports the program under test.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from threading import Event

from tcpwatch.config.thresholds import Thresholds
from tcpwatch.model.finding import FindingSubject, ListenerSubject
from tcpwatch.model.view import View
from tcpwatch.monitor import Monitor
from tcpwatch.sample import Sample
from tcpwatch.sources.base import Source
from tcpwatch.sources.live import open_source
from tests.lab.diag import dump
from tests.lab.scenes.player import Playing
from tests.lab.scenes.scene import Expected
from tests.lab.wire.packets import Family

STEPS_TO_FIND = 3
STEPS_OF_SILENCE = 5
JITTER_S = 0.2  # polls at exactly one second would always meet the same phase of what has that period


def watch(it: Playing) -> None:
    """Poll about once a second until all expected findings are there; fail at once at any other finding."""
    scene = it.scene
    thresholds = Thresholds(**scene.thresholds)
    steps = scene.steps or (STEPS_OF_SILENCE if scene.silent else STEPS_TO_FIND)
    with closing(Monitor(source(it), thresholds=thresholds)) as monitor:
        expected = Counter(scene.expect)
        chance = random.Random(scene.name)
        for step in range(steps):
            if step:
                wait_about_a_second(chance)
            before, view, after = moment(it), monitor.step(), moment(it)
            if before == after:  # nothing changed meanwhile: otherwise it is unknown which of the two the poll saw
                meters = ports_on_meters(view)
                by_hand = Counter(destination for destination, _ in before[1])
                assert meters == by_hand, f"step {step + 1}: {meters - by_hand}, {by_hand - meters}"
            found = findings(view, it.family)
            it.check_that_it_remains()
            assert all(is_expected(one, expected) for one in found), f"step {step + 1}: {found}"
            if expected and found == expected:
                return
        assert found == expected, f"after {steps} steps: {found}"


def moment(it: Playing) -> tuple[int, set[tuple[str, str]]]:
    """Return how many connections have been opened so far, and what ss shows.

    The count reveals connections that were opened and closed between two calls.
    """
    return it.namespace.counters()["ActiveOpens"], ports_in_ss(it)


def ports_in_ss(it: Playing) -> set[tuple[str, str]]:
    """Return destination and ephemeral port of each connection that uses one, as ss shows them."""
    low, high = map(int, it.namespace.sysctl("net.ipv4.ip_local_port_range").split())
    lines = [line.split()[:5] for line in it.namespace.ss("-tanHO").splitlines()]
    ends = [(state, *local.rsplit(":", 1), remote) for state, _, _, local, remote in lines]
    listening = {port for state, _, port, _ in ends if state in ("LISTEN", "UNCONN")}
    return {
        (f"{remote} from {host.strip('[]')}", port)
        for state, host, port, remote in ends
        if state != "SYN-RECV" and port not in listening and low <= int(port) <= high
    }


def ports_on_meters(view: View) -> Counter[str]:
    """Return the number of used ports for each destination, as the meters show them."""
    assert view.ephemeral_ports is not None
    meters = view.ephemeral_ports.destinations
    return Counter({f"{one.remote} from {one.local_address}": one.used + one.reusable for one in meters})


def wait_about_a_second(chance: random.Random) -> None:
    Event().wait(chance.uniform(1 - JITTER_S, 1 + JITTER_S))


def source(it: Playing) -> Source:
    """Return the live source, with the sysctls that the scene overrides."""
    live = open_source("sock_diag")
    return ScenarioSource(live, it) if it.scene.overrides else live


class ScenarioSource:
    """A source that adds sysctls which the namespace lacks, and counts the orphans of this namespace alone.

    The kernel counts orphans of all namespaces together.
    """

    def __init__(self, live: Source, it: Playing) -> None:
        self.info = live.info
        self._live = live
        self._it = it

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        sample, it = self._live.sample(watched), self._it
        own = {"TCP_orphan": round(it.figures["orphans"])}
        return replace(sample, sysctls={**sample.sysctls, **it.scene.overrides}, counters={**sample.counters, **own})

    def close(self) -> None:
        self._live.close()


def is_expected(one: Expected, expected: Counter[Expected]) -> bool:
    """Return whether the finding is expected, or is a warning that may become an expected critical one later."""
    return one in expected or replace(one, severity="critical") in expected


def findings(view: View, family: Family) -> Counter[Expected]:
    """Return the findings in the form that the files of scenes use."""
    return Counter(
        Expected(rule=one.rule, severity=one.severity.name.lower(), subject=written(one.subject, family))
        for one in view.findings
    )


def written(subject: FindingSubject, family: Family) -> str:
    """Return the subject without what a file cannot know: pids, and inodes of the members of a SO_REUSEPORT group."""
    if subject.kind == "host":
        return "host"
    if subject.kind == "process":
        return re.sub(r"\[\d+\]$", "", str(subject))
    if subject.kind != "listener":
        return str(subject)
    if isinstance(subject.value, ListenerSubject) and (inode := subject.value.inode):
        (member,) = (row for row in dump(family, "LISTEN") if row.inode == inode)
        return f"{subject.value.key.endpoint} {'full' if member.receive_queue > member.transmit_queue else 'with room'}"
    return subject.name
