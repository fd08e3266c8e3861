"""GLOSSARY: the terms on the teardown screen, for its help."""

from __future__ import annotations

GLOSSARY = (
    ("client side", "TIME_WAIT sockets of connections that this host opened and closed first: each one keeps an "
     "ephemeral port to its destination for 60 s"),
    ("server side", "TIME_WAIT sockets on a listening port: they use memory, but no further port"),
    ("entered, left", "TIME_WAIT sockets that began (the kernel's counter TW) and ended, per second"),
    ("ends in", "number of TIME_WAIT sockets that end in each of the next 60 seconds, by their timers; the number on "
     "the right is that of the highest bar; the kernel ends them in batches some seconds late, and the first bar "
     "includes those that are due"),
    ("usable", "ports of ip_local_port_range that are not reserved and not held by bind() or listen(); each "
     "destination can use all of them"),
    ("used", "share of the usable ports taken by connections from one local address to one remote address and port; "
     "yellow from the warning level of the rule port-exhaustion, red if no port is left"),
    ("reusable", "ports of TIME_WAIT sockets that tcp_tw_reuse makes available to connect(); not counted as used"),
    ("next free", "time until the first of its TIME_WAIT sockets ends; due: it has expired, and the kernel removes it "
     "soon"),
    ("runs out", "time until no port is left, at the rate of the last minute; –: the number is not growing"),
    ("bind()", "before connect(): a program selects its ports with bind(), so that each port serves only one "
     "destination; IP_BIND_ADDRESS_NO_PORT avoids this"),
    ("EOF seen", "CLOSE_WAIT: the program has read the end of the stream and has not called close(): a leak, "
     "or it still sends"),
    ("EOF pending", "CLOSE_WAIT: the program has not read the end of the stream: it is stuck or busy"),
    ("data pending", "CLOSE_WAIT: the program has not read the data before the end of the stream either"),
    ("fd limit", "CLOSE_WAIT sockets of a process as a share of its limit of open descriptors (RLIMIT_NOFILE); of "
     "several processes the largest share"),
    ("▲", "after a program: its number of CLOSE_WAIT sockets grew in each of the last five minutes"),
    ("FIN_WAIT_2", "with process: the process has shut down its side and still holds the socket; there is no timeout"),
    ("no process", "the program has closed the socket and the kernel finishes the teardown; FIN_WAIT_2 without a "
     "process ends after tcp_fin_timeout"),
    ("orphans/limit", "sockets without a process as counted by the kernel, and their limit tcp_max_orphans"),
    ("↑ ↓", "more rows above or below: move the cursor to scroll the table"),
)  # fmt: skip
"""(term, meaning)."""
