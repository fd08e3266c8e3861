"""The screen of one connection."""
