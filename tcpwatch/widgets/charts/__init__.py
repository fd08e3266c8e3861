"""Bars, areas and meters."""
