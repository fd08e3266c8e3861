"""The text of the kernel's own trace: an oracle for the states of sockets that shares no code with tcpwatch.

It uses a tracefs instance of its own. The text is read twice: as the kernel prints the events for people, and with the
option `fields`, which adds the address of the socket. Reading the file `trace` does not consume events.
"""

import os
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.lab.machine.tracefs import tracefs_root
from tests.lab.observe import STATES

_EVENTS = (
    "sock/inet_sock_set_state",
    "tcp/tcp_destroy_sock",
    "tcp/tcp_send_reset",
    "tcp/tcp_receive_reset",
    "tcp/tcp_retransmit_skb",
    "tcp/tcp_retransmit_synack",
)
_BUFFER_KB = 16_384  # for each processor: 100,000 events or so
_ENTRIES = re.compile(r"^# entries-in-buffer/entries-written: (\d+)/(\d+)", re.MULTILINE)
_LINE = re.compile(r"^.*\[\d+\] \S+ +(?P<time>\d+\.\d+): (?P<event>\w+): (?P<rest>.*)$")
_PAIR = re.compile(r"(\w+)=(\S+)")
_KERNEL_NAMES = {"SYN_RECV": "SYN_RCVD", "FIN_WAIT1": "FIN_WAIT_1", "FIN_WAIT2": "FIN_WAIT_2", "CLOSE": "CLOSED"}


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One trace event."""

    time: float  # seconds of CLOCK_MONOTONIC
    event: str  # inet_sock_set_state, tcp_destroy_sock, ...
    socket: int  # its address in the kernel; 0: none
    local_port: int
    remote_port: int
    old: str = ""  # as RFC 9293 spells it
    new: str = ""
    reason: str = ""  # of a reset that was sent, without SK_RST_REASON_
    cookie: int = 0


class TraceText:
    """Record trace events of all network namespaces inside the `with` block."""

    def __enter__(self) -> Self:
        self._instance = tracefs_root() / "instances" / f"lab-{os.getpid()}"
        self._instance.mkdir()
        try:
            self._set("trace_clock", "mono")
            self._set("buffer_size_kb", str(_BUFFER_KB))
            for event in _EVENTS:
                self._set(f"events/{event}/enable", "1")
        except OSError:
            self._instance.rmdir()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._instance.rmdir()

    def read(self) -> list[TraceEvent]:
        """Stop the trace; return all its events, ordered by time.

        The list is empty if the kernel has overwritten some of them: events of other namespaces fill the buffer, too.
        """
        self._set("tracing_on", "0")
        self._set("options/fields", "1")
        fields = self._lines()
        self._set("options/fields", "0")
        both = zip(self._lines(), fields, strict=True)
        return [_trace_event(*text, int(field[2].get("skaddr", "0"), 16)) for text, field in both]

    def _set(self, name: str, value: str) -> None:
        (self._instance / name).write_text(value)

    def _lines(self) -> list[tuple[float, str, dict[str, str]]]:
        text = (self._instance / "trace").read_text()
        entries = _ENTRIES.search(text)
        if entries is None or entries[1] != entries[2]:
            return []
        found = filter(None, map(_LINE.match, text.splitlines()))
        return [(float(it["time"]), it["event"], dict(_PAIR.findall(it["rest"]))) for it in found]


def _trace_event(time: float, event: str, words: dict[str, str], socket: int) -> TraceEvent:
    if event == "tcp_send_reset":
        local, remote = words["src"], words["dest"]
    else:
        local, remote = words["sport"], words["dport"]
    return TraceEvent(
        time=time,
        event=event,
        socket=socket,
        local_port=int(local.rpartition(":")[2]),
        remote_port=int(remote.rpartition(":")[2]),
        old=_state(words.get("oldstate", words.get("state", ""))),
        new=_state(words.get("newstate", words.get("state", ""))),
        reason=words.get("reason", ""),
        cookie=int(words.get("sock_cookie", "0"), 16),
    )


def _state(kernel: str) -> str:
    name = kernel.removeprefix("TCP_")
    name = _KERNEL_NAMES.get(name, name)
    return name if name in STATES else ""
