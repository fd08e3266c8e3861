"""Connections from the first to the last state, on every path through the states."""
