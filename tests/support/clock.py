"""A live source whose samples are a fixed time apart, however long a test takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tcpwatch.sample import Sample
from tcpwatch.sources.live import LiveSource


class SteadySource(LiveSource):
    """The sockets are those of now; the times are `apart_s` later with each sample."""

    apart_s = 1.0
    _late_s = 0.0

    def sample(self, watched: Iterable[int] = ()) -> Sample:
        """Take a sample, and set its times."""
        sample = super().sample(watched)
        begin = self._begin = getattr(self, "_begin", None) or (sample.monotonic, sample.time)
        self._late_s += self.apart_s
        return replace(sample, monotonic=begin[0] + self._late_s, time=begin[1] + self._late_s)
