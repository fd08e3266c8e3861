"""tcpwatch: a live monitor of every TCP connection of a Linux host."""

__version__ = "0.1.0"
