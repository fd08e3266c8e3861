"""Options and arguments of commands: settings as flags, filter terms as arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tcpwatch.config.settings import DEFAULTS, KEYS, Settings


class FilterCommand(click.Command):
    """A command whose arguments are filter terms; `-term` is a term, not a flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move flags to the front and put the terms after a `--`."""
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
                        return super().parse_args(ctx, flags)  # click reports the missing value
                    flags.append(value)
            else:
                terms.append(arg)
        return super().parse_args(ctx, [*flags, "--", *terms])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the filter terms."""
        from tcpwatch.model.query.filter import HELP

        with formatter.section("Terms of FILTER (all must match)"):
            formatter.write_dl(list(HELP))


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


_FLAGS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "interval": (("-i", "--interval"), "SECONDS"),
    "budget": (("--budget",), "SHARE"),
    "theme": (("--theme",), "NAME"),
    "source": (("--source",), "KIND"),
    "exact": (("-n", "--exact"), None),
    "memory": (("--memory",), "MIB"),
    "trace": (("--trace/--no-trace",), None),
    "keep_privileges": (("--keep-privileges",), None),
}
"""Key of a setting → its flags and the metavar, None for a switch."""
_CONFIG = click.option("--config", metavar="FILE", help="Configuration file, instead of the default one.")


def options(*keys: str, defaults: Settings = DEFAULTS) -> Decorator:
    """Add `--config` and these settings as flags to a command; `defaults` are the command's own."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = _CONFIG(command)
        for key in reversed(keys):
            names, metavar = _FLAGS[key]
            switch = {"is_flag": True, "default": None} if metavar is None else {"metavar": metavar}
            command = click.option(*names, help=KEYS[key].help(defaults), **switch)(command)
        return command

    return decorate
