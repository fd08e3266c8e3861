"""Headless front ends over a View."""
