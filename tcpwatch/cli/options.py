"""What commands take: settings as flags, and filter terms as arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class FilterCommand(click.Command):
    """A command whose arguments are filter terms. `-term` is one too, though it looks like a flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Flags first, terms behind a `--`."""
        flags: list[str] = []
        terms: list[str] = []
        known = {name: option for option in self.get_params(ctx) for name in option.opts if name.startswith("-")}
        left = iter(args)
        for arg in left:
            if arg == "--":
                terms.extend(left)
            elif arg in known or arg.startswith("--"):
                flags.append(arg)
                if arg in known and not getattr(known[arg], "is_flag", True):
                    value = next(left, None)
                    if value is None:
                        return super().parse_args(ctx, flags)  # click says that the value is missing
                    flags.append(value)
            else:
                terms.append(arg)
        return super().parse_args(ctx, [*flags, "--", *terms])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The terms, as the filter itself explains them."""
        from tcpwatch.model.query.filter import HELP

        with formatter.section("Terms of FILTER, which must all hold"):
            formatter.write_dl(list(HELP))


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_OPTIONS: dict[str, Decorator] = {
    "interval": click.option(
        "-i", "--interval", metavar="SECONDS", help="Time between polls, 0.1 to 3600 [1; of events 0.2]."
    ),
    "budget": click.option("--budget", metavar="SHARE", help="Share of one core for polling, 0.01 to 1 [0.25]."),
    "theme": click.option("--theme", metavar="NAME", help="Colour theme of the monitor."),
    "source": click.option("--source", metavar="KIND", help="auto, sock_diag or psutil [auto]."),
    "exact": click.option(
        "-n", "--exact", is_flag=True, default=None, help="Numbers as they are, no names, no rounding."
    ),
    "memory": click.option("--memory", metavar="MIB", help="Memory for the story of flows, 1 to 65536 MiB [64]."),
    "trace": click.option(
        "--trace/--no-trace", default=None, help="Use the kernel's tracepoints, which needs root [--trace]."
    ),
    "config": click.option("--config", metavar="FILE", help="Configuration file, instead of the usual one."),
}


def options(*keys: str) -> Decorator:
    """These settings as flags of a command."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(keys):
            command = _OPTIONS[key](command)
        return command

    return decorate
