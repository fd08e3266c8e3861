"""Analyses of all sockets: teardown, ephemeral ports, stalled paths, port scans."""
