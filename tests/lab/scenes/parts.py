"""The parts in a scene: who is on the host, and who behind the device. Their words are those of the files."""

from dataclasses import dataclass
from typing import Literal

# On the host ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Listens, and does with its clients what its manner says.

    answers                 sends back what it reads, closes when its client has closed
    answers and closes      closes after the first answer
    answers and shuts down  says after the first answer that it sends no more, and goes on listening
    reads on                reads, sends nothing, never closes
    reads slowly            some kilobytes a second of each client
    reads nothing
    """

    port: int
    backlog: int
    accepts: Literal["everything", "nothing"] | float  # a number: so many a second, at irregular times
    process: str = "server"  # its name; those of one name are one process
    manner: Literal[
        "answers", "answers and closes", "answers and shuts down", "reads on", "reads slowly", "reads nothing"
    ] = "answers"
    address: Literal["any", "local"] = "any"
    sockets: int = 1  # that share the port (SO_REUSEPORT), each with the backlog
    lazy: int = 0  # how many of them are never accepted from
    defer_accept_s: int = 0
    descriptors: int | None = None  # that the process may have open (RLIMIT_NOFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Connects to a host behind the device, again and again.

    keeps            sends nothing, never closes
    asks and closes  sends a few bytes, reads the answer, closes
    asks and waits   the same, but closes only when the host has closed
    sends            all that the kernel takes, never closes
    """

    port: int
    per_s: float
    manner: Literal["keeps", "asks and closes", "asks and waits", "sends"]
    process: str = "caller"  # as with applications
    most: int | None = None  # so many calls


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClients:
    """Clients on the host itself, by the kernel's own sockets: connect, ask, read the answer, close."""

    port: int
    per_s: float


# Behind the device ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Honest clients on other hosts: they repeat a SYN without answer, and answer every SYN+ACK."""

    port: int
    per_s: float
    burst: int = 1  # so many arrive together, the less often
    most: int | None = None  # so many arrive in all
    rtt_ms: tuple[float, float] = (1, 5)  # from, to; each has one of its own
    sends_after_s: float | None = None  # a few bytes, counted from its last ACK
    leaves_after_s: float | None = None  # closes its end, counted likewise
    asks_every_s: float | None = None  # a few bytes, if the last have been answered
    fills: bool = False  # sends as much as the kernel's window lets it, always
    follows: bool = False  # closes its end when the application has closed
    acknowledges_fin: bool = True
    loses_every: int = 0  # of the segments that all of them get, each so-manieth with data or FIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host that is called: a port of the peer's one address.

    answers             sends a few bytes for a few bytes, closes when the caller has closed
    answers and closes  closes with the answer
    reads nothing       its window closes when its buffer is full
    is dead             answers no SYN
    """

    port: int
    manner: Literal["answers", "answers and closes", "reads nothing", "is dead"]
    buffer: int = 20_000  # bytes, if it reads nothing
    reads_after_s: float | None = None  # then its buffer is empty and it reads all, if it read nothing before
    timestamps: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoofed:
    """SYNs from hosts that do not exist."""

    port: int
    per_s: float
    sources: int
