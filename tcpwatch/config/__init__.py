"""Settings and thresholds."""
