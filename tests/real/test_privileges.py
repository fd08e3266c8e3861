"""Privileges: what is given up after the start, that everything works without it, and as an ordinary user."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tcpwatch.kernel import privileges
from tests import lab
from tests.lab.machine.requirements import tracefs
from tests.lab.waiting import wait_until
from tests.support.program import ROOT, end, monitor, read_to_the_end, start, trace_instances_of

KEPT = {"CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"}
NOBODY = 65534


def all_capabilities() -> str:
    """The program is started with more capabilities than it keeps."""
    return "" if privileges.effective() > KEPT and os.geteuid() == 0 else "needs root"


LISTEN_AS_NOBODY = f"""
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def foreign() -> Iterator[tuple[int, int]]:
    """The port and the process of a listener of another user."""
    lab.require(all_capabilities)
    command = [sys.executable, "-c", LISTEN_AS_NOBODY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()


def threads_with(pid: int) -> set[tuple[str, ...]]:
    """Return what the threads of a process may do: the values that any of them has."""
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        values = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
        found.add(tuple(values[name] for name in wanted))
    return found


MASK = f"{1 << 2 | 1 << 12 | 1 << 19:016x}"
LIMITED = {(f"{0:016x}", MASK, MASK, MASK, f"{0:016x}", "1")}


def test_every_thread_has_few_capabilities(environ: dict[str, str], foreign: object) -> None:
    headless = start(["events", "--interval", "0.1"], environ)
    try:
        wait_until(lambda: threads_with(headless.pid) == LIMITED, "the capabilities are given up", 30)
        # Also with the threads of the watches, once there is something to watch.
        wait_until(lambda: len(os.listdir(f"/proc/{headless.pid}/task")) > 1, "the watch runs", 30)
        assert threads_with(headless.pid) == LIMITED
    finally:
        headless.send_signal(signal.SIGTERM)
        end(headless)
    with monitor(environ) as (process, _):
        assert len(os.listdir(f"/proc/{process.pid}/task")) > 3
        assert threads_with(process.pid) == LIMITED


def test_what_is_kept_is_said(environ: dict[str, str], foreign: object) -> None:
    for args, kept in (
        (["--for", "0.1"], sorted(KEPT)),
        ([], sorted(KEPT - {"CAP_NET_ADMIN"})),  # nothing is opened again
        (["--source", "psutil"], sorted(KEPT - {"CAP_NET_ADMIN"})),
        (["--keep-privileges"], None),
    ):
        code, out, _ = end(start(["summary", "--json", *args], environ))
        source = json.loads(out)["source"]
        assert (code, source["privilege"], source["capabilities"]) == (0, "root", kept), args
    assert " · root, 2 caps · " in end(start(["summary"], environ))[1]


def test_all_can_be_kept(environ: dict[str, str], foreign: object) -> None:
    process = start(["events", "--keep-privileges"], environ)
    try:
        wait_until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) > 1, "the watch runs", 30)
        own = next(iter(threads_with(os.getpid())))
        assert threads_with(process.pid) == {own}
    finally:
        process.send_signal(signal.SIGTERM)
        end(process)


@pytest.mark.parametrize("source", ["sock_diag", "psutil"])
def test_owners_of_other_users(environ: dict[str, str], foreign: tuple[int, int], source: str) -> None:
    port, pid = foreign
    code, out, err = end(start(["list", "--json", "--source", source, f"port:{port}"], environ))
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert (code, row["pid"], row["pids"]) == (0, pid, [pid])
    assert source == "psutil" or err == ""


def test_the_trace(environ: dict[str, str], foreign: object) -> None:
    lab.require(tracefs)
    process = start(["events", "--json"], environ, bufsize=1)
    assert process.stdout is not None
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        wait_until(lambda: trace_instances_of(process.pid) and threads_with(process.pid) == LIMITED, "tracing", 30)
        socket.create_connection(server.getsockname()).close()
        while json.loads(process.stdout.readline())["origin"] != "trace":
            pass
    process.send_signal(signal.SIGTERM)
    assert end(process)[::2] == (128 + signal.SIGTERM, "")
    assert not trace_instances_of(process.pid)


AS_ANOTHER = """
import codecs, importlib, os, pkgutil, tcpwatch
codecs.lookup("ascii")
for module in pkgutil.walk_packages(tcpwatch.__path__, "tcpwatch."):  # while everything can be read
    importlib.import_module(module.name)
from tcpwatch.kernel import privileges
{become}
from tcpwatch.__main__ import main
main()
"""
NOBODY_IS = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
POWERLESS_ROOT = "privileges.keep_only(())"


def run_as(become: str, environ: dict[str, str], *args: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", AS_ANOTHER.format(become=become), *args]
    environ = {**environ, "PYTHONPATH": str(ROOT), "TCPWATCH_CONFIG": "", "HOME": "/nonexistent"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("become", [NOBODY_IS, POWERLESS_ROOT], ids=["user", "root without capabilities"])
def test_without_privileges(environ: dict[str, str], foreign: tuple[int, int], become: str) -> None:
    port, _ = foreign
    with closing(socket.create_server(("127.0.0.1", 0))) as own:
        ports = f"port:{port},{own.getsockname()[1]}"
        code, out, err = run_as(become, environ, "list", "--json", ports)
        rows = {row["local_port"]: row for row in map(json.loads, out.splitlines())}
        assert (code, err, set(rows)) == (0, "", {port, own.getsockname()[1]})
        hidden = rows[port] if become == POWERLESS_ROOT else rows[own.getsockname()[1]]
        assert hidden["pid"] is None and hidden["owner_unknown"]
        code, out, err = run_as(become, environ, "summary", "--json", "--for", "0.3")
        facts = json.loads(out)
        assert code == 0 and facts["flows"] is not None
        assert (facts["source"]["privilege"], facts["source"]["capabilities"]) == ("user", [])
        assert facts["counters"]["ActiveOpens"] > 0


# Nothing is written, and nothing is connected to, but what was asked for.

STRACED = "%file,%network,write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,fchmod,fchown,fsetxattr"
CALL = re.compile(r"^\d+ +(\w+)\((.*?)(?: = (-?\d+).*)?$")
READS = set(
    "openat open stat lstat newfstatat fstatat statx statfs access faccessat faccessat2 readlink readlinkat getcwd "
    "execve chdir socket bind getsockname getsockopt setsockopt recvfrom recvmsg sendto sendmsg connect socketpair "
    "getpeername listen shutdown fsconfig fsmount".split()  # the last two: a mount of tracefs that nobody else sees
)
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
INSTANCE = re.compile(r"/instances/tcpwatch-\d+")


def strace() -> str:
    """The calls of another process can be traced."""
    try:
        done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no strace"
    return done.stderr.strip()


def is_allowed(name: str, arguments: str) -> bool:
    """Return whether a call changes nothing outside, or only our own trace instance."""
    if INSTANCE.search(arguments) or '"/dev/null"' in arguments:
        return True
    if name in ("open", "openat"):
        return not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND", arguments)
    if name in ("connect", "bind", "sendto", "sendmsg"):  # nscd: the C library looks up names of users there
        return "AF_NETLINK" in arguments or "nlmsg_" in arguments or '"/var/run/nscd/socket"' in arguments
    if name == "socket":
        return arguments.startswith(("AF_NETLINK", "AF_UNIX"))
    return name in READS


def strace_to(log: Path) -> list[str]:
    return ["strace", "-f", "-qq", "-yy", "-o", str(log), "-e", f"trace={STRACED}"]


def check_calls(log: Path) -> None:
    calls = [match.groups()[:2] for match in map(CALL.match, log.read_text().splitlines()) if match]
    assert len(calls) > 100
    assert [call for call in calls if not _is_output(*call) and not is_allowed(*call)] == []
    assert list(log.parent.iterdir()) == [log]


@pytest.mark.parametrize(
    "args", [["list", "--csv"], ["summary", "--for", "0.2"], ["check"], ["events", "--for", "0.3"]], ids=" ".join
)
def test_no_call_writes_or_connects(args: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    lab.require(strace)
    log = tmp_path / "calls"
    code, _, err = end(start(args, {**environ, **NO_BYTECODE}, under=strace_to(log), cwd=tmp_path))
    assert code in (0, 1, 3), err
    check_calls(log)


def test_no_call_of_the_monitor_writes_or_connects(environ: dict[str, str], tmp_path: Path) -> None:
    lab.require(strace)
    log = tmp_path / "calls"
    with monitor({**environ, **NO_BYTECODE}, under=strace_to(log), cwd=tmp_path) as (process, leader):
        leader.write(b"23456cwq")
        read_to_the_end(leader.fileno())
        assert process.wait(60) == 0
    check_calls(log)


def _is_output(name: str, arguments: str) -> bool:
    """Return whether this writes to stdout, stderr, the program itself or a file of its trace instance."""
    to = r"[12]<|\d+<(anon_inode:\[eventfd|pipe:|UNIX-STREAM:\[\d+->\d+\]|.*/instances/tcpwatch-\d+)"
    return ("write" in name or name == "sendto") and bool(re.match(to, arguments))
