"""A scene as data: who listens, who comes, how one knows that it stands, and what a diagnosis has to make of it.

The files are in `tests/lab/scenes`, one situation each; their words are the names of the fields below. A figure is
what the kernel says, by the names in `scene_figures`.
"""

import operator
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tests.lab.packets import Family

FOLDER = Path(__file__).parent / "scenes"

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A process that listens; it sends back what it reads, and closes when its client has closed."""

    port: int
    backlog: int
    accepts: Literal["everything", "nothing"] | float  # a number: so many a second, at irregular times
    address: Literal["any", "local"] = "any"
    sockets: int = 1  # that share the port (SO_REUSEPORT), each with the backlog
    lazy: int = 0  # how many of them are never accepted from
    defer_accept_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Honest clients on other hosts: they repeat a SYN without answer, and answer every SYN+ACK."""

    port: int
    per_s: float
    burst: int = 1  # so many arrive together, the less often
    rtt_ms: tuple[float, float] = (1, 5)  # from, to; each has one of its own
    sends_after_s: float | None = None  # a few bytes, counted from its last ACK
    leaves_after_s: float | None = None  # closes its end, counted likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClients:
    """Clients on the host itself, by the kernel's own sockets: connect, ask, read the answer, close."""

    port: int
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoofed:
    """SYNs from hosts that do not exist."""

    port: int
    per_s: float
    sources: int


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
    """A finding; the subject is `host` or a listener's endpoint as a person writes it.

    A member of a SO_REUSEPORT group has ` full` behind the endpoint if its accept queue is, ` with room` if not.
    """

    rule: str
    severity: str  # info, warning or critical
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One file."""

    name: str  # of the file, without its end
    title: str
    about: str
    families: tuple[Family, ...]
    stands: tuple[Condition, ...]  # all at once: the situation is there
    remains: tuple[Condition, ...]  # true from then on, at every look
    silent: bool  # nothing is to be found
    sysctls: dict[str, int] = field(default_factory=dict)
    applications: tuple[Application, ...]
    clients: tuple[Clients, ...]
    local_clients: tuple[LocalClients, ...]
    spoofed: tuple[Spoofed, ...]
    expect: tuple[Expected, ...]

    def __post_init__(self) -> None:
        if self.silent == bool(self.expect):
            raise ValueError(f"{self.name}: either it is silent or it expects something")


def read(path: Path) -> Scene:
    """Take a file apart; a word that means nothing here is an error."""
    raw: dict[str, Any] = tomllib.loads(path.read_text())
    made: dict[str, Any] = {
        "families": tuple(raw.pop("families")),
        "stands": tuple(map(Condition.parse, raw.pop("stands"))),
        "remains": tuple(map(Condition.parse, raw.pop("remains", ()))),
        "silent": raw.pop("silent", False),
        "applications": tuple(Application(**table) for table in raw.pop("application")),
        "clients": tuple(_clients(**table) for table in raw.pop("clients", ())),
        "local_clients": tuple(LocalClients(**table) for table in raw.pop("local_clients", ())),
        "spoofed": tuple(Spoofed(**table) for table in raw.pop("spoofed", ())),
        "expect": tuple(Expected(**table) for table in raw.pop("expect", ())),
    }
    return Scene(name=path.stem, **made, **raw)


def _clients(rtt_ms: tuple[float, float] = (1, 5), **rest: Any) -> Clients:
    low, high = rtt_ms
    return Clients(rtt_ms=(low, high), **rest)


SCENES: tuple[tuple[Scene, Family], ...] = tuple(
    (scene, family) for scene in map(read, sorted(FOLDER.glob("*.toml"))) for family in scene.families
)
"""Every scene with each of its families, for `pytest.mark.parametrize`."""
