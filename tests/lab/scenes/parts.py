"""The parts of a scene, on the host and behind the device. Field names and values are those of the files."""

from dataclasses import dataclass
from typing import Literal

# On the host ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Listens, and treats its clients as its manner says.

    answers                 sends back what it reads, closes when its client has closed
    answers and closes      closes after the first answer
    answers and shuts down  shuts down its sending side after the first answer, and goes on reading
    reads on                reads, sends nothing, never closes
    reads slowly            reads some kilobytes a second from each client
    reads nothing
    """

    port: int
    backlog: int
    accepts: Literal["everything", "nothing"] | float  # a number: connections per second, at irregular times
    process: str = "server"  # its name; applications of one name share a process
    manner: Literal[
        "answers", "answers and closes", "answers and shuts down", "reads on", "reads slowly", "reads nothing"
    ] = "answers"
    address: Literal["any", "local"] = "any"
    sockets: int = 1  # they share the port (SO_REUSEPORT), each with the backlog
    lazy: int = 0  # how many of them the application never accepts from
    defer_accept_s: int = 0
    descriptors: int | None = None  # limit of open files of the process (RLIMIT_NOFILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Connects to a host behind the device, again and again.

    keeps            sends nothing, never closes
    asks and closes  sends a few bytes, reads the answer, closes
    asks and waits   the same, but closes only when the host has closed
    sends            sends all that the kernel takes, never closes
    """

    port: int
    per_s: float
    manner: Literal["keeps", "asks and closes", "asks and waits", "sends"]
    process: str = "caller"  # its name, as for applications
    most: int | None = None  # number of calls; None: no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClients:
    """Clients on the host itself, with sockets of the kernel: connect, ask, read the answer, close."""

    port: int
    per_s: float


# Behind the device ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Honest clients on other hosts: they retransmit an unanswered SYN and answer every SYN+ACK."""

    port: int
    per_s: float
    burst: int = 1  # clients that arrive together; bursts are then less frequent
    most: int | None = None  # number of clients in all; None: no limit
    rtt_ms: tuple[float, float] = (1, 5)  # lowest and highest; each client has its own
    sends_after_s: float | None = None  # sends a few bytes this long after its last ACK
    leaves_after_s: float | None = None  # closes its end this long after its last ACK
    asks_every_s: float | None = None  # sends a few bytes, if the last ones have been answered
    fills: bool = False  # always sends as much as the kernel's window allows
    follows: bool = False  # closes its end when the application has closed
    acknowledges_fin: bool = True
    loses_every: int = 0  # n: of the segments with data or FIN to all these clients, every n-th is lost; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host that accepts connections: a port of the peer's only address.

    answers             sends a few bytes for a few bytes, closes when the caller has closed
    answers and closes  closes with the answer
    reads nothing       closes its window when its buffer is full
    is dead             answers no SYN
    """

    port: int
    manner: Literal["answers", "answers and closes", "reads nothing", "is dead"]
    buffer: int = 20_000  # bytes, if it reads nothing
    reads_after_s: float | None = (
        None  # for "reads nothing": after this time it empties its buffer and reads everything
    )
    timestamps: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoofed:
    """SYNs from hosts that do not exist."""

    port: int
    per_s: float
    sources: int
