"""The command line: commands and flags → Settings → one front end, imported when it is needed.

Exit codes: 0 for success, also when the reader of a pipe has closed it; 2 for a failure, with one line on stderr that
begins with `tcpwatch: `; 130 when interrupted. `check` has 1 and 3, too.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from tcpwatch import __version__, signals
from tcpwatch.cli.options import FilterCommand, options
from tcpwatch.config import settings
from tcpwatch.config.settings import Settings, SettingsError
from tcpwatch.report.output import Output, OutputClosed, OutputError, abandon, print_error, whole
from tcpwatch.units.printable import printable

if TYPE_CHECKING:
    from tcpwatch.model.query.filter import Filter

FAILED, INTERRUPTED = 2, 130
DURATION_S = (0.1, 86_400.0)
"""Range of `--for`."""
EVENTS_DEFAULTS = Settings(interval_s=0.2)
"""`events` polls more often than other commands."""
OUTPUT_LEAST_S, OUTPUT_LATE_S = 0.5, 0.8
"""How long a reader may let `events --for` wait: in one write, and after the end of that time."""
_COMPLETION_VARIABLE = "_TCPWATCH_COMPLETE"
_DEBUG_VARIABLE = "TCPWATCH_DEBUG"
"""If it is set, an unexpected exception ends the program with its traceback."""


class CommandError(Exception):
    """Raised when a command cannot be run; the text is one line."""


class Commands(click.Group):
    """A command group that reports every expected failure as one line on stderr and exit code 2.

    click's own `main` prints usage errors in three lines, a newline for ^C, and exits with 1 when a pipe is closed.
    """

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]  # it is never called with standalone_mode=False
        """Run the command line and exit."""
        name = prog_name or "tcpwatch"
        if os.environ.get(_COMPLETION_VARIABLE):
            super().main(args, name, **extra)
        sys.exit(self._run(list(sys.argv[1:] if args is None else args), name))

    def _run(self, args: list[str], name: str) -> int:
        try:
            with self.make_context(name, args) as context:
                self.invoke(context)
            return 0
        except click.exceptions.Exit as end:  # --help, --version and context.exit()
            return end.exit_code
        except KeyboardInterrupt:
            abandon(sys.stdout)
            return INTERRUPTED
        except (OutputClosed, BrokenPipeError):
            abandon(sys.stdout)
            return 0
        except click.ClickException as error:
            print_error(f"{printable(error.format_message()).rstrip('.')}; see tcpwatch --help")
        except (CommandError, SettingsError, OutputError, OSError) as error:
            # An OSError of click: --help on a full disk, or a closed terminal.
            abandon(sys.stdout)
            print_error(str(error))
        except Exception as error:  # a fault of tcpwatch, or no memory
            if os.environ.get(_DEBUG_VARIABLE):
                raise
            abandon(sys.stdout)
            words = printable(": ".join(filter(None, (type(error).__name__, str(error)))))
            print_error(f"unexpected failure ({words}); {_DEBUG_VARIABLE}=1 shows where it happened")
        return FAILED


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"tcpwatch {__version__}")
        context.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@options("interval", "budget", "theme", "source", "exact", "memory", "trace", "keep_privileges")
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.pass_context
def root(context: click.Context, /, **flags: Any) -> None:
    """Monitor every TCP connection of this host, live and explained.

    Without a command, the monitor starts in this terminal. Each setting is a flag, a variable (TCPWATCH_INTERVAL, ...)
    and a key of the configuration file ($XDG_CONFIG_HOME/tcpwatch/config.toml). Flags override variables, variables
    override the file.
    """
    context.obj = flags
    if context.invoked_subcommand is None:
        context.exit(_monitor(settings.load(flags)))


def _monitor(loaded: Settings) -> int:
    """Run the terminal UI and return the exit code."""
    if not all(_is_terminal(stream) for stream in (sys.stdin, sys.stdout)):
        raise CommandError("the monitor needs a terminal; in scripts, use `tcpwatch list` or `tcpwatch summary`")
    from tcpwatch.app import run

    with _expected_failures():
        return run(loaded)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


@root.command("list", cls=FilterCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print CSV with a header line. A text that begins with = + - @ gets a leading '.",
)
@options("source", "exact", "keep_privileges")
@click.argument("filter_words", metavar="[FILTER]", nargs=-1)
@click.pass_obj
def list_sockets(
    inherited: dict[str, Any], /, as_json: bool, as_csv: bool, filter_words: tuple[str, ...], **flags: Any
) -> None:
    """List sockets that match FILTER, one row per socket.

    Rows are sorted by state, from LISTEN to CLOSED, then by local and remote address.
    """
    if as_json and as_csv:
        raise click.UsageError("use either --json or --csv, not both")
    loaded, output = _settings(inherited, flags), Output()
    filter_ = _filter(" ".join(filter_words))
    from tcpwatch.report import list_json, list_text, polling

    with _expected_failures(), polling.open_monitor(loaded) as monitor:
        view = monitor.step()
    if not view.sample.completeness.complete:
        print_error(f"incomplete: {view.sample.completeness.words}")
    slow = ["not all processes were searched for owners: that takes too long"] * (not view.sample.holders_known)
    for note in (*view.sample.unanswered, *slow):
        print_error(f"note: {note}")
    order = list_json.in_order(view.rows, filter_.mask(view.rows) if filter_ else None)
    if as_json or as_csv:
        output.write_data(list_json.as_json(view, order) if as_json else list_json.as_csv(view, order))
    else:
        output.write_text(list_text.as_text(view, order, output.width, loaded.exact, output.colour))


@root.command("summary")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--for", "duration", metavar="SECONDS", help="Poll for this long, to add rates and flow statistics.")
@options("interval", "budget", "source", "exact", "trace", "keep_privileges")
@click.pass_obj
def summarise(inherited: dict[str, Any], /, as_json: bool, duration: str | None, **flags: Any) -> None:
    """Summarise TCP health: states, listeners and their queues, counters, findings; with --for also rates and flows."""
    loaded, output = _settings(inherited, flags), Output()
    seconds = None if duration is None else _seconds(duration)
    from tcpwatch.model.poll import rates
    from tcpwatch.report import polling, summary_json, summary_text

    with _expected_failures(), polling.open_monitor(loaded, watch_queues=True, events=seconds is not None) as monitor:
        first, last = polling.first_and_last_view(monitor, seconds or 0.0)
    moved = None if seconds is None else rates(first.sample, last.sample)
    if as_json:
        output.write_data([summary_json.as_json(summary_json.summary(last, moved))])
    else:
        output.write_text([summary_text.as_text(last, moved, output.width, loaded.exact, output.colour)])


@root.command("check")
@click.option("--for", "duration", metavar="SECONDS", help="Poll for this long, at least three times [two intervals].")
@click.option("--skip", "skipped", metavar="RULE", multiple=True, help="Leave this rule out; may be given many times.")
@options("interval", "budget", "source", "trace", "keep_privileges")
@click.pass_context
def check(context: click.Context, /, duration: str | None, skipped: tuple[str, ...], **flags: Any) -> None:
    """Print findings, one per line, for monitoring systems and scripts.

    Exit code 0: no findings, and no rule lacked data; 1: warnings, 3: critical findings, 2: the check failed. A finding
    needs its condition in two polls in a row. Every finding that appeared while polling is printed. A rule without all
    its data is a warning (data-incomplete), unless --skip leaves it out; with --no-trace, rules that need the trace are
    left out. Other network namespaces, which are not looked at, are noted on stderr.
    """
    loaded, output = _settings(context.obj, flags), Output()
    seconds = 2 * loaded.interval_s if duration is None else _seconds(duration)
    from tcpwatch.report import check as check_report
    from tcpwatch.report import polling

    _require_rules(skipped)
    with _expected_failures(), polling.open_monitor(loaded, watch_queues=True, events=True) as monitor:
        result = check_report.check(polling.views(monitor, seconds, polling.CHECK_POLLS), skipped)
    for note in result.notes:  # on stderr and without an exit code: they are no problem of the host
        print_error(f"note: {note}")
    try:
        output.write_text(f"{check_report.finding_text(finding, output.colour)}\n" for finding in result.findings)
    except OutputClosed:
        abandon(sys.stdout)  # the exit code reports the findings nevertheless
    context.exit(check_report.exit_code(result.findings))


@root.command("events", cls=FilterCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--for", "duration", metavar="SECONDS", help="Stop after this long [when interrupted].")
@options("interval", "budget", "source", "exact", "memory", "trace", "keep_privileges", defaults=EVENTS_DEFAULTS)
@click.argument("filter_words", metavar="[FILTER]", nargs=-1)
@click.pass_obj
def print_events(
    inherited: dict[str, Any], /, as_json: bool, duration: str | None, filter_words: tuple[str, ...], **flags: Any
) -> None:
    """Print events of flows matching FILTER, one per line, as they happen.

    Events are state changes, from polls, destroy events and the trace; with the trace also retransmissions, resets and
    drops. `state:` matches the new state.
    """
    loaded, output = _settings(inherited, flags, EVENTS_DEFAULTS), Output()
    seconds = math.inf if duration is None else _seconds(duration)
    filter_ = _filter(" ".join(filter_words))
    from tcpwatch.report import events, polling

    write = output.write_data if as_json else output.write_text
    reporter = events.EventReporter(as_json, filter_, trace=loaded.trace, exact=loaded.exact, colour=output.colour)
    with _expected_failures(), polling.open_monitor(loaded, events=True, continuous=True) as monitor:
        deadline = time.monotonic() + seconds
        for view in polling.views(monitor, seconds):
            lines, losses = reporter.step(view)
            for loss in losses:
                print_error(loss)
            patience_s = max(OUTPUT_LEAST_S, deadline + OUTPUT_LATE_S - time.monotonic())
            with signals.limited(patience_s, OutputError("standard output is not read")):
                write(lines)


def _settings(inherited: dict[str, Any], flags: dict[str, Any], defaults: Settings = settings.DEFAULTS) -> Settings:
    """Load the settings; flags after the command's name override those before it."""
    own = {key: value for key, value in flags.items() if value is not None}
    return settings.load({**inherited, **own}, defaults=defaults)


def _seconds(words: str) -> float:
    low, high = DURATION_S
    try:
        seconds = float(words)
    except ValueError:
        seconds = math.nan  # not in the range
    if not low <= seconds <= high:
        raise CommandError(f'--for must be a number of seconds from {low:g} to {high:g}, not "{printable(words)}"')
    return seconds


def _require_rules(names: Iterable[str]) -> None:
    from tcpwatch.model.rules.registry import all_rules

    known = [rule.name for rule in all_rules()]
    for name in names:
        if name not in known:
            raise CommandError(f'--skip: there is no rule "{printable(name)}"; the rules are {", ".join(known)}')


def _filter(words: str) -> Filter | None:
    """Parse the filter before anything is polled; None without terms."""
    if not words.strip():
        return None
    from tcpwatch.model.query.filter import Filter

    try:
        return Filter.parse(words)
    except ValueError as error:
        raise CommandError(printable(str(error))) from error


@contextmanager
def _expected_failures() -> Iterator[None]:
    """Turn SourceError into CommandError."""
    from tcpwatch.sources.base import SourceError  # imported late: it imports numpy

    try:
        yield
    except SourceError as error:
        raise CommandError(str(error)) from error


def main() -> NoReturn:
    """Run the console script."""
    signals.install()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a thread that numpy starts at its import would keep all privileges
    sys.stdout, sys.stderr = whole(sys.stdout), whole(sys.stderr)
    root.main(prog_name="tcpwatch")
