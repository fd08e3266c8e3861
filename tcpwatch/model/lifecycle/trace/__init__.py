"""Trace events of connections: which connection each belongs to."""
