"""Settings: defaults < TOML file < environment < flags, checked alike wherever they come from."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from tcpwatch.config.thresholds import DEFAULT, Thresholds, allowed_range
from tcpwatch.units.printable import printable

SourceKind = Literal["auto", "sock_diag", "psutil"]

INTERVAL_S = (0.1, 3600.0)
BUDGET = (0.01, 1.0)
MEMORY_MIB = (1, 65_536)
THEME_LIMIT = 64
CONFIG_VARIABLE = "TCPWATCH_CONFIG"
CONFIG_LIMIT = 1 << 20
"""Bytes of a configuration file; a device that never ends is refused and not read."""


class SettingsError(Exception):
    """A setting that cannot be used; the text is one line that says where, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may choose."""

    interval_s: float = 1.0
    """Seconds between polls, 0.1 to 3600."""
    budget: float = 0.25
    """Share of one core that polling may take, 0.01 to 1."""
    theme: str | None = None
    """Colour theme of the monitor; None: its own choice."""
    source: SourceKind = "auto"
    """Where samples come from; auto: sock_diag, else psutil."""
    exact: bool = False
    """Numbers as they are, instead of names and rounded ones."""
    memory_mib: int = 64
    """What the story of the flows may take, 1 to 65536 MiB."""
    trace: bool = True
    """Whether the kernel's tracepoints are used, where that is possible."""
    thresholds: Thresholds = DEFAULT
    """Where the rules of the diagnosis begin to speak; in the file alone, a table of that name."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one key is checked."""

    field: str
    wanted: str
    """Completes "must be ..."."""
    accepts: Callable[[Any], bool]
    """Whether a value, as TOML gives it, will do."""
    from_text: Callable[[str], Any] = str
    """A flag's or variable's text as TOML would give it. ValueError: cannot be."""


def _number_within(low: float, high: float) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and low <= value <= high  # not true of NaN either

    return accepts


def _whole_within(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _switch(text: str) -> bool:
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_RULES: dict[str, _Rule] = {
    "interval": _Rule(
        "interval_s",
        f"a number of seconds from {INTERVAL_S[0]:g} to {INTERVAL_S[1]:g}",
        _number_within(*INTERVAL_S),
        float,
    ),
    "budget": _Rule(
        "budget",
        f"a share of one core from {BUDGET[0]:g} to {BUDGET[1]:g} (0.25 is a quarter)",
        _number_within(*BUDGET),
        float,
    ),
    "theme": _Rule(
        "theme",
        f"a theme's name of 1 to {THEME_LIMIT} characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= THEME_LIMIT and value.isprintable(),
    ),
    "source": _Rule(
        "source",
        "one of auto, sock_diag, psutil",
        lambda value: isinstance(value, str) and value in ("auto", "sock_diag", "psutil"),
    ),
    "exact": _Rule("exact", "true or false", lambda value: isinstance(value, bool), _switch),
    "memory": _Rule(
        "memory_mib",
        f"a whole number of MiB from {MEMORY_MIB[0]} to {MEMORY_MIB[1]}",
        _whole_within(*MEMORY_MIB),
        int,
    ),
    "trace": _Rule("trace", "true or false", lambda value: isinstance(value, bool), _switch),
}
"""The key in the file → its rule. The variable is TCPWATCH_ and the key in capitals, the flag is -- and the key."""

KEYS: tuple[str, ...] = tuple(_RULES)
DEFAULTS = Settings()
THRESHOLDS = "thresholds"


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, usual: Settings = DEFAULTS
) -> Settings:
    """The settings that hold now; `usual` are a command's defaults. Raises SettingsError.

    `flags` has the keys of the file, and `config` for the file; None stands for a flag that was not given. An empty
    variable counts as one that is not set.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    chosen = _from_file(*_config_path(given.pop("config", None), environ))
    for key in KEYS:
        variable = f"TCPWATCH_{key.upper()}"
        if environ.get(variable):
            chosen[key] = _from_words(key, environ[variable], variable)
    for key, value in given.items():
        chosen[key] = _from_words(key, value, f"--{key}")
    thresholds = chosen.pop(THRESHOLDS, DEFAULT)
    return replace(usual, thresholds=thresholds, **{_RULES[key].field: value for key, value in chosen.items()})


def _from_words(key: str, value: str | bool, place: str) -> Any:
    """As `_checked`, of a flag or a variable, which come as text; a flag without a value is True."""
    rule = _RULES[key]
    try:
        typed = rule.from_text(value.strip()) if isinstance(value, str) else value
    except ValueError:
        raise _refused(place, rule, value) from None  # the rule says more than the ValueError
    return _checked(key, typed, place)


def _checked(key: str, value: Any, place: str) -> Any:
    """The value of `key`, as Settings has it; `place` begins the message where it cannot be used."""
    rule = _RULES[key]
    if not rule.accepts(value):
        raise _refused(place, rule, value)
    return float(value) if rule.from_text is float else value


def _refused(place: str, rule: _Rule, value: Any) -> SettingsError:
    return SettingsError(f"{place} must be {rule.wanted}, not {_spelled(value)}")


def _spelled(value: Any) -> str:
    """A value as a person wrote it, short and on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and value.bit_length() > 128:  # str() refuses the really large ones
        return "a number as large as that"
    return printable(f'"{value}"' if isinstance(value, str) else str(value), 60)


def _config_path(flag: str | None, environ: Mapping[str, str]) -> tuple[Path | None, bool]:
    """The configuration file, and whether somebody asked for it, so that it must be there."""
    asked = flag or environ.get(CONFIG_VARIABLE)
    if asked:
        return Path(asked), True
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # the XDG specification: a relative path is to be ignored
        base = Path(environ.get("HOME", ""), ".config")
    return (base / "tcpwatch" / "config.toml" if base.is_absolute() else None), False


def _from_file(path: Path | None, asked: bool) -> dict[str, Any]:
    """Key → checked value of every key in the file; nothing where the default file is absent."""
    if path is None:
        return {}
    name = printable(str(path))
    found = _parsed(_read(path, name, asked), name)
    thresholds = _thresholds(found.pop(THRESHOLDS, {}), name)
    for key in found:
        if key not in _RULES:
            raise SettingsError(f"{name}: {_unknown(key)}")
    checked = {key: _checked(key, value, f"{name}: {key}") for key, value in found.items()}
    return {**checked, THRESHOLDS: thresholds}


def _thresholds(table: Any, name: str) -> Thresholds:
    """The table of thresholds, where the file has one."""
    if not isinstance(table, dict):
        raise SettingsError(f"{name}: {THRESHOLDS} must be a table, not {_spelled(table)}")
    known = [field.name for field in fields(Thresholds)]
    for key, value in table.items():
        if key not in known:
            raise SettingsError(f"{name}: [{THRESHOLDS}] {_unknown(key, known)}")
        low, high = allowed_range(key)
        if not _number_within(low, high)(value):
            wanted = f"a number from {low:g} to {high:g}"
            raise SettingsError(f"{name}: [{THRESHOLDS}] {key} must be {wanted}, not {_spelled(value)}")
    return Thresholds(**{key: float(value) for key, value in table.items()})


def _read(path: Path, name: str, asked: bool) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not asked:
            return b""
        raise SettingsError(f"{name}: {error.strerror}; name a file that exists with --config") from error
    except OSError as error:
        cure = "make it a readable file, or name another with --config"
        raise SettingsError(f"{name}: cannot be read: {error.strerror}; {cure}") from error
    if len(content) > CONFIG_LIMIT:
        raise SettingsError(f"{name}: larger than {CONFIG_LIMIT >> 20} MiB, so no configuration file of tcpwatch")
    return content


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from error
    except ValueError as error:  # TOMLDecodeError, and int() on numbers of thousands of digits
        raise SettingsError(f"{name}: not valid TOML: {printable(str(error), 200)}") from error
    except RecursionError as error:  # tomllib follows brackets as deep as they go
        raise SettingsError(f"{name}: not a configuration file of tcpwatch: nested too deeply") from error


def _unknown(key: str, known: Sequence[str] = (*KEYS, THRESHOLDS)) -> str:
    near = difflib.get_close_matches(key.lower(), known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "remove it;"
    return f'unknown key "{printable(key, 40)}": {hint} the keys are {", ".join(known)}'
