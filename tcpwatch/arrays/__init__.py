"""Numpy helpers that know nothing of TCP."""
