"""Counters, sysctls, processes and descriptors, read from /proc."""
