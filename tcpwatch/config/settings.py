"""Settings: defaults < TOML file < environment < flags, all checked in the same way."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from tcpwatch.blocking import in_child
from tcpwatch.config.thresholds import DEFAULT, Thresholds, allowed_range
from tcpwatch.units.printable import printable

SourceKind = Literal["auto", "sock_diag", "psutil"]

CONFIG_VARIABLE = "TCPWATCH_CONFIG"
CONFIG_LIMIT = 1 << 20
"""Bytes of a configuration file. A larger one, such as an endless device, is refused without reading it."""
PATIENCE_S = 1.0
"""How long that file may take to answer."""
_THEME_LIMIT = 64


class SettingsError(Exception):
    """Raised when a setting cannot be used; the text is one line: the place, the problem and the remedy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run; KEYS has their ranges and descriptions."""

    interval_s: float = 1.0
    budget: float = 0.25
    theme: str | None = None
    """None: the monitor's default theme."""
    source: SourceKind = "auto"
    exact: bool = False
    memory_mib: int = 64
    trace: bool = True
    keep_privileges: bool = False
    thresholds: Thresholds = DEFAULT
    """A table in the configuration file; there is no flag or variable for it."""


DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class Key:
    """The description and the check of one key of the configuration file."""

    field: str
    """Field of Settings."""
    description: str
    """For `--help`, with the range."""
    expected: str
    """Completes "must be ..."."""
    accepts: Callable[[Any], bool]
    """Return whether a value, typed as in TOML, is valid."""
    from_text: Callable[[str], Any] = str
    """Convert the text of a flag or variable to the type in TOML. Raises ValueError."""

    def help(self, defaults: Settings = DEFAULTS) -> str:
        """Return the description with the default value, as `--help` shows it."""
        default = getattr(defaults, self.field)
        if default is None or default is False:
            return f"{self.description}."
        return f"{self.description} [{'on' if default is True else default}]."


def _number_within(low: float, high: float, kind: type[float] = float) -> Callable[[Any], bool]:
    kinds = int if kind is int else (int, float)

    def accepts(value: Any) -> bool:
        number = isinstance(value, kinds) and not isinstance(value, bool)
        return number and low <= value <= high  # False for NaN, too

    return accepts


def _number(
    field: str, description: str, low: float, high: float, unit: str, expected: str, kind: type[float] = float
) -> Key:
    span = f"{low:g} to {high:g}"
    description = f"{description}, {span}{unit}"
    return Key(field, description, expected.format(f"from {span}"), _number_within(low, high, kind), kind)


def _switch(field: str, description: str) -> Key:
    return Key(field, description, "true or false", lambda value: isinstance(value, bool), _parse_switch)


def _parse_switch(text: str) -> bool:
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_SOURCES = get_args(SourceKind)
KEYS: dict[str, Key] = {
    "interval": _number("interval_s", "Seconds between polls", 0.1, 3600, "", "a number of seconds {}"),
    "budget": _number(
        "budget", "Share of one core for polling", 0.01, 1, "", "a share of one core {} (0.25 is a quarter)"
    ),
    "theme": Key(
        "theme",
        "Colour theme of the monitor",
        f"a theme's name of 1 to {_THEME_LIMIT} characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= _THEME_LIMIT and value.isprintable(),
    ),
    "source": Key(
        "source",
        "Source of the samples: " + ", ".join(_SOURCES),
        "one of " + ", ".join(_SOURCES),
        lambda value: isinstance(value, str) and value in _SOURCES,
    ),
    "exact": _switch("exact", "Show exact numbers: no rounding, no names"),
    "memory": _number("memory_mib", "Memory for flow history", 1, 65_536, " MiB", "a whole number of MiB {}", int),
    "trace": _switch("trace", "Use the kernel's tracepoints; needs root"),
    "keep_privileges": _switch("keep_privileges", "Keep all privileges after the start"),
}
"""Key in the file → its description and check. The variable is TCPWATCH_<KEY>, the flag --<key>."""

THRESHOLDS = "thresholds"


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, defaults: Settings = DEFAULTS
) -> Settings:
    """Return the settings from the file, the environment and the flags. Raises SettingsError.

    `flags` has the keys of the file, and `config` for its path; None means that the flag was not given. An empty
    variable counts as unset. `defaults` are those of the command.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    chosen = _from_file(*_config_path(given.pop("config", None), environ))
    for key in KEYS:
        variable = f"TCPWATCH_{key.upper()}"
        if environ.get(variable):
            chosen[key] = _converted(KEYS[key], environ[variable], variable)
    for key, value in given.items():
        chosen[key] = _converted(KEYS[key], value, f"--{key}")
    thresholds = chosen.pop(THRESHOLDS, DEFAULT)
    return replace(defaults, thresholds=thresholds, **{KEYS[key].field: value for key, value in chosen.items()})


def _converted(key: Key, value: str | bool, place: str) -> Any:
    """Convert and check the text of a flag or variable; a flag without a value is a bool."""
    try:
        typed = key.from_text(value.strip()) if isinstance(value, str) else value
    except ValueError:
        raise _refused(place, key, value) from None  # `expected` says more than the ValueError
    return _checked(key, typed, place)


def _checked(key: Key, value: Any, place: str) -> Any:
    """Return the value as Settings has it; `place` begins the error message."""
    if not key.accepts(value):
        raise _refused(place, key, value)
    return float(value) if key.from_text is float else value


def _refused(place: str, key: Key, value: Any) -> SettingsError:
    return SettingsError(f"{place} must be {key.expected}, not {_quoted(value)}")


def _quoted(value: Any) -> str:
    """Return a value as it was written, short and on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and value.bit_length() > 128:  # str() refuses the really large ones
        return "a number as large as that"
    return printable(f'"{value}"' if isinstance(value, str) else str(value), 60)


def _config_path(flag: str | None, environ: Mapping[str, str]) -> tuple[Path | None, bool]:
    """Return the path of the configuration file, and whether it was named explicitly, so that it must exist."""
    named = flag or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named), True
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # the XDG specification says to ignore a relative path
        base = Path(environ.get("HOME", ""), ".config")
    return (base / "tcpwatch" / "config.toml" if base.is_absolute() else None), False


def _from_file(path: Path | None, must_exist: bool) -> dict[str, Any]:
    """Return the checked value of every key in the file; nothing where the default file is absent."""
    if path is None:
        return {}
    name = printable(str(path))
    values = _parsed(_read(path, name, must_exist), name)
    thresholds = _thresholds(values.pop(THRESHOLDS, {}), name)
    for key in values:
        if key not in KEYS:
            raise SettingsError(f"{name}: {_unknown_key(key)}")
    checked = {key: _checked(KEYS[key], value, f"{name}: {key}") for key, value in values.items()}
    return {**checked, THRESHOLDS: thresholds}


def _thresholds(table: Any, name: str) -> Thresholds:
    if not isinstance(table, dict):
        raise SettingsError(f"{name}: {THRESHOLDS} must be a table, not {_quoted(table)}")
    known = [field.name for field in fields(Thresholds)]
    for key, value in table.items():
        if key not in known:
            raise SettingsError(f"{name}: [{THRESHOLDS}] {_unknown_key(key, known)}")
        low, high = allowed_range(key)
        if not _number_within(low, high)(value):
            expected = f"a number from {low:g} to {high:g}"
            raise SettingsError(f"{name}: [{THRESHOLDS}] {key} must be {expected}, not {_quoted(value)}")
    return Thresholds(**{key: float(value) for key, value in table.items()})


def _read(path: Path, name: str, must_exist: bool) -> bytes:
    try:
        content = in_child(partial(_beginning, path), PATIENCE_S, files=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not must_exist:
            return b""
        raise SettingsError(f"{name}: {error.strerror}; name a file that exists with --config") from error
    except OSError as error:
        remedy = "make it a readable file, or name another with --config"
        raise SettingsError(f"{name}: cannot be read: {error.strerror}; {remedy}") from error
    if len(content) > CONFIG_LIMIT:
        raise SettingsError(f"{name}: larger than {CONFIG_LIMIT >> 20} MiB, so not a configuration file of tcpwatch")
    return content


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(CONFIG_LIMIT + 1)


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from error
    except ValueError as error:  # TOMLDecodeError, and int() for numbers of thousands of digits
        raise SettingsError(f"{name}: not valid TOML: {printable(str(error), 200)}") from error
    except RecursionError as error:  # tomllib recurses into nested brackets
        raise SettingsError(f"{name}: not a configuration file of tcpwatch: nested too deeply") from error


def _unknown_key(key: str, known: Sequence[str] = (*KEYS, THRESHOLDS)) -> str:
    near = difflib.get_close_matches(key.lower(), known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "remove it;"
    return f'unknown key "{printable(key, 40)}": {hint} the keys are {", ".join(known)}'
