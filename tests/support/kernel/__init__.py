"""Byte-exact fakes of the kernel, and what ss prints, for tests."""
