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
import json, os, sys
for args, without_numpy in json.loads(sys.argv[1]):
    if not without_numpy:
        import numpy
    pid = os.fork()
    if not pid:
        from tcpwatch.cli import commands as cli
        sys.argv = ["tcpwatch", *args]
        try:
            cli.main()
        except SystemExit as end:
            print(json.dumps([args, end.code, sorted(sys.modules)]), file=sys.stderr, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
"""Forks for each command, as most of the time of a command that ends at once is that of importing numpy."""


def imported(commands: list[tuple[list[str], bool]], home: Path) -> list[tuple[list[str], int, set[str]]]:
    """Return the arguments, the exit code and the modules imported at the end, of each command in order."""
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60, check=True)
    ends = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    return [(args, code, set(modules)) for args, code, modules in ends]


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
"""Arguments, exit code, and modules that must not be imported; those that must not import numpy come first."""


@pytest.mark.parametrize("name", sorted(NEVER.union(*(absent for _, _, absent in CASES))))
def test_the_modules_exist(name: str) -> None:
    assert find_spec(name) is not None, "otherwise its absence proves nothing"


def test_imports_of_headless_commands(tmp_path: Path) -> None:
    commands = [(args, "numpy" in absent) for args, _, absent in CASES]
    ends = imported(commands, tmp_path)
    assert [(args, code) for args, code, _ in ends] == [(args, code) for args, code, _ in CASES]
    for (args, _, modules), (_, _, absent) in zip(ends, CASES, strict=True):
        assert modules & (NEVER | absent) == set(), args
