"""Explain half-open connections, in agreement with the rules."""
