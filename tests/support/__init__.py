"""Shared by several tests: made-up samples and views, byte-exact fakes of the kernel."""
