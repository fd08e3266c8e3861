"""The headless commands import neither the terminal UI nor the modules of other commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, sys
from tcpwatch.cli import commands as cli
sys.argv = ["tcpwatch", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(args: list[str], home: Path) -> tuple[int, set[str]]:
    """Return the exit code and the modules imported at the end."""
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *args], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


NEVER = {
    "textual",
    "rich",
    "asyncio",
    "tcpwatch.app",
    "tcpwatch.screens",
    "tcpwatch.widgets",
    "tcpwatch.sources.psutil",
}
"""Modules that no headless command imports."""
CASES: list[tuple[list[str], int, set[str]]] = [
    (["--version"], 0, {"numpy", "psutil", "tcpwatch.model", "tcpwatch.sources.base"}),
    (["--help"], 0, {"numpy", "psutil", "tcpwatch.model", "tcpwatch.sources.base"}),
    ([], 2, {"numpy", "psutil", "tcpwatch.model", "tcpwatch.sources.base"}),
    (["list", "--source", "unknown"], 2, {"numpy", "tcpwatch.sources.base"}),
    (["list"], 0, {"tcpwatch.report.summary_text", "tcpwatch.report.summary_json", "tcpwatch.exporters.records"}),
    (["list", "--json"], 0, {"tcpwatch.report.summary_text", "tcpwatch.report.summary_json"}),
    (["list", "--csv", "port:1"], 0, {"tcpwatch.report.summary_text", "tcpwatch.report.summary_json"}),
    (["list", "prt:1"], 2, {"tcpwatch.sources.base", "tcpwatch.report.list_text"}),
    (["summary"], 0, {"tcpwatch.report.list_json", "tcpwatch.report.list_text", "tcpwatch.model.query.filter"}),
    (["summary", "--json", "--for", "0.1"], 0, {"tcpwatch.report.list_json", "tcpwatch.model.query.filter"}),
    (["events", "--for", "0.1"], 0, {"tcpwatch.report.summary_text", "tcpwatch.report.list_json"}),
    (["events", "prt:1"], 2, {"tcpwatch.sources.base", "tcpwatch.report.events"}),
]
"""Arguments, exit code, and modules that must not be imported."""


@pytest.mark.parametrize("name", sorted(NEVER.union(*(absent for _, _, absent in CASES))))
def test_the_modules_exist(name: str) -> None:
    assert find_spec(name) is not None, "otherwise its absence proves nothing"


@pytest.mark.parametrize(("args", "code", "absent"), CASES)
def test_imports_of_headless_commands(args: list[str], code: int, absent: set[str], tmp_path: Path) -> None:
    ended, modules = imported(args, tmp_path)
    assert ended == code
    assert modules & (NEVER | absent) == set()
