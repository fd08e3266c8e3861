"""Widgets of our own that draw what the model knows."""
