"""Connections from their first to their last state: transitions, endings, closed connections."""
