"""Polls made from samples, without a source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tcpwatch.model.poll import Poll, SampleJoiner
from tcpwatch.model.sockets.rows import Rows
from tcpwatch.sample import Sample


def polls(*samples: Sample) -> list[Poll]:
    """Each sample joined with the one before it."""
    joiner = SampleJoiner()
    return [joiner.step(sample) for sample in samples]


def first_poll(sample: Sample, rows: Rows | None = None, /, **overrides: Any) -> Poll:
    """The poll of a first sample; `rows` replaces its rows, with what they remember of earlier samples."""
    (poll,) = polls(sample)
    join = poll.join if rows is None else replace(poll.join, rows=rows)
    return replace(poll, **{"join": join, **overrides})
