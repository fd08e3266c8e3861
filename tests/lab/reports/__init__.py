"""Situations from public bug reports, made small on the real kernel."""
