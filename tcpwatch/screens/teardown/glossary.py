"""What the words on the teardown screen mean, for its help."""

from __future__ import annotations

GLOSSARY = (
    ("client's side", "TIME_WAITs of connections that we opened and closed first: each keeps an ephemeral port toward "
     "its destination for 60 s"),
    ("server's side", "TIME_WAITs at a port that is listened on: they cost memory, no port"),
    ("entered, left", "TIME_WAITs that began (the kernel's counter TW), and ended, per second"),
    ("ends in", "how many TIME_WAITs end in each of the next 60 seconds, by their timers; the figure beside it is the "
     "highest bar's; the kernel ends them in lumps some seconds late, and the first bar has those that are due"),
    ("usable", "ports of ip_local_port_range that are not reserved, and that no bind() or listen() holds; there are so "
     "many toward each destination"),
    ("used", "share of them that are taken toward one remote address and port from one local address; amber from "
     "where port-exhaustion warns, red where none is left"),
    ("reuse", "ports of TIME_WAITs that tcp_tw_reuse lets connect() have again: they do not count as used"),
    ("free in", "when the first of its TIME_WAITs ends; due: its time is over, and the kernel will come round to it"),
    ("gone in", "when no port is left, at the rate of the last minute; –: their number does not grow"),
    ("bind()", "before connect(): a program chooses its ports by bind(), so that each serves one destination only; "
     "IP_BIND_ADDRESS_NO_PORT prevents that"),
    ("EOF read", "CLOSE_WAIT: the program knows that the peer has closed, and never closes itself: a leak"),
    ("EOF unread", "CLOSE_WAIT: it has not read the peer's end: it is stuck, or waits for something else"),
    ("data unread", "CLOSE_WAIT: it has not read the data before that either"),
    ("of fds", "the process's CLOSE_WAITs, of the descriptors that it may have open (RLIMIT_NOFILE)"),
    ("▲", "behind a process: its CLOSE_WAITs became more in each of the last five minutes"),
    ("FIN_WAIT_2 held", "a process has shut its side down and keeps the socket: it may last for ever"),
    ("without owner", "the program has closed, and the kernel goes on alone; FIN_WAIT_2 without an owner ends after "
     "tcp_fin_timeout"),
    ("orphans/limit", "sockets without an owner that the kernel counts, of tcp_max_orphans"),
    ("↑ ↓", "more rows above or below: the cursor moves the table"),
)  # fmt: skip
"""(word, meaning)."""
