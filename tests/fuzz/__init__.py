"""Mutated input for everything that decodes what others wrote: `python -m tests.fuzz`."""
