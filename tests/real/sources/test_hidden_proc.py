"""The headless commands where /proc shows only a part of what it usually shows."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import lab

ROOT = Path(__file__).parents[3]
_SUBSET = "mount -t proc -o subset=pid proc /proc"
_NONE = "mount -t tmpfs none /proc"


def mount_namespace() -> str:
    """Mounts can be changed where no other process sees it."""
    done = subprocess.run(["unshare", "-m", "sh", "-c", _SUBSET], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def tcpwatch(mount: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tcpwatch after that mount."""
    lab.require(lab.program("unshare"), mount_namespace)
    command = shlex.join([sys.executable, "-m", "tcpwatch", *arguments])
    shell = ["unshare", "-m", "sh", "-c", f"{mount} && exec {command}"]
    return subprocess.run(shell, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)


@pytest.mark.parametrize("mount", [_SUBSET, _NONE])
def test_rows_and_what_is_missing(namespace: lab.Namespace, mount: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = tcpwatch(mount, "list", "--json")
        (row,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert (done.returncode, row["local_port"]) == (0, server.getsockname()[1])
        assert "no sysctls (/proc/sys/net is not visible)" in done.stderr
        assert ("no counters" in done.stderr) == (mount == _NONE)
        assert (row["process"] is None) == (mount == _NONE)


def test_a_finding_says_that_limits_are_unknown(namespace: lab.Namespace) -> None:
    done = tcpwatch(_SUBSET, "check", "--for", "0.5", "--interval", "0.1")
    assert done.returncode == 1, done.stderr
    assert "data-incomplete" in done.stdout and "no sysctls" in done.stdout
