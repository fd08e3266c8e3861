"""Settings for all tests: the way into network namespaces, one profile for Hypothesis, garbage collection."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import lab

_REAL = Path(__file__).parent / "real"

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
    """Move an ordinary user's process into a user namespace, if the run may include tests of tests/real.

    It has to be done before a test module imports numpy: that starts threads, and a process with threads cannot move.
    If it cannot be done, `lab.require` says so in each test.
    """
    paths = [Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.args]
    if _is_quick(config) or not any(_REAL.is_relative_to(path) or path.is_relative_to(_REAL) for path in paths):
        return
    lab.enter_user_namespace()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use all processors for the quick run; tests of tests/real load the machine themselves, and run one by one."""
    return len(os.sched_getaffinity(0)) if _is_quick(config) else 0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import none of tests/real where all of it would be deselected."""
    return True if collection_path == _REAL and _is_quick(config) else None


def _is_quick(config: pytest.Config) -> bool:
    return str(config.option.markexpr) == "not real"


def pytest_collection_finish() -> None:
    """Collect garbage rarely, and leave modules out of it: a walk over all of Textual and numpy takes 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hold what the rules say in this test against the list of their sentences."""
    from tests.sentences.recorder import recorded  # later than pytest_configure, as it imports numpy

    with recorded(item.nodeid.removeprefix("tests/")):
        return (yield)
