"""Versions in the release of a kernel."""

from __future__ import annotations

import pytest

from tcpwatch.kernel.release import is_since


@pytest.mark.parametrize(
    ("release", "since"),
    [
        ("6.8.0-31-generic", True),
        ("6.18.44", True),
        ("7.0-rc1", True),
        ("6.7.12", False),
        ("5.15.0", False),
        ("?", True),
    ],
)
def test_releases(release: str, since: bool) -> None:
    assert is_since((6, 8), release) == since
