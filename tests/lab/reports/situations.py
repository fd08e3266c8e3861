"""The situations: where each was reported, how it is made, and what is right.

Thresholds are smaller than in production, so that a test need not wait for minutes: ages of 0.5 s.
"""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.reports.stage import LOOPBACK, Stage
from tests.lab.wire.peer import REMOTE

_BIND_ADDRESS_NO_PORT = (socket.IPPROTO_IP, 24, 1)  # linux/in.h
_DEFER_ACCEPT_60_S = (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
_REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
_PORTS = "net.ipv4.ip_local_port_range"

_ACCEPT_ALL = """
kept = []
print(flush=True)
while True: kept.append(sockets[0].accept())
"""


@dataclass(frozen=True, slots=True)
class Situation:
    """One public report."""

    source: str
    """Where it was reported."""
    make: Callable[[Stage], object]
    expect: tuple[str, ...] = ()
    """`RULE SEVERITY`, one for each finding; none is as much a claim as some."""
    says: tuple[str, ...] = ()
    """Regular expressions that the findings match."""
    never: tuple[str, ...] = ()
    """Regular expressions that they do not match."""
    thresholds: dict[str, float] = field(default_factory=dict)
    steps: int = 6
    """Polls in which nothing else may be found, beside what is expected."""


# Accept queues ------------------------------------------------------------------------------------


def proxy_accepts_nothing(stage: Stage) -> None:
    """Connections with 206 unread bytes in CLOSE_WAIT without a process: nobody called accept()."""
    stage.listen(4143)
    for _ in range(12):
        client = stage.connect(4143)
        client.send(bytes(206))
        client.close()


def no_descriptors_left(stage: Stage) -> None:
    """accept() fails with EMFILE: the application calls it, and the queue stays full."""
    listener = stage.listen(8000, 4)
    script = """
import errno
files = []
try:
    while True: files.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
print(flush=True)
while True:
    try: sockets[0].accept()
    except OSError as error: assert error.errno == errno.EMFILE
    time.sleep(0.01)
"""
    stage.process(script, listener, descriptors=32)
    listener.close()
    for _ in range(12):
        stage.begin(8000)


def one_worker_of_two_stopped(stage: Stage) -> None:
    """Two processes listen on one port; one of them is stopped, and its queue alone is full."""
    members = [stage.listen(7443, 4, _REUSEPORT) for _ in range(2)]
    stage.process(_ACCEPT_ALL, members[0])
    stage.process(_ACCEPT_ALL, members[1]).send_signal(signal.SIGSTOP)
    for member in members:
        member.close()
    for _ in range(60):
        stage.begin(7443)


def socket_activation(stage: Stage) -> None:
    """One process holds the listening socket for another, which accepts the connections, and then is stuck."""
    listener = stage.listen(2200, 4)
    script = """
kept = [sockets[0].accept() for _ in range(3)]
time.sleep(3600)
"""
    stage.process("print(flush=True)\n" + script, listener)
    for _ in range(20):
        stage.begin(2200)


def nobody_serves_an_activated_socket(stage: Stage) -> None:
    """A service manager holds the sockets of a service that does not start."""
    listener = stage.listen(8081)
    stage.process("print(flush=True)\ntime.sleep(3600)", listener)
    listener.close()
    for _ in range(5):
        stage.begin(8081)


def backlog_full_seen_by_a_client_of_the_same_host(stage: Stage) -> None:
    """Clients of the same host retry their SYNs because the server's queue is full: the network is well."""
    stage.listen(8001, 2)
    for _ in range(20):
        stage.begin(8001)


def probes(stage: Stage) -> None:
    """A health check connects to five services and closes at once, twenty times a second; they accept."""
    for port in range(9001, 9006):
        stage.process(
            "print(flush=True)\nwhile True: sockets[0].accept()[0].close()",
            stage.listen(port),
        )
    stage.process("""
print(flush=True)
while True:
    for port in range(9001, 9006): socket.create_connection(("127.0.0.1", port)).close()
    time.sleep(0.05)
""")


def clients_that_do_not_speak(stage: Stage) -> None:
    """With TCP_DEFER_ACCEPT clients without data stay in SYN_RCVD, and are well."""
    stage.listen(8443, 128, _DEFER_ACCEPT_60_S)
    for _ in range(20):
        stage.connect(8443)


# Closing ------------------------------------------------------------------------------------------


def proxy_half_closes(stage: Stage) -> None:
    """A proxy sends FIN, and waits for the FIN of clients that never close."""
    listener = stage.listen(8082)
    for _ in range(25):
        stage.pair(listener)[1].shutdown(socket.SHUT_WR)


def pool_with_few_expired_connections(stage: Stage) -> None:
    """A pool closes connections, which the server has closed, when it uses them again."""
    listener = stage.listen(8083)
    for _ in range(10):
        stage.pair(listener)[1].close()


def clients_leak(stage: Stage) -> None:
    """A proxy does not close its connections to backends that have closed."""
    listeners = [stage.listen(port) for port in (8084, 8085)]
    script = """
kept = [socket.create_connection(("127.0.0.1", 8084 + at % 2)) for at in range(30)]
for each in kept: each.recv(1)
print(flush=True)
time.sleep(3600)
"""
    stage.process("""
for each in sockets:
    each.settimeout(0.1)
print(flush=True)
while True:
    for each in sockets:
        try: each.accept()[0].close()
        except OSError: pass
""", *listeners)  # fmt: skip
    for listener in listeners:
        listener.close()
    stage.process(script)


def request_and_fin_unread(stage: Stage) -> None:
    """A proxy reads no more: data and FIN of its clients are unread."""
    listener = stage.listen(8086)
    for _ in range(25):
        client, _server = stage.pair(listener)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.close()


def fin_unread(stage: Stage) -> None:
    """A proxy waits for its backend, and does not see that the clients have closed."""
    listener = stage.listen(8087)
    for _ in range(25):
        client, server = stage.pair(listener)
        client.send(b"POST")
        server.recv(4)
        client.close()


def orphans_in_fin_wait_2(stage: Stage) -> None:
    """A proxy closes, its clients do not: the kernel forgets these sockets after 60 s."""
    listener = stage.listen(8888)
    for _ in range(30):
        stage.pair(listener)[1].close()


def server_closes_first(stage: Stage) -> None:
    """A server closes first, so that TIME_WAIT is on its side: no client lacks a port."""
    stage.namespace.sysctl(_PORTS, "40000 40399")
    listener = stage.listen(6379)
    for _ in range(300):
        client, server = stage.pair(listener)
        server.close()
        client.close()


def idle_pool(stage: Stage) -> None:
    """A pool keeps a hundred idle connections."""
    listener = stage.listen(5432)
    for _ in range(100):
        stage.pair(listener)


# Ports --------------------------------------------------------------------------------------------


def bind_before_connect(stage: Stage) -> None:
    """bind() takes a port from all destinations at once."""
    stage.namespace.sysctl(_PORTS, "40000 40099")
    for port in range(9100, 9110):
        stage.listen(port)
    for at in range(100):
        stage.connect(9100 + at % 10, LOOPBACK)


def bind_address_without_port(stage: Stage) -> None:
    """With IP_BIND_ADDRESS_NO_PORT each destination has the whole range: 40 of 100 ports toward each of three."""
    stage.namespace.sysctl(_PORTS, "40000 40099")
    for port in (9200, 9201, 9202):
        stage.listen(port, 512)
        for _ in range(40):
            stage.connect(port, LOOPBACK, _BIND_ADDRESS_NO_PORT)


def several_source_addresses(stage: Stage) -> None:
    """Each local address has the whole range toward a destination: 40 of 100 ports from each of three."""
    stage.namespace.sysctl(_PORTS, "40000 40099")
    stage.listen(1883, 512)
    for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
        for _ in range(40):
            stage.connect(1883, source, _BIND_ADDRESS_NO_PORT)


def short_connections_without_reuse(stage: Stage) -> None:
    """The client closes first, and its TIME_WAITs hold all ports toward the server."""
    stage.namespace.sysctl(_PORTS, "40000 40099")
    stage.namespace.sysctl("net.ipv4.tcp_tw_reuse", 0)
    listener = stage.listen(11101)
    for _ in range(100):
        client, server = stage.pair(listener)
        client.close()
        server.close()


# Data ---------------------------------------------------------------------------------------------


def consumer_does_not_read(stage: Stage) -> None:
    """A consumer stops reading while its queue is full, and its producer is blocked."""
    listener = stage.listen(5044)
    consumer = """
kept = [sockets[0].accept() for _ in range(3)]
time.sleep(3600)
"""
    stage.process("print(flush=True)\n" + consumer, listener)
    listener.close()
    for _ in range(3):
        producer = stage.connect(5044)
        producer.setblocking(False)
        producer.send(bytes(9_000_000))


def node_lost(stage: Stage) -> None:
    """A node dies without a word under connections that send."""
    peer = stage.peer()
    peer.listen(4222)
    for _ in range(5):
        client = stage.connect(4222, host=REMOTE[4])
        client.send(b"PING\r\n")
        peer.connection_of(client).acknowledge(False)
        client.send(b"PING\r\n")


def connections_outlive_their_listener(stage: Stage) -> None:
    """A reload: the old process has closed its listening socket and keeps its connections; a new one listens."""
    old = stage.listen(8088, 128, _REUSEPORT)
    for _ in range(5):
        stage.pair(old)
    stage.listen(8088, 128, _REUSEPORT)
    old.close()


_REPORTED = "https://github.com/"

SITUATIONS = (
    Situation(
        _REPORTED + "linkerd/linkerd2/issues/2294",
        proxy_accepts_nothing,
        ("accept-stalled warning",),
        says=("12 clients gave up",),
        never=("close-wait", "leak"),
        thresholds={"accept_stalled_s": 0.5},
    ),
    Situation(
        _REPORTED + "sustrik/libmill/issues/182",
        no_descriptors_left,
        ("accept-queue-full critical",),
        never=("stopped calling", "never call", "no accept\\(\\)"),
    ),
    Situation(_REPORTED + "varnish/hitch/issues/142", one_worker_of_two_stopped, ("accept-queue-full critical",)),
    Situation(
        _REPORTED + "pranshuparmar/witr/issues/60",
        socket_activation,
        ("accept-queue-full critical",),
        says=("; connections held by",),
    ),
    Situation(
        _REPORTED + "systemd/systemd/issues/19843",
        nobody_serves_an_activated_socket,
        ("accept-stalled warning",),
        thresholds={"accept_stalled_s": 0.5},
    ),
    Situation(
        _REPORTED + "getlogbook/logbook/pull/636",
        backlog_full_seen_by_a_client_of_the_same_host,
        ("accept-queue-full critical",),
        never=("firewall", "host is down"),
        steps=15,  # until the SYNs have been retried twice
    ),
    Situation(_REPORTED + "envoyproxy/envoy/issues/9020", probes, thresholds={"accept_stalled_s": 0.5}),
    Situation(_REPORTED + "ircd-hybrid/ircd-hybrid/issues/4", clients_that_do_not_speak),
    Situation(
        _REPORTED + "envoyproxy/envoy/issues/41086",
        proxy_half_closes,
        ("half-closed warning",),
        thresholds={"half_closed_age_s": 0.5},
    ),
    Situation(
        _REPORTED + "zowe/api-layer/issues/2738",
        pool_with_few_expired_connections,
        thresholds={"close_wait_age_s": 0.5},
    ),
    Situation(
        _REPORTED + "kubernetes/kubernetes/issues/18270",
        clients_leak,
        ("close-wait-leak warning",),
        says=("30 CLOSE_WAIT", "has not closed"),
        thresholds={"close_wait_age_s": 0.5},
    ),
    Situation(
        _REPORTED + "istio/istio/issues/31229",
        request_and_fin_unread,
        ("close-wait-leak warning",),
        says=("data pending|data unread|not read",),
        never=("has not closed", "not called close"),
        thresholds={"close_wait_age_s": 0.5},
    ),
    Situation(
        _REPORTED + "haproxy/haproxy/issues/1362",
        fin_unread,
        ("close-wait-leak warning",),
        says=("EOF pending|not read",),
        never=("has not closed", "not called close"),
        thresholds={"close_wait_age_s": 0.5},
    ),
    Situation(_REPORTED + "tinyproxy/tinyproxy/pull/600", orphans_in_fin_wait_2),
    Situation(_REPORTED + "redis/jedis/issues/450", server_closes_first),
    Situation(_REPORTED + "hackoregon/civic-devops/issues/177", idle_pool),
    Situation(_REPORTED + "envoyproxy/envoy/issues/44747", bind_before_connect, ("port-exhaustion critical",)),
    Situation(_REPORTED + "envoyproxy/envoy/pull/38288", bind_address_without_port),
    Situation(_REPORTED + "emqx/emqtt-bench/issues/221", several_source_addresses),
    Situation(
        _REPORTED + "casper-network/casper-node/issues/3252",
        short_connections_without_reuse,
        ("port-exhaustion critical",),
    ),
    Situation(
        _REPORTED + "logstash-plugins/logstash-input-tcp/pull/211",
        consumer_does_not_read,
        ("zero-window warning",),
        says=("3 connections",),
        thresholds={"zero_window_age_s": 0.5},
    ),
    Situation(
        _REPORTED + "linkerd/linkerd2/issues/13023",
        node_lost,
        ("peer-silent warning",),
        says=("198.18.0.2",),
        thresholds={"silent_peer_s": 1.0},
    ),
    Situation(_REPORTED + "haproxy/haproxy/issues/228", connections_outlive_their_listener),
)
