"""Numbers, durations, sizes and addresses as text for people."""
