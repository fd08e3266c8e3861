"""Measurements of tcpwatch against other tools and against the kernel's own part; see README.md."""
