"""The meaning of samples: pure functions and frozen dataclasses over numpy tables."""
