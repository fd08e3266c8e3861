"""Kernel interfaces: one module for each, with the kernel's names."""
