"""What all tests share: the way into network namespaces, the lab's fixtures, one profile for Hypothesis."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import lab

_NEED_NO_KERNEL = tuple(Path(__file__).parent / name for name in ("report", "screens"))

# The machine may be a slow one with other work: only what is computed counts, not how long it took. Without a
# database and without chance a run is the same everywhere, and leaves nothing in the tree.
settings.register_profile(
    "tcpwatch",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tcpwatch")


def pytest_configure(config: pytest.Config) -> None:
    """Move an ordinary user's process into a user namespace, before a test module imports numpy.

    numpy starts threads on import, and a process with threads cannot move. The tests that draw and write need no
    kernel; a run of theirs alone stays where it is. If it cannot be done, `lab.require` says so in each test.
    """
    paths = [Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.args]
    if not all(any(path.is_relative_to(folder) for folder in _NEED_NO_KERNEL) for path in paths):
        lab.enter_user_namespace()


def pytest_collection_finish() -> None:
    """Leave modules out of garbage collection: a walk over all of Textual's and numpy's objects takes 50 ms."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def namespace() -> Iterator[lab.Namespace]:
    """A network namespace in which the module's tests live."""
    lab.require(lab.namespaces, lab.ipv6, lab.program("ss"), lab.program("ip"))
    with lab.Namespace() as it:
        yield it


@pytest.fixture(scope="module")
def peer(namespace: lab.Namespace) -> Iterator[lab.Peer]:
    """The scripted hosts at the other end of that namespace."""
    lab.require(lab.tun)
    with lab.Peer(namespace) as it:
        yield it
