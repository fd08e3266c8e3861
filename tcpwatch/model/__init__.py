"""What the facts mean: pure functions and frozen dataclasses over numpy tables."""
