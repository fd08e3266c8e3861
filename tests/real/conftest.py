"""Tests in this folder need a kernel: they have the marker `real`, and share a network namespace for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lab


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test of this folder, so that `pytest -m "not real"` is the quick run."""
    item.add_marker("real")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of the program, without settings and with an empty home."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL")}
    return {**kept, "HOME": str(tmp_path)}


@pytest.fixture(scope="module")
def namespace() -> Iterator[lab.Namespace]:
    """A network namespace for the tests of a module."""
    lab.require(lab.namespaces, lab.ipv6, lab.program("ss"), lab.program("ip"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture(scope="module")
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    """The scripted hosts at the other end of that namespace."""
    lab.require(lab.tun)
    with lab.Peer(namespace) as it:
        yield it
