"""Widgets that know nothing of TCP: lines, tables, charts, sections, and the lines of the frame."""
