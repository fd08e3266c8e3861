"""Settings: precedence, checks, error messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tcpwatch.config import settings
from tcpwatch.config.settings import Settings, SettingsError
from tcpwatch.config.thresholds import Thresholds


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return an environment with an empty home directory."""
    return {"HOME": str(tmp_path)}


def write(home: dict[str, str], content: str) -> Path:
    path = Path(home["HOME"], ".config", "tcpwatch", "config.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def refusal(flags: dict[str, object] | None, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        settings.load(flags, environ)
    line = str(caught.value)
    assert line.isprintable(), "one line without control characters"
    return line


def test_defaults(home: dict[str, str]) -> None:
    assert settings.load({}, home) == Settings(1.0, 0.25, None, "auto", False, 64, True)
    assert settings.load({}, {}) == Settings(), "without a home there is no file"


def test_readme_shows_the_defaults(tmp_path: Path) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    path = tmp_path / "config.toml"
    path.write_text(readme.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    assert settings.load({"config": str(path)}, {}) == Settings(theme="textual-light")


def test_flags_override_variables_and_variables_override_the_file(home: dict[str, str]) -> None:
    write(home, 'interval = 2\nbudget = 0.5\ntheme = "nord"\nsource = "psutil"\nexact = true\n')
    assert settings.load({}, home) == Settings(2.0, 0.5, "nord", "psutil", True)
    environ = {**home, "TCPWATCH_INTERVAL": "3", "TCPWATCH_EXACT": "off", "TCPWATCH_SOURCE": "auto"}
    assert settings.load({}, environ) == Settings(3.0, 0.5, "nord", "auto", False)
    flags = {"interval": "4", "exact": True, "budget": None}
    assert settings.load(flags, environ) == Settings(4.0, 0.5, "nord", "auto", True)


def test_a_command_may_have_defaults_of_its_own(home: dict[str, str]) -> None:
    defaults = Settings(interval_s=0.2)
    assert settings.load({}, home, defaults) == defaults
    assert settings.load({}, {**home, "TCPWATCH_INTERVAL": "3"}, defaults).interval_s == 3
    write(home, "interval = 2")
    assert settings.load({}, home, defaults).interval_s == 2


def test_memory_and_trace(home: dict[str, str]) -> None:
    write(home, "memory = 1\ntrace = false")
    assert (settings.load({}, home).memory_mib, settings.load({}, home).trace) == (1, False)
    chosen = settings.load({"memory": " 65536 ", "trace": True}, {**home, "TCPWATCH_TRACE": "0"})
    assert (chosen.memory_mib, chosen.trace) == (65_536, True)
    assert settings.load({}, {**home, "TCPWATCH_TRACE": "on"}).trace


def test_privileges_are_kept_on_request(home: dict[str, str]) -> None:
    assert not settings.load({}, home).keep_privileges
    assert settings.load({"keep_privileges": True}, home).keep_privileges
    assert settings.load({}, {**home, "TCPWATCH_KEEP_PRIVILEGES": "1"}).keep_privileges
    assert refusal({}, {**home, "TCPWATCH_TRACE": "maybe"}) == 'TCPWATCH_TRACE must be true or false, not "maybe"'


@pytest.mark.parametrize("text", ["0", "-1", "65537", "1.5", "64 MiB", "1e3", "", "nan", "9" * 5000])
def test_invalid_memory(text: str, home: dict[str, str]) -> None:
    assert refusal({"memory": text}, home).startswith("--memory must be a whole number of MiB from 1 to 65536, not ")


def test_paths_of_the_file(home: dict[str, str], tmp_path: Path) -> None:
    write(home, "interval = 2")
    (tmp_path / "xdg" / "tcpwatch").mkdir(parents=True)
    (tmp_path / "xdg" / "tcpwatch" / "config.toml").write_text("interval = 3")
    (tmp_path / "variable.toml").write_text("interval = 4")
    (tmp_path / "flag.toml").write_text("interval = 5")
    environ = {**home, "XDG_CONFIG_HOME": "relative"}
    assert settings.load({}, environ).interval_s == 2, "a relative XDG_CONFIG_HOME is ignored"
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert settings.load({}, environ).interval_s == 3
    environ["TCPWATCH_CONFIG"] = str(tmp_path / "variable.toml")
    assert settings.load({}, environ).interval_s == 4
    assert settings.load({"config": str(tmp_path / "flag.toml")}, environ).interval_s == 5
    assert settings.load({"config": "/dev/null"}, environ).interval_s == 1


def test_an_empty_variable_is_not_set(home: dict[str, str]) -> None:
    environ = {**home, "TCPWATCH_INTERVAL": "", "TCPWATCH_CONFIG": "", "TCPWATCH_THEME": ""}
    assert settings.load({}, environ) == Settings()


@pytest.mark.parametrize("text", ["0.1", "3600", " 5 ", "1e1"])
def test_intervals(text: str, home: dict[str, str]) -> None:
    assert settings.load({"interval": text}, home).interval_s == float(text)


@pytest.mark.parametrize("text", ["0", "0.0999", "3600.1", "nan", "inf", "-1", "fast", "1s", "true"])
def test_invalid_intervals(text: str, home: dict[str, str]) -> None:
    line = refusal({}, {**home, "TCPWATCH_INTERVAL": text})
    assert line.startswith("TCPWATCH_INTERVAL must be a number of seconds from 0.1 to 3600, not ")
    assert refusal({"interval": text}, home).startswith("--interval must be a number of seconds")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('interval = "1"', 'interval must be a number of seconds from 0.1 to 3600, not "1"'),
        ("interval = true", "interval must be a number of seconds from 0.1 to 3600, not true"),
        ("interval = 0xfff" + "f" * 9999, "interval must be a number of seconds from 0.1 to 3600, not a number as"),
        ("interval = [1]", "not an array"),
        ("budget = 25", "budget must be a share of one core from 0.01 to 1 (0.25 is a quarter), not 25"),
        ("theme = 1", "theme must be a theme's name of 1 to 64 characters, not 1"),
        ('theme = ""', 'theme must be a theme\'s name of 1 to 64 characters, not ""'),
        ('theme = "\\u001b[31m"', "theme must be"),
        ('source = "ss"', 'source must be one of auto, sock_diag, psutil, not "ss"'),
        ("exact = 1", "exact must be true or false, not 1"),
        ("exact = 2024-01-01", "exact must be true or false, not 2024-01-01"),
        ("memory = 1.0", "memory must be a whole number of MiB from 1 to 65536, not 1.0"),
        ("memory = true", "memory must be a whole number of MiB from 1 to 65536, not true"),
        ('memory = "64"', 'memory must be a whole number of MiB from 1 to 65536, not "64"'),
        ("trace = 0", "trace must be true or false, not 0"),
        ("[interval]", "interval must be a number of seconds from 0.1 to 3600, not a table"),
        ("intervall = 1", 'unknown key "intervall": did you mean interval? the keys are interval, budget, theme, '),
        ("interval_s = 1", 'unknown key "interval_s": did you mean interval?'),
        ("xyz = 1", 'unknown key "xyz": remove it; the keys are'),
        ("interval = ", "not valid TOML: Invalid value (at end of document)"),
        ("interval = 1\ninterval = 2", "not valid TOML: Cannot overwrite a value"),
        ("interval = " + "9" * 5000, "not valid TOML: "),
        ("theme = " + "[" * 100_000, "nested too deeply"),
        ("# " + "x" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_invalid_files(content: str, message: str, home: dict[str, str]) -> None:
    path = write(home, content)
    line = refusal({}, home)
    assert line.startswith(f"{path}: ")
    assert message in line


def test_files_that_cannot_be_read(home: dict[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert refusal({"config": missing}, home) == (
        f"{missing}: No such file or directory; name a file that exists with --config"
    )
    assert "cannot be read: Is a directory" in refusal({"config": str(tmp_path)}, home)
    path = write(home, "")
    path.write_bytes(b"theme = '\xff'")
    assert "not UTF-8 at byte 9" in refusal({}, home)
    path.unlink()
    path.mkdir()
    assert "cannot be read: Is a directory" in refusal({}, home)
    assert settings.load({}, {"HOME": "/dev/null"}) == Settings(), "no home, no file"


def test_files_that_do_not_answer(home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PATIENCE_S", 0.05)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    silent, writer = os.pipe()
    for name in (str(path), f"/dev/fd/{silent}"):
        assert refusal({"config": name}, home).startswith(f"{name}: cannot be read: no answer within 0.05 s; ")
    os.close(silent)
    os.close(writer)


def test_files_that_are_no_regular_ones(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PATIENCE_S", 30.0)
    pipe, writer = os.pipe()
    os.write(writer, b"interval = 7")
    os.close(writer)
    assert settings.load({"config": f"/dev/fd/{pipe}"}, home).interval_s == 7, "as --config <(echo interval = 7)"
    os.close(pipe)
    assert settings.load({"config": "/dev/null"}, home) == Settings()


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("TRUE", True), ("yes", True), ("on", True), ("0", False), ("No", False)]
)
def test_switches(word: str, value: bool, home: dict[str, str]) -> None:
    assert settings.load({}, {**home, "TCPWATCH_EXACT": word}).exact is value


def test_invalid_switch(home: dict[str, str]) -> None:
    assert refusal({}, {**home, "TCPWATCH_EXACT": "maybe"}) == 'TCPWATCH_EXACT must be true or false, not "maybe"'


def test_control_characters_are_not_printed(home: dict[str, str]) -> None:
    assert "\\x1b[31m" in refusal({"config": "/nowhere/\x1b[31m"}, home)
    assert "\\x1b[31m" in refusal({}, {**home, "TCPWATCH_SOURCE": "\x1b[31m\n"})
    write(home, '"\\u001b[31m" = 1')
    assert "\\x1b[31m" in refusal({}, home)


def test_thresholds(home: dict[str, str]) -> None:
    write(home, "interval = 2\n[thresholds]\nsyn_queue_share = 0.5\nresets_per_s = 50\n")
    assert settings.load({}, home) == Settings(2.0, thresholds=Thresholds(syn_queue_share=0.5, resets_per_s=50.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("thresholds = 3", "thresholds must be a table, not 3"),
        (
            "[thresholds]\nsyn_queue_shar = 1",
            '[thresholds] unknown key "syn_queue_shar": did you mean syn_queue_share?',
        ),
        ("[thresholds]\nsyn_queue_share = 80", "[thresholds] syn_queue_share must be a number from 0.01 to 1, not 80"),
        ("[thresholds]\nresets_per_s = true", "[thresholds] resets_per_s must be a number from 0.1 to 1e+09, not true"),
    ],
)
def test_invalid_thresholds(content: str, message: str, home: dict[str, str]) -> None:
    write(home, content)
    assert message in refusal({}, home)
