"""The targets: each makes inputs from a seed, and hands them to the code that reads such bytes in production.

An input is refused with the error that the code documents, or leads to a result; any other exception is a finding.
"""

from __future__ import annotations

import os
import random
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tcpwatch.config import settings
from tcpwatch.kernel.netlink import decode_sockets, destroy_event_reader, sock_diag, uapi
from tcpwatch.kernel.netlink.decode_sockets import MessageError
from tcpwatch.kernel.netlink.destroy_event_reader import DestroyEventReader
from tcpwatch.kernel.netlink.sock_diag import SockDiag, SockDiagError
from tcpwatch.kernel.netlink.tcp_info import info_fields
from tcpwatch.kernel.proc.connect_callers import ConnectCallers
from tcpwatch.kernel.proc.descriptors import Descriptors
from tcpwatch.kernel.proc.limits import descriptor_limit
from tcpwatch.kernel.proc.namespaces import NamespaceCensus
from tcpwatch.kernel.proc.process import PROCESS_ENDED_ERRORS, read_process, read_process_stat
from tcpwatch.kernel.trace import decode_events, event_format, ring_buffer
from tcpwatch.kernel.trace.trace_events import TraceEventKind
from tcpwatch.kernel.trace.tracefs import TraceError
from tcpwatch.model.query.filter import ALIASES, EXAMPLES, TERM_PARSERS, Filter
from tcpwatch.sample import sort_by_cookie, sort_tcp_info, without_unknown_states
from tcpwatch.sources.base import try_read_counters, try_read_sysctls
from tcpwatch.units import addresses
from tcpwatch.units.printable import printable
from tests.fuzz import seeds
from tests.fuzz.messages import random_message
from tests.fuzz.mutator import Mutator
from tests.fuzz.samples import Reports, SampleMaker
from tests.support.kernel import netlink, ring, tracepoint_texts
from tests.support.kernel.fake_kernel import FakeKernel

Run = Callable[[bytes], None]
Target = Callable[[random.Random], Iterator[tuple[bytes, Run]]]
"""Yields inputs and the function that takes them."""


# sock_diag ----------------------------------------------------------------------------------------


class _Pool:
    """Messages of which some are replaced before each use."""

    def __init__(self, rng: random.Random, kind: int = netlink.GETSOCK, sequence: int = netlink.CURRENT) -> None:
        self._rng, self._kind, self._sequence = rng, kind, sequence
        self._messages = [random_message(rng, kind, sequence) for _ in range(200)]
        self._mutator = Mutator(rng, self._messages)

    def messages(self, most: int) -> list[bytes]:
        """Return valid messages, and in every second list some that are not."""
        rng = self._rng
        for _ in range(10):
            self._messages[rng.randrange(200)] = random_message(rng, self._kind, self._sequence)
        chosen = rng.choices(self._messages, k=rng.randint(1, most))
        for _ in range(rng.choice((0, 0, 0, 1, 1, 3))):
            at = rng.randrange(len(chosen))
            changed = self._mutator.words(chosen[at], rng.choice((1, 1, 2, 8)), rng.choice((0, 18)))
            chosen[at] = changed if rng.random() < 0.8 else changed[: rng.randrange(len(changed) + 1)]
        return chosen


def _datagrams(messages: list[bytes]) -> list[bytes]:
    """Return messages in datagrams of about 32 KiB, as the kernel sends them."""
    return [b"".join(messages[at : at + 100]) for at in range(0, len(messages), 100)]


def dumps(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Whole dumps with tcp_info, decoded and sorted as in a sample."""
    pool, silence = _Pool(rng), BlockingIOError(11, "")
    while True:
        datagrams = _datagrams(pool.messages(2000))
        answer: list[bytes | OSError] = [*datagrams, netlink.done(), silence, silence]

        def run(_: bytes, answer: list[bytes | OSError] = answer) -> None:
            with patch.object(sock_diag, "_open", FakeKernel(answer, answer).open):
                diag = SockDiag()
                with suppress(SockDiagError, MessageError):
                    dump = diag.dump(infos=True)
                    assert dump.infos is not None
                    without_unknown_states(sort_by_cookie(dump.table))
                    sort_tcp_info(dump.infos)

        yield b"".join(datagrams), run


def listener_dumps(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Messages with their drops, decoded from one buffer."""
    pool = _Pool(rng, sequence=7)

    def run(data: bytes) -> None:
        words = np.frombuffer(data[: len(data) & ~3], np.uint32)
        with suppress(MessageError):
            offsets = decode_sockets.message_offsets(words, 0, len(words), 7)
            table, drops = np.empty(len(offsets), uapi.SOCKET), np.empty(len(offsets), np.uint32)
            decode_sockets.decode_sockets(words, offsets, table, drops)

    while True:
        yield b"".join(pool.messages(500)), run


def tcp_infos(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """The answer to a request for one socket."""
    pool, row = _Pool(rng, netlink.BY_FAMILY), np.zeros(1, uapi.SOCKET)[0]

    def run(data: bytes) -> None:
        kernel = FakeKernel([data, BlockingIOError(11, ""), BlockingIOError(11, "")])
        with patch.object(sock_diag, "_open", kernel.open), suppress(SockDiagError, MessageError):
            SockDiag().tcp_info(row)
        info_fields(data)

    while True:
        yield pool.messages(1)[0], run


class _EventSocket:
    """Gives datagrams, some of them from another sender."""

    def __init__(self, datagrams: list[bytes], senders: list[int]) -> None:
        self._waiting = list(zip(datagrams, senders, strict=True))

    def recvfrom_into(self, place: memoryview) -> tuple[int, tuple[int, int]]:
        if not self._waiting:
            raise BlockingIOError(11, "")
        datagram, sender = self._waiting.pop()
        size = min(len(datagram), len(place))
        place[:size] = datagram[:size]
        return size, (sender, 1)

    def getsockopt(self, *arguments: int) -> int | bytes:
        return bytes(36) if len(arguments) == 3 else 4096

    def close(self) -> None:
        pass


def destroy_events(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Datagrams of the multicast groups: each is an event, lost or forged."""
    pool = _Pool(rng, netlink.BY_FAMILY, sequence=0)
    while True:
        datagrams = pool.messages(1500)
        senders = rng.choices((0, 0, 0, 4711), k=len(datagrams))

        def run(_: bytes, datagrams: list[bytes] = datagrams, senders: list[int] = senders) -> None:
            with patch.object(destroy_event_reader, "_open", lambda: _EventSocket(datagrams, senders)):
                reader = DestroyEventReader()
            reader.read()
            taken = reader.take()
            assert len(taken.table) + taken.lost + taken.forged == len(datagrams)

        yield b"".join(datagrams), run


# The trace ----------------------------------------------------------------------------------------

_FORMATS = [tracepoint_texts.SET_STATE, tracepoint_texts.SEND_RESET, tracepoint_texts.OLD_SEND_RESET]


def trace_pages(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Pages of the ring buffer, and their payloads as events of three tracepoints."""
    forms = [event_format.parse(text) for text in _FORMATS]
    mutator = Mutator(rng, [b""])

    def record() -> bytes:
        kind = rng.randrange(12)
        if kind < 8:
            return ring.short(rng.randbytes(4 * rng.randint(1, 28)), rng.randrange(1 << 27))
        if kind == 8:
            return ring.long(rng.randbytes(rng.randrange(150)), rng.randrange(1 << 27))
        if kind == 9:
            return ring.discarded(4 * rng.randrange(10), rng.randint(1, 1 << 26))
        return ring.time_extend(rng.randrange(1 << 50)) if kind == 10 else ring.time_stamp(rng.randrange(1 << 58))

    def page() -> bytes:
        data = b""
        while len(data) < ring.PAGE - 160 and rng.random() < 0.97:
            data += record()
        whole = ring.page(data[: ring.PAGE - 16], rng.randrange(1 << 60), rng.choice((0, 0, ring.MISSED)))
        return mutator.words(whole, rng.choice((0, 0, 0, 1, 5)))

    pages = [page() for _ in range(300)]

    def run(data: bytes) -> None:
        words = np.frombuffer(data, np.uint32)
        with suppress(TraceError):
            events = ring_buffer.decode_pages(words.reshape(-1, ring.PAGE // 4), ring.HEADER)
            assert (events.at + events.size <= len(words)).all()
            for kind, form in zip(
                (TraceEventKind.STATE, TraceEventKind.RESET_SENT, TraceEventKind.RESET_SENT), forms, strict=True
            ):
                fits = np.flatnonzero(4 * events.size >= form.dtype.itemsize)
                payload = decode_events.payloads(words, events.at[fits], events.size[fits], form)
                decoded = decode_events.decode_trace_events(kind, form, payload, events.time[fits])
                assert decoded["old"].max(initial=0) <= 12

    while True:
        for _ in range(20):
            pages[rng.randrange(len(pages))] = page()
        yield b"".join(rng.choices(pages, k=rng.randint(1, 100))), run


def trace_formats(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Descriptions of events and of pages, and events by such a description."""
    texts = [*_FORMATS, tracepoint_texts.HEADER_PAGE]
    words = (
        b"field: offset: size: signed: 1; 0; 8; \t; { } , [28] [] char __u8 ID: __print_symbolic(REC->reason,".split()
    )
    mutator, payload = Mutator(rng, [text.encode() for text in texts], words), np.zeros(4096, np.uint32)

    def run(data: bytes) -> None:
        text = data.decode("ascii", "replace")
        with suppress(TraceError):
            event_format.page_header(text)
        with suppress(TraceError):
            form = event_format.parse(text)
            for field in ("reason", "oldstate", "state"):
                form.symbols(field)
            decode_events.check_fields(form)
            if form.dtype.itemsize <= payload.nbytes:
                rows = decode_events.payloads(payload, np.zeros(3, np.intp), np.full(3, 4096), form)
                decode_events.decode_trace_events(TraceEventKind.STATE, form, rows, np.zeros(3, np.int64))

    while True:
        yield mutator.text(), run


# Files --------------------------------------------------------------------------------------------


def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = "/dev/shm"  # no disk
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def proc_net(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Counters of the host, and other namespaces' use of sockets."""
    mutator = Mutator(rng, seeds.PROC_NET, [b"Tcp:", b"TcpExt:", b"TCP:", b"\nTCP:", b"TCP6: inuse "])
    with _folder() as folder:
        files = [Path(folder, "7", "net", name) for name in ("snmp", "netstat", "sockstat", "sockstat6")]
        files[0].parent.mkdir(parents=True)
        Path(folder, "7", "ns").mkdir()
        Path(folder, "7", "ns", "net").symlink_to("net:[1]")

        def run(data: bytes) -> None:
            for file in files:
                file.write_bytes(data)
            values, _ = try_read_counters(files[0].parent)
            assert all(abs(value) < 1 << 64 for value in values.values())
            census = NamespaceCensus(folder)
            census._own = "net:[2]"
            census.look(1.0)

        while True:
            yield mutator.text(), run


def sysctls(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Sysctls and reserved ports."""
    texts = [b"128\n", b"32768\t60999\n", b"1 2 3\n", b"1-9,1024,60000-65535\n"]
    mutator = Mutator(rng, texts, [b",", b"-", b"\t", b"65535", b"70000"])
    with _folder() as folder:
        names = ("core/somaxconn", "ipv4/ip_local_port_range", "ipv4/tcp_mem", "ipv4/ip_local_reserved_ports")
        files = [Path(folder, name) for name in names]
        for file in files:
            file.parent.mkdir(exist_ok=True)

        def run(data: bytes) -> None:
            for file in files:
                file.write_bytes(data)
            _, reserved, _ = try_read_sysctls(Path(folder))
            assert all(0 <= low <= high <= 0xFFFF for low, high in reserved)

        while True:
            yield mutator.text(), run


def processes(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Files and links of a process."""
    names = ("stat", "status", "cmdline", "limits")
    mutator = Mutator(
        rng, seeds.PROCESS, [b"Uid:\t", b"Tgid:\t", b"Max open files ", b") S ", b"    3: socket:[", b"]\n"]
    )
    with _folder() as folder:
        proc = Path(folder, "7")
        (proc / "fd").mkdir(parents=True)
        (proc / "fdinfo").mkdir()
        (proc / "fd" / "9").symlink_to("anon_inode:[io_uring]")
        callers = ConnectCallers(folder)
        callers.readable = True

        def run(data: bytes) -> None:
            for name in (*names, "fdinfo/9"):
                (proc / name).write_bytes(data)
            with suppress(*PROCESS_ENDED_ERRORS, PermissionError):
                process = read_process(folder, read_process_stat(folder, 7))
                assert process is None or (process.name + process.command).isprintable()
            callers._known.clear()
            callers.lookup([7])
            descriptor_limit(7, folder)
            link = proc / "fd" / "5"
            link.unlink(missing_ok=True)
            with suppress(OSError, ValueError):  # an invalid name or target of the link
                link.symlink_to(os.fsdecode(data[:100]))
            table = Descriptors(str(proc / "fd"))
            for _ in table.scan(np.empty(0, np.uint32), thorough=True):
                pass
            for _ in table.scan_registered():
                pass

        while True:
            yield mutator.text(), run


def services(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """A file like /etc/services."""
    seed = b"http\t80/tcp\twww # World Wide Web\ndomain 53/udp\nssh 22/tcp\n#x 1/tcp\nhttps 443/tcp\n"
    mutator = Mutator(rng, [seed, seed * 20], [b"/tcp", b"/udp", b"#", b"\n", b"80/tcp"])
    with _folder() as folder:
        file = Path(folder, "services")

        def run(data: bytes) -> None:
            file.write_bytes(data)
            with patch.object(addresses, "_SERVICES", file):
                names, _ = addresses._services.__wrapped__()
            assert all(name.isprintable() and 0 <= port <= 0xFFFF for port, name in names.items())

        while True:
            yield mutator.text(), run


def configuration(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """A file of settings, and variables of the environment."""
    seed = b"""interval = 1.0\nbudget = 0.25\ntheme = "textual-light"\nsource = "auto"\nexact = false\nmemory = 64
trace = true\n[thresholds]\nsyn_queue_share = 0.8\naccept_stalled_s = 30\n"""
    words = [
        b"interval",
        b"[thresholds]\n",
        b"{}",
        b"[",
        b"[[",
        b"]",
        b"=",
        b"\n",
        b"2026-01-01",
        b"0x10",
        b"'''",
        b"inf",
        b"true",
    ]
    mutator = Mutator(rng, [seed, *seed.splitlines(keepends=True)], words)
    with _folder() as folder:
        file = Path(folder, "config.toml")

        def run(data: bytes) -> None:
            text = data.decode("utf-8", "surrogateescape").replace("\0", "")
            key = random.Random(len(data)).choice(list(settings.KEYS))
            for environ in ({"TCPWATCH_CONFIG": str(file)}, {f"TCPWATCH_{key.upper()}": text}):
                try:
                    with patch.object(settings, "_read", lambda *_: data):  # which starts a process
                        settings.load({}, {"HOME": folder, **environ})
                except settings.SettingsError as error:
                    assert str(error).isprintable()

        assert tomllib.loads(seed.decode())
        while True:
            yield mutator.text(2048), run


# What people type ---------------------------------------------------------------------------------


def filters(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Filters, applied to some rows."""
    from tests.model.query.test_filter import ROWS

    typed = [example.encode() for example in EXAMPLES.values()]
    typed += [b"state:time-wait port:443 -process:nginx 10.0.", b'"two words" !user:root,33', b"addr:2001:db8::/32 :80"]
    words = [f"{key}:".encode() for key in (*TERM_PARSERS, *ALIASES)] + [
        b"!",
        b"::",
        b"::ffff:",
        b"/32",
        b"/129",
        b"*",
        b",",
    ]
    mutator = Mutator(rng, typed, words)

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for parse in (Filter.parse, Filter.parse_partial):
            with suppress(ValueError):
                wanted = parse(text)
                assert wanted.mask(ROWS).shape == (len(ROWS),)

    while True:
        yield mutator.text(400), run


def names(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Names that a process or a user has chosen."""
    mutator = Mutator(rng, [b"nginx: worker process", "Ünïcödé 漢字".encode(), b"\x1b]0;title\x07", b"a\0b\nc"])

    def run(data: bytes) -> None:
        shown = printable(os.fsdecode(data))
        assert shown.isprintable() and len(shown.encode()) <= 4 * 4096
        assert printable(shown) == shown

    while True:
        yield mutator.text(), run


# All together -------------------------------------------------------------------------------------


def monitor(rng: random.Random) -> Iterator[tuple[bytes, Run]]:
    """Samples with such sockets and events, through the monitor and its rules into all headless output."""
    while True:
        world = SampleMaker(rng)
        reports = Reports(world)
        for _ in range(rng.randint(1, 30)):
            data = b"".join(random_message(rng, sequence=7) for _ in range(rng.choice((0, 1, 20, 200))))
            yield data, reports.step


@dataclass(frozen=True, slots=True)
class Listed:
    """A target and its share of the bytes of a run."""

    make: Target
    share: float


TARGETS: dict[str, Listed] = {
    "dumps": Listed(dumps, 0.2),
    "listener_dumps": Listed(listener_dumps, 0.15),
    "tcp_infos": Listed(tcp_infos, 0.03),
    "destroy_events": Listed(destroy_events, 0.15),
    "trace_pages": Listed(trace_pages, 0.225),
    "trace_formats": Listed(trace_formats, 0.05),
    "proc_net": Listed(proc_net, 0.06),
    "sysctls": Listed(sysctls, 0.01),
    "processes": Listed(processes, 0.03),
    "services": Listed(services, 0.03),
    "configuration": Listed(configuration, 0.02),
    "filters": Listed(filters, 0.005),
    "names": Listed(names, 0.03),
    "monitor": Listed(monitor, 0.01),
}
