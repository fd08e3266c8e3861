"""The Timelines screen."""
