"""A scene as data: who listens, who comes, how one knows that it stands, and what a diagnosis has to make of it.

The files are in `tests/lab/scenes`, one situation each; their words are the names of the fields below and in
`scene_parts`. A figure is what the kernel says, by the names in `scene_figures`.
"""

import operator
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tests.lab.scenes.parts import Application, Caller, Clients, Host, LocalClients, Spoofed
from tests.lab.wire.packets import Family

FOLDER = Path(__file__).parent

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`FIGURE >= NUMBER`, with any other comparison likewise."""

    figure: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        figure, comparison, bound = text.rsplit(maxsplit=2)
        if comparison not in _COMPARISONS:
            raise ValueError(f"no condition: {text}")
        return cls(figure, comparison, float(bound))

    def holds(self, value: float) -> bool:
        return _COMPARISONS[self.comparison](value, self.bound)

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Expected:
    """A finding; the subject is `host`, `process NAME`, `destination NAME`, or a listener's endpoint.

    A member of a SO_REUSEPORT group has ` full` behind the endpoint if its accept queue is, ` with room` if not.
    """

    rule: str
    severity: str  # info, warning or critical
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One file."""

    name: str  # of the file, without its suffix
    title: str
    about: str
    families: tuple[Family, ...]
    stands: tuple[Condition, ...]  # when all hold at once, the situation has been reached
    remains: tuple[Condition, ...]  # true from then on, at every step
    topic: Literal["queues", "connections"] = "queues"  # connections: ports, teardown, loss, windows, dead hosts
    silent: bool  # no finding is expected
    steps: int | None = None  # the most polls until all findings are there, or polls without a finding; None: default
    sysctls: dict[str, int | str] = field(default_factory=dict)
    overrides: dict[str, int] = field(default_factory=dict)  # sysctls that this namespace lacks, given to the diagnosis
    thresholds: dict[str, float] = field(default_factory=dict)  # of the diagnosis, where a test cannot wait so long
    applications: tuple[Application, ...]
    clients: tuple[Clients, ...]
    local_clients: tuple[LocalClients, ...]
    callers: tuple[Caller, ...]
    hosts: tuple[Host, ...]
    spoofed: tuple[Spoofed, ...]
    expect: tuple[Expected, ...]

    def __post_init__(self) -> None:
        if self.silent == bool(self.expect):
            raise ValueError(f"{self.name}: either it is silent or it expects something")


def read(path: Path) -> Scene:
    """Read the file of a scene; an unknown key is an error."""
    raw: dict[str, Any] = tomllib.loads(path.read_text())
    made: dict[str, Any] = {
        "families": tuple(raw.pop("families")),
        "stands": tuple(map(Condition.parse, raw.pop("stands"))),
        "remains": tuple(map(Condition.parse, raw.pop("remains", ()))),
        "silent": raw.pop("silent", False),
        "applications": tuple(Application(**table) for table in raw.pop("application", ())),
        "clients": tuple(_clients(**table) for table in raw.pop("clients", ())),
        "local_clients": tuple(LocalClients(**table) for table in raw.pop("local_clients", ())),
        "callers": tuple(Caller(**table) for table in raw.pop("caller", ())),
        "hosts": tuple(Host(**table) for table in raw.pop("host", ())),
        "spoofed": tuple(Spoofed(**table) for table in raw.pop("spoofed", ())),
        "expect": tuple(Expected(**table) for table in raw.pop("expect", ())),
    }
    return Scene(name=path.stem, **made, **raw)


def _clients(rtt_ms: tuple[float, float] = (1, 5), **rest: Any) -> Clients:
    low, high = rtt_ms
    return Clients(rtt_ms=(low, high), **rest)


def about(topic: str) -> tuple[tuple[Scene, Family], ...]:
    """Return every scene of a topic with each of its families, for `pytest.mark.parametrize`."""
    scenes = [scene for scene in map(read, sorted(FOLDER.glob("*.toml"))) if scene.topic == topic]
    return tuple((scene, family) for scene in scenes for family in scene.families)
