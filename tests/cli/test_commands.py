"""The command line with a fake monitor: output, exit codes, errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tcpwatch import __version__, app
from tcpwatch.cli import commands
from tcpwatch.config.settings import Settings
from tcpwatch.kernel.trace.trace_events import TRACE_EVENT, TraceEvents
from tcpwatch.model.finding import Figure, Finding, FindingSubject, Severity
from tcpwatch.model.lifecycle.trace.stats import TraceStats
from tcpwatch.model.rules.registry import all_rules
from tcpwatch.model.view import Pace, View
from tcpwatch.report import polling
from tcpwatch.sample import SourceInfo
from tcpwatch.sources.base import SourceError
from tests.report.views import small_host, two_views


class FakeMonitor:
    """A monitor that returns the given views, then the last one again."""

    def __init__(self, *views: View) -> None:
        self._views = list(views)

    def step(self) -> View:
        return self._views.pop(0) if len(self._views) > 1 else self._views[0]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the program in this process, with a fake monitor."""
    for name in [name for name in os.environ if name.startswith("TCPWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    fake_monitor(monkeypatch, small_host())
    return lambda *args, **extra: CliRunner().invoke(commands.root, args, **extra)


class FakeTime:
    """The module `time` for a command that polls: a pause takes no time."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


EXTRA: dict[str, bool] = {}
"""Further arguments of the last open_monitor call."""


def fake_monitor(monkeypatch: pytest.MonkeyPatch, *views: View) -> list[Settings]:
    seen: list[Settings] = []
    EXTRA.clear()

    @contextmanager
    def open_monitor(settings: Settings, watch_queues: bool = False, **extra: bool) -> Iterator[FakeMonitor]:
        seen.append(settings)
        EXTRA.update(extra)
        yield FakeMonitor(*views)

    monkeypatch.setattr(polling, "open_monitor", open_monitor)
    monkeypatch.setattr(polling, "time", FakeTime())
    return seen


def failure(result: Result) -> str:
    """Return the one line on stderr of a failed command."""
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("tcpwatch: ") and result.stderr.endswith("\n")
    assert result.stderr[:-1].isprintable()
    return result.stderr[10:-1]


def test_version_and_help(run: Callable[..., Result]) -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"tcpwatch {__version__}\n")
    for args in (["-h"], ["--help"], ["list", "-h"], ["summary", "--help"], ["events", "-h"]):
        result = run(*args)
        assert result.exit_code == 0 and result.stdout.startswith("Usage: ") and result.stderr == ""
    for command in ("list", "events"):
        assert "state:" in run(command, "--help").stdout, "the filter's terms"


def test_list(run: Callable[..., Result]) -> None:
    result = run("list")
    assert result.exit_code == 0 and result.stderr == ""
    assert len(result.stdout.splitlines()) == 8 and "\x1b" not in result.stdout
    assert len(run("list", "--json").stdout.splitlines()) == 7
    assert run("list", "--csv").stdout.startswith("state,local_address,")


def states(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["state"] for line in result.stdout.splitlines()]


def test_list_filters(run: Callable[..., Result]) -> None:
    assert states(run("list", "--json", "state:listen")) == ["LISTEN"]
    assert states(run("list", "state:estab", "--json", "process:nginx")) == ["ESTABLISHED"]
    assert states(run("list", "--json", "state:estab process:nginx")) == ["ESTABLISHED"]
    assert states(run("list", "--json", "no such text anywhere")) == []
    assert len(states(run("list", "--json", ""))) == 7


@pytest.mark.parametrize(
    "args", [["-state:estab"], ["-n", "-state:estab"], ["!state:estab"], ["--source", "auto", "-state:estab"]]
)
def test_list_negates(args: list[str], run: Callable[..., Result]) -> None:
    expected = ["LISTEN", "SYN_RCVD", "TIME_WAIT", "CLOSED"]
    assert states(run("list", "--json", *args)) == expected
    assert states(run("list", *args, "--json")) == expected, "flags may follow"
    assert states(run("list", "--json", "--", *args[-1:])) == expected


def test_list_colours(run: Callable[..., Result]) -> None:
    assert "\x1b[36mLISTEN" in run("list", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in run("list", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout
    assert "\x1b" not in run("list", "--json", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[36mLISTEN" in run("summary", env={"FORCE_COLOR": "1"}).stdout


def test_list_reports_what_is_missing(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_monitor(monkeypatch, small_host(complete=False))
    result = run("list", "--json")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 7
    assert result.stderr == "tcpwatch: incomplete: interrupted dump\n"


def test_exact(run: Callable[..., Result]) -> None:
    assert "0.0.0.0:80 " in run("list", "--exact").stdout
    assert "0.0.0.0:80 " in run("-n", "list").stdout
    assert "0.0.0.0:80 " in run("list", env={"TCPWATCH_EXACT": "1"}).stdout
    assert "*:" in run("list").stdout


def test_summary(run: Callable[..., Result]) -> None:
    facts = json.loads(run("summary", "--json").stdout)
    assert facts["sockets"] == 7 and facts["rates"] == {}
    assert "Sockets                  7\n" in run("summary").stdout


def test_summary_over_a_time(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = {"TW": 5, "CurrEstab": 1, "Gone": 1}, {"TW": 9, "CurrEstab": 5}
    fake_monitor(monkeypatch, _later(0, first), _later(1, {"TW": 6}), _later(4, last))
    result = run("summary", "--json", "--for", "0.25", "--interval", "0.1")
    facts = json.loads(result.stdout)
    assert facts["rates"] == {"TW": 1.0}, "from the first and the last sample, without gauges"
    assert facts["counters"] == {"TW": 9, "CurrEstab": 5}


def _later(seconds: float, counters: dict[str, int]) -> View:
    view = small_host()
    sample = replace(view.sample, monotonic=1000 + seconds, counters=counters)
    return replace(view, sample=sample, pace=Pace(0.0, 0.0, 0.1, 0.1))


def test_check(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_monitor(monkeypatch, whole(small_host()))
    assert (run("check", "--for", "0.1").exit_code, run("check", "--for", "0.1").output) == (0, "")
    finding = Finding(Severity.WARNING, FindingSubject("host", "web-1"), "9 SYNs/s", {}, "", (), rule="syn-flood")
    quick = replace(whole(small_host()), pace=Pace(0.0, 0.0, 0.1, 0.1))
    sick = replace(quick, findings=(finding,))
    worse = replace(quick, findings=(replace(finding, severity=Severity.CRITICAL),))
    for views, code, word in (([quick, sick, quick], 1, "warning"), ([sick, worse, sick], 3, "critical")):
        fake_monitor(monkeypatch, *views)
        result = run("check", "--for", "0.3", "--interval", "0.1")
        assert (result.exit_code, result.stdout) == (code, f"{word} syn-flood host web-1: 9 SYNs/s\n")
        assert result.stderr == ""
    assert "\x1b[31mcritical" in run("check", "--for", "0.1", env={"FORCE_COLOR": "1"}).stdout


def whole(view: View, without: str = "") -> View:
    """Return the View with the data of every rule, but for the rules of this name."""
    figures = {need: 1 for rule in all_rules() for need in rule.needs if rule.name != without}
    traced = None if without == "port-scan" else TraceEvents(np.empty(0, TRACE_EVENT))
    source = SourceInfo("sock_diag", "root", why_no_trace="" if traced else "needs root")
    sample = replace(view.sample, source=source, counters=figures, sysctls=figures, trace_events=traced)
    return replace(view, sample=sample)


def test_check_says_that_a_rule_lacked_data(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    good, lacking = whole(small_host()), whole(small_host(), "resets")
    quick = Pace(0.0, 0.0, 0.1, 0.1)
    fake_monitor(monkeypatch, *(replace(view, pace=quick) for view in (good, lacking, good)))
    line = (
        "warning data-incomplete tcpwatch: rules without all their data: resets (no OutRsts); --skip leaves a rule out"
    )
    result = run("check", "--for", "0.3", "--interval", "0.1")
    assert (result.exit_code, result.stdout) == (1, f"{line}\n"), "in one poll of three"
    fake_monitor(monkeypatch, lacking)
    assert (run("check", "--for", "0.1", "--skip", "resets").exit_code, EXTRA["events"]) == (0, True)
    fake_monitor(monkeypatch, whole(small_host(), "port-scan"))
    assert "port-scan (no trace: needs root)" in run("check", "--for", "0.1").stdout
    assert failure(run("check", "--skip", "reset")).startswith(
        '--skip: there is no rule "reset"; the rules are syn-flood,'
    )


def test_the_summary_says_what_any_poll_lacked(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Pace(0.0, 0.0, 0.1, 0.1)
    good = replace(small_host(), pace=quick, trace=TraceStats(destroy_events_lost=3))
    fake_monitor(monkeypatch, good, replace(small_host(complete=False), pace=quick), good)
    source = json.loads(run("summary", "--json", "--for", "0.3", "--interval", "0.1").stdout)["source"]
    assert (source["complete"], source["missing"]) == (False, ["interrupted dump", "3 destroy events lost"])


def test_check_polls_three_times(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    for pace in (Pace(0.0, 0.0, 60.0, 60.0), Pace(9.0, 9.0, 1.0, 36.0)):
        good = replace(whole(small_host()), pace=pace)
        fake_monitor(monkeypatch, good, good, whole(small_host(), "resets"))
        assert "resets" in run("check", "--for", "0.1").stdout, "the third poll lacks something"


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError("bad\nfigure"), "ValueError: bad\\x0afigure"), (MemoryError(), "MemoryError")]
)
@pytest.mark.parametrize("command", ["list", "summary", "check", "events"])
def test_an_unexpected_failure_is_one_line(
    command: str, error: Exception, words: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: FakeMonitor) -> View:
        raise error

    monkeypatch.setattr(FakeMonitor, "step", fail)
    assert failure(run(command)) == f"unexpected failure ({words}); TCPWATCH_DEBUG=1 shows where it happened"
    assert run(command, env={"TCPWATCH_DEBUG": "1"}).exception is error


def test_findings_in_the_summary(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = {"oldest": Figure(1.23456, "s"), "sources": Figure(None, "addresses"), "mode": Figure(1)}
    finding = Finding(
        Severity.CRITICAL, FindingSubject("listener", "*:80"), "bad", evidence, "why", ("do",), "lport:80", "syn-flood"
    )
    fake_monitor(monkeypatch, replace(small_host(), findings=(finding,)))
    (finding_object,) = json.loads(run("summary", "--json").stdout)["findings"]
    assert finding_object == {
        "rule": "syn-flood",
        "severity": "critical",
        "subject": "listener *:80",
        "headline": "bad",
        "evidence": {
            "oldest": {"value": 1.235, "unit": "s"},
            "sources": {"value": None, "unit": "addresses"},
            "mode": {"value": 1, "unit": ""},
        },
        "why": "why",
        "advice": ["do"],
        "filter": "lport:80",
    }
    assert "critical syn-flood listener *:80: bad\n" in run("summary").stdout


def test_settings_reach_the_monitor(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_monitor(monkeypatch, small_host())
    assert run("--interval", "5", "--source", "psutil", "summary", "--interval", "6", "--budget", "0.5").exit_code == 0
    assert seen == [Settings(interval_s=6.0, budget=0.5, source="psutil")], "flags after the command win"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--frobnicate"], "No such option"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["list", "--jsno"], "No such option"),
        (["list", "--source"], "Option '--source' requires an argument; see tcpwatch --help"),
        (["list", "--json", "--csv"], "use either --json or --csv, not both"),
        (["list", "state:frobnicate"], "frobnicate"),
        (["list", "prt:80"], "did you mean port:"),
        (["list", "--source", "ss"], '--source must be one of auto, sock_diag, psutil, not "ss"'),
        (["--config", "/nowhere", "list"], "/nowhere: No such file or directory"),
        (["summary", "--interval", "0"], "--interval must be a number of seconds from 0.1 to 3600"),
        (["summary", "--for", "nan"], '--for must be a number of seconds from 0.1 to 86400, not "nan"'),
        (["summary", "--for", "\x1b"], "--for must be"),
        (["check", "--for", "x"], '--for must be a number of seconds from 0.1 to 86400, not "x"'),
        (["events", "--for", "x"], '--for must be a number of seconds from 0.1 to 86400, not "x"'),
        (["events", "prt:80"], "did you mean port:"),
        (["events", "--memory", "0"], "--memory must be a whole number of MiB from 1 to 65536"),
        (["summary", "extra"], "unexpected extra argument"),
        ([], "the monitor needs a terminal"),
    ],
)
def test_refusals(args: list[str], message: str, run: Callable[..., Result]) -> None:
    assert message in failure(run(*args))


@pytest.mark.parametrize("command", ["list", "summary", "check", "events"])
def test_no_source(command: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def open_monitor(settings: Settings, **extra: bool) -> Any:
        raise SourceError("sock_diag cannot be used here")

    monkeypatch.setattr(polling, "open_monitor", open_monitor)
    assert failure(run(command)) == "sock_diag cannot be used here"


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        (["list"], {}),
        (["summary"], {"events": False}),
        (["summary", "--for", "0.1"], {"events": True}),
        (["check", "--for", "0.1"], {"events": True}),
        (["events", "--for", "0.1"], {"events": True, "continuous": True}),
    ],
    ids=" ".join,
)
def test_which_commands_read_events(
    args: list[str], asked: dict[str, bool], run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_monitor(monkeypatch, small_host())
    run(*args)
    assert asked == EXTRA and seen[0].trace
    run("--no-trace", *args)
    assert not seen[1].trace


def test_events(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    views = [replace(view, pace=Pace(0.0, 0.0, 0.1, 0.1)) for view in two_views()]
    seen = fake_monitor(monkeypatch, *views)
    result = run("events", "--json", "--for", "0.25", "--trace")
    assert result.exit_code == 0 and result.stderr == "tcpwatch: 3 trace events lost\n"
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["new"] for event in events] == ["ESTABLISHED", "FIN_WAIT_1", "CLOSED", None, None]
    assert seen[0] == Settings(interval_s=0.2), "more often than other commands"
    fake_monitor(monkeypatch, *views)
    assert run("events", "--json", "state:fin-wait-1", "--for", "0.25").stdout.count("\n") == 1
    seen = fake_monitor(monkeypatch, *views)
    assert "ESTABLISHED → FIN_WAIT_1" in run("events", "-i", "0.1", "--for", "0.25", "-state:listen").stdout
    assert seen[0].interval_s == 0.1


def test_the_monitor_gets_its_settings(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def run_app(settings: Settings) -> int:
        seen.append(settings)
        return 3

    monkeypatch.setattr(app, "run", run_app)
    monkeypatch.setattr(commands, "_is_terminal", lambda stream: True)
    assert run("--theme", "nord", "--interval", "0.5").exit_code == 3
    assert seen == [Settings(interval_s=0.5, theme="nord")]


def test_interrupted_while_polling(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def open_monitor(settings: Settings, **extra: bool) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(polling, "open_monitor", open_monitor)
    result = run("list")
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize("odd", ["\x1b[31m\n", "\x9b\u202e", "a\x07\x7f", "\udcff"])
def test_arguments_with_control_characters_are_quoted_with_escapes(run: Callable[..., Result], odd: str) -> None:
    words = (
        odd,
        f"state:{odd}",
        f"port:{odd}",
        f"addr:{odd}",
        f'"{odd}',
        f"--{odd}",
        f"--source={odd}",
        f"--interval={odd}",
    )
    for args in ([odd], ["--config", f"/{odd}", "list"], ["check", "--skip", odd], *(["list", word] for word in words)):
        done = run(*args)
        assert isinstance(done.exception, SystemExit | None), done.exception
        for line in (done.stdout + done.stderr).split("\n"):
            assert line.isprintable(), (args, line)
