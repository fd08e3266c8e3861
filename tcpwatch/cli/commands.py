"""The command line: commands and flags → Settings → one front end, imported when it is needed.

Exit codes: 0 done (also when whoever read the output had enough of it), 2 refused or failed, with one line on stderr
that begins with `tcpwatch: `, 130 interrupted; `check` ends with 1 or 3 besides.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from tcpwatch import __version__
from tcpwatch.cli.options import FilterCommand, options
from tcpwatch.config import settings
from tcpwatch.config.settings import Settings, SettingsError
from tcpwatch.report.output import Output, OutputClosed, OutputError, abandon, print_error
from tcpwatch.units.printable import printable

if TYPE_CHECKING:
    from tcpwatch.model.query.filter import Filter
    from tcpwatch.model.view import View

FAILED, INTERRUPTED = 2, 130
WATCH_S = (0.1, 86_400.0)
"""Least and most seconds of `--for`."""
EVENTS_INTERVAL_S = 0.2
"""Seconds between the polls of `events`, unless somebody says otherwise."""
_COMPLETION_VARIABLE = "_TCPWATCH_COMPLETE"


class CommandError(Exception):
    """What was asked cannot be done; the text is one line."""


class Commands(click.Group):
    """A group whose every expected failure is one line on stderr and exit code 2.

    click's own `main` prints usage errors in three lines, a newline for ^C, and ends with 1 where a pipe is closed.
    """

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]  # it is never called with standalone_mode=False
        """Run and exit."""
        name = prog_name or "tcpwatch"
        if os.environ.get(_COMPLETION_VARIABLE):
            super().main(args, name, **extra)
        sys.exit(self._run(list(sys.argv[1:] if args is None else args), name))

    def _run(self, args: list[str], name: str) -> int:
        try:
            with self.make_context(name, args) as context:
                self.invoke(context)
            return 0
        except click.exceptions.Exit as end:  # --help, --version, and what a command ends with
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
            # A bare OSError: --help on a full disk, or a terminal that is gone.
            abandon(sys.stdout)
            print_error(str(error))
        return FAILED


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    click.echo(f"tcpwatch {__version__}")
    context.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@options("interval", "budget", "theme", "source", "exact", "memory", "trace", "config")
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.pass_context
def root(context: click.Context, /, **flags: Any) -> None:
    """Watch every TCP connection of this host, live and explained.

    Without a command: the monitor, in this terminal. Every flag is also a key of the configuration file
    ($XDG_CONFIG_HOME/tcpwatch/config.toml) and a variable (TCPWATCH_INTERVAL, ...); flags win over variables, variables
    over the file.
    """
    context.obj = flags
    if context.invoked_subcommand is None:
        context.exit(_monitor(settings.load(flags)))


def _monitor(chosen: Settings) -> int:
    """The terminal UI."""
    if not all(_is_terminal(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual draws on stderr
        raise CommandError("the monitor needs a terminal; for scripts there are `tcpwatch list` and `tcpwatch summary`")
    from tcpwatch.app import run

    with _expected_failures():
        code = run(chosen)
    if code == 128 + signal.SIGHUP:  # the terminal has gone
        for stream in (sys.stdout, sys.stderr):
            abandon(stream)
    return code


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


@root.command("list", cls=FilterCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header line.")
@options("source", "exact", "config")
@click.argument("filter_words", metavar="[FILTER]", nargs=-1)
@click.pass_obj
def list_sockets(
    inherited: dict[str, Any], /, as_json: bool, as_csv: bool, filter_words: tuple[str, ...], **flags: Any
) -> None:
    """List the sockets that pass FILTER, one a line.

    They come by state in the order of a connection's life, then by local and remote address.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    chosen, output = _settings(inherited, flags), Output()
    wanted = _filter(" ".join(filter_words))
    from tcpwatch.report import list_json, list_text, polling

    with _expected_failures(), polling.open_monitor(chosen) as monitor:
        view = monitor.step()
    _say_what_is_missing(view)
    order = list_json.in_order(view.rows, wanted.mask(view.rows) if wanted else None)
    if as_json or as_csv:
        output.write_data(list_json.as_json(view, order) if as_json else list_json.as_csv(view, order))
    else:
        output.write_text(list_text.as_text(view, order, output.width, chosen.exact, output.colour))


@root.command("summary")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--for", "duration", metavar="SECONDS", help="Poll that long, and tell the counters' rates.")
@options("interval", "budget", "source", "exact", "trace", "config")
@click.pass_obj
def summarise(inherited: dict[str, Any], /, as_json: bool, duration: str | None, **flags: Any) -> None:
    """Say how this host's TCP is: states, listeners and their queues, counters; with --for how long flows live."""
    chosen, output = _settings(inherited, flags), Output()
    seconds = None if duration is None else _seconds(duration)
    from tcpwatch.model.poll import rates
    from tcpwatch.report import polling, summary_json, summary_text

    with _expected_failures(), polling.open_monitor(chosen, watch_queues=True, events=seconds is not None) as monitor:
        first, last = polling.first_and_last_view(monitor, seconds or 0.0)
    moved = None if seconds is None else rates(first.sample, last.sample)
    if as_json:
        output.write_data([summary_json.as_json(summary_json.summary(last, moved))])
    else:
        output.write_text([summary_text.as_text(last, moved, output.width, chosen.exact, output.colour)])


@root.command("check")
@click.option("--for", "duration", metavar="SECONDS", help="Poll that long [two intervals: three polls].")
@options("interval", "budget", "source", "trace", "config")
@click.pass_context
def check(context: click.Context, /, duration: str | None, **flags: Any) -> None:
    """Say what is wrong, one line a finding; made for monitoring systems and scripts.

    Exit code 0: nothing, 1: warnings, 3: something critical, 2: it could not be checked. A finding appears when its
    condition held for two polls; all that appeared in the time are told.
    """
    chosen, output = _settings(context.obj, flags), Output()
    seconds = 2 * chosen.interval_s if duration is None else _seconds(duration)
    from tcpwatch.report import check as findings
    from tcpwatch.report import polling

    with _expected_failures(), polling.open_monitor(chosen, watch_queues=True, events=True) as monitor:
        found = findings.merge_findings(polling.views(monitor, seconds))
    output.write_text(f"{findings.finding_text(one, output.colour)}\n" for one in found)
    context.exit(findings.exit_code(found))


@root.command("events", cls=FilterCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--for", "duration", metavar="SECONDS", help="End after that long [when interrupted].")
@options("interval", "budget", "source", "exact", "memory", "trace", "config")
@click.argument("filter_words", metavar="[FILTER]", nargs=-1)
@click.pass_obj
def print_events(
    inherited: dict[str, Any], /, as_json: bool, duration: str | None, filter_words: tuple[str, ...], **flags: Any
) -> None:
    """Tell what happens to the flows that pass FILTER, one line an event, as it happens; made for pipes.

    Changes of state from polls, destroy events and the trace; with the trace also repeated segments, resets and drops.
    `state:` asks for the state that a flow comes into. The kernel is asked every 0.2 s unless told otherwise.
    """
    chosen, output = _settings(inherited, flags, Settings(interval_s=EVENTS_INTERVAL_S)), Output()
    seconds = math.inf if duration is None else _seconds(duration)
    wanted = _filter(" ".join(filter_words))
    from tcpwatch.report import events, polling

    write = output.write_data if as_json else output.write_text
    reporter = events.EventReporter(as_json, wanted, trace=chosen.trace, exact=chosen.exact, colour=output.colour)
    with _expected_failures(), polling.open_monitor(chosen, events=True, lasting=True) as monitor:
        for view in polling.views(monitor, seconds):
            news = reporter.step(view)
            for loss in news.losses:
                print_error(loss)
            write(news.lines)


def _settings(inherited: dict[str, Any], flags: dict[str, Any], usual: Settings = settings.DEFAULTS) -> Settings:
    """A command's own flags win over those before its name."""
    own = {key: value for key, value in flags.items() if value is not None}
    return settings.load({**inherited, **own}, usual=usual)


def _seconds(words: str) -> float:
    low, high = WATCH_S
    try:
        seconds = float(words)
    except ValueError:
        seconds = 0.0  # out of range, as it should be
    if not low <= seconds <= high:
        raise CommandError(f'--for must be a number of seconds from {low:g} to {high:g}, not "{printable(words)}"')
    return seconds


def _filter(words: str) -> Filter | None:
    """The filter that was asked for; parsed before anything is polled."""
    if not words.strip():
        return None
    from tcpwatch.model.query.filter import Filter

    try:
        return Filter.parse(words)
    except ValueError as error:
        raise CommandError(printable(str(error))) from error


@contextmanager
def _expected_failures() -> Iterator[None]:
    """A source that cannot be had is a Failure; it is imported here, as it brings numpy."""
    from tcpwatch.sources.base import SourceError

    try:
        yield
    except SourceError as error:
        raise CommandError(str(error)) from error


def _say_what_is_missing(view: View) -> None:
    """A listing has no place for it: on stderr."""
    if not view.sample.completeness.complete:
        print_error(f"incomplete: {view.sample.completeness.words}")


def main() -> NoReturn:
    """The console script."""
    root.main(prog_name="tcpwatch")
