"""Endpoints as text and as filter terms."""

from __future__ import annotations

import pytest

from tcpwatch.model.sockets.endpoint import Endpoint


@pytest.mark.parametrize(
    ("endpoint", "text", "remote_filter"),
    [
        (Endpoint("192.0.2.1", 443), "192.0.2.1:443", "raddr:192.0.2.1 rport:443"),
        (Endpoint("2001:db8::1", 443), "[2001:db8::1]:443", "raddr:2001:db8::1 rport:443"),
        (Endpoint("2001:db8::1"), "2001:db8::1", "raddr:2001:db8::1"),
    ],
)
def test_text_and_filter(endpoint: Endpoint, text: str, remote_filter: str) -> None:
    assert (str(endpoint), endpoint.remote_filter) == (text, remote_filter)
