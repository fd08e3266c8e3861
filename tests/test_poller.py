"""The poll thread, with a monitor whose steps the test controls; nothing here sleeps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from tcpwatch.app import FAILED, TcpwatchApp, _run
from tcpwatch.model.listeners.listener_keys import ListenerKey
from tcpwatch.model.view import Pace, View
from tcpwatch.poller import Outcome, Poller, StepCrashed, StepUnavailable
from tcpwatch.sources.base import SourceError
from tests.support.driving import driven, until
from tests.support.shots import SMALL, make_app, shot
from tests.support.views import make_view

PATIENCE_S = 20


class FakeMonitor:
    """Each step waits for an outcome from `outcomes`: a View to return or an exception to raise."""

    def __init__(self) -> None:
        self.interval_s = 1.0
        self.watched: frozenset[int] = frozenset()
        self.watched_queue: ListenerKey | None = None
        self.outcomes: queue.Queue[View | Exception | None] = queue.Queue()
        self.began: queue.Queue[None] = queue.Queue()
        self.closed = False

    def step(self) -> View:
        self.began.put(None)
        outcome = self.outcomes.get(timeout=PATIENCE_S)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome or make_view()

    def close(self) -> None:
        self.closed = True

    def wait_for_step(self) -> None:
        """Until the next step begins."""
        self.began.get(timeout=PATIENCE_S)


@pytest.fixture
def monitor() -> Iterator[FakeMonitor]:
    fake = FakeMonitor()
    yield fake
    for _ in range(5):
        fake.outcomes.put(None)


@pytest.fixture
def poller(monitor: FakeMonitor) -> Iterator[Poller]:
    made = Poller(monitor)
    yield made
    made._stopping = True
    made.ask()


def _attached(poller: Poller) -> queue.Queue[Outcome]:
    got: queue.Queue[Outcome] = queue.Queue()
    poller.attach(got.put)
    return got


def test_the_first_step_begins_before_anybody_is_attached(monitor: FakeMonitor, poller: Poller) -> None:
    view = make_view()
    poller.start()
    monitor.wait_for_step()
    monitor.outcomes.put(view)
    assert _attached(poller).get(timeout=PATIENCE_S) is view


def test_a_step_for_each_request(monitor: FakeMonitor, poller: Poller) -> None:
    got = _attached(poller)
    poller.start()
    for view in (make_view(step=1), make_view(step=2), make_view(step=3)):
        monitor.outcomes.put(view)
        assert got.get(timeout=PATIENCE_S) is view
        assert monitor.began.get(timeout=PATIENCE_S) is None
        assert monitor.began.empty()
        poller.ask()


def test_requests_during_a_step_collapse_into_one(monitor: FakeMonitor, poller: Poller) -> None:
    got = _attached(poller)
    poller.start()
    monitor.wait_for_step()
    for _ in range(100):
        poller.ask()
    monitor.outcomes.put(None)
    monitor.wait_for_step()
    monitor.outcomes.put(None)
    got.get(timeout=PATIENCE_S)
    got.get(timeout=PATIENCE_S)
    assert monitor.began.empty()
    assert not poller._requested.is_set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceError("the kernel has no tcp_diag"), "the kernel has no tcp_diag"),
        (PermissionError(13, "Permission denied", "/proc/net/snmp"), "/proc/net/snmp: Permission denied"),
        (OSError(105, "No buffer space available"), "No buffer space available"),
        (OSError("odd"), "odd"),
    ],
)
def test_what_cannot_be_read_now_is_tried_again(
    monitor: FakeMonitor, poller: Poller, error: Exception, reason: str
) -> None:
    got, view = _attached(poller), make_view()
    poller.start()
    monitor.outcomes.put(error)
    assert got.get(timeout=PATIENCE_S) == StepUnavailable(reason)
    poller.ask()
    monitor.outcomes.put(view)
    assert got.get(timeout=PATIENCE_S) is view


def test_a_bug_is_reported_and_the_next_step_is_taken(monitor: FakeMonitor, poller: Poller) -> None:
    got, error, view = _attached(poller), ZeroDivisionError("oh"), make_view()
    poller.start()
    monitor.outcomes.put(error)
    outcome = got.get(timeout=PATIENCE_S)
    assert isinstance(outcome, StepCrashed)
    assert outcome.error is error
    monitor.outcomes.put(view)
    poller.ask()
    assert got.get(timeout=PATIENCE_S) is view


def test_stop_ends_the_thread_and_closes_the_monitor(monitor: FakeMonitor, poller: Poller) -> None:
    got = _attached(poller)
    poller.start()
    monitor.outcomes.put(None)
    got.get(timeout=PATIENCE_S)
    assert poller.stop(PATIENCE_S)
    assert monitor.closed


def test_stop_does_not_wait_for_a_long_step_nor_close_under_it(monitor: FakeMonitor, poller: Poller) -> None:
    poller.start()
    monitor.wait_for_step()
    assert not poller.stop(0.0)
    assert not monitor.closed
    assert poller._thread.daemon


def test_a_poller_that_never_started_can_be_stopped(monitor: FakeMonitor, poller: Poller) -> None:
    assert poller.stop()
    assert monitor.closed


# In the app


async def test_the_app_shows_what_the_thread_delivers(monitor: FakeMonitor, poller: Poller) -> None:
    view = make_view()
    monitor.outcomes.put(view)
    poller.start()
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        await until(pilot, lambda: app.view is view)
        assert "LIVE" in shot(app)


async def test_trouble_is_one_line_and_goes_when_it_is_over(monitor: FakeMonitor, poller: Poller) -> None:
    poller.start()
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        monitor.outcomes.put(SourceError("no answer from the kernel"))
        await until(pilot, lambda: bool(app.poll_error))
        assert "cannot read: no answer from the kernel" in shot(app)
        monitor.outcomes.put(None)
        poller.ask()
        await until(pilot, lambda: app.view is not None)
        assert "cannot read" not in shot(app)


async def test_a_bug_in_a_later_poll_is_shown_and_recorded(monitor: FakeMonitor, poller: Poller) -> None:
    monitor.outcomes.put(None)
    poller.start()
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        await until(pilot, lambda: app.view is not None)
        monitor.outcomes.put(KeyError("what"))
        poller.ask()
        await until(pilot, lambda: bool(app.poll_error))
        assert "cannot read: internal error: KeyError: 'what'" in shot(app)
        monitor.outcomes.put(None)
        poller.ask()
        await until(pilot, lambda: not app.poll_error)
        await pilot.press("2")
        assert [str(failure) for failure in app.failures] == ["'what'"]
        assert app.failure is None


async def test_a_bug_in_the_first_poll_ends_the_app_with_code_2(monitor: FakeMonitor, poller: Poller) -> None:
    error = KeyError("what")
    monitor.outcomes.put(error)
    poller.start()
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        await until(pilot, lambda: app.failure is not None)
    assert app.failure is error
    assert app.return_code == FAILED


async def test_the_timer_keeps_to_the_pace_that_the_budget_allows(monitor: FakeMonitor, poller: Poller) -> None:
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        assert app._timer_s == 1.0
        app.show(make_view(pace=Pace(0.6, 0.525, 1.0, 2.1)))
        await pilot.pause()
        assert app._timer_s == 2.1
        assert "slowed to 2.1 s" in shot(app)
        app.show(make_view(step=2))
        assert app._timer_s == 1.0


async def test_another_interval_is_set_in_the_monitor(monitor: FakeMonitor, poller: Poller) -> None:
    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        await pilot.press("plus")
        assert (monitor.interval_s, app._timer_s) == (2.0, 2.0)
        await pilot.press("minus", "minus")
        assert (monitor.interval_s, app._timer_s) == (0.5, 0.5)


async def test_a_flow_on_screen_is_watched_and_asked_for_at_once(monitor: FakeMonitor, poller: Poller) -> None:
    from tcpwatch.screens.flow.page import FlowScreen

    app = make_app(monitor=monitor, poller=poller)
    async with driven(app, SMALL) as pilot:
        app.push_screen(FlowScreen(7))
        await pilot.pause()
        assert monitor.watched == frozenset([7])
        assert poller._requested.is_set()
        await pilot.press("escape")
        assert monitor.watched == frozenset()


def test_the_app_starts_no_thread_of_its_own() -> None:
    before = threading.active_count()
    TcpwatchApp()
    assert threading.active_count() == before


def test_a_bug_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TCPWATCH_DEBUG", raising=False)
    app = TcpwatchApp()
    app.failure = KeyError("what\x1b[2J")
    app.failures.append(app.failure)
    monkeypatch.setattr(app, "run", lambda: None)
    monkeypatch.setattr(app, "_return_code", FAILED)
    assert _run(app) == FAILED
    line = capsys.readouterr().err
    assert line.startswith("tcpwatch: internal error: KeyError")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    monkeypatch.setenv("TCPWATCH_DEBUG", "1")
    _run(app)
    assert "what" in capsys.readouterr().err.splitlines()[0]
