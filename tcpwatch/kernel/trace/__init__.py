"""Tracepoints, read through a tracefs instance of our own."""
