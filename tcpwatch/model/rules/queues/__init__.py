"""Rules about the queues of listeners."""
