"""Find the processes that hold sockets: with real processes, and with /proc trees made up for the purpose."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import numpy as np
import psutil
import pytest

from tcpwatch.kernel.proc import descriptors, owner_finder
from tcpwatch.kernel.proc.descriptors import Descriptors, Inodes
from tcpwatch.kernel.proc.hidden_descriptors import HiddenDescriptors
from tcpwatch.kernel.proc.owner_finder import (
    UNKNOWN_ELSEWHERE,
    UNKNOWN_NO_PROCESS,
    UNKNOWN_NOT_LOOKED,
    UNKNOWN_PERMISSION,
    UNKNOWN_PROC,
    Owner,
    OwnerFinder,
)
from tcpwatch.kernel.proc.process import Process
from tcpwatch.kernel.proc.process_table import LONGEST_INTERVAL

AMPLE = 30.0
ROOT = Path(__file__).parents[3]
HOSTILE = "[@click=app.quit]x[/]\x1b[31m\u202e"


def array(*inodes: int) -> Inodes:
    return np.array(inodes, np.uint32)


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def holders(finder: OwnerFinder, inode: int, budget_s: float = AMPLE) -> list[int] | int:
    """The pids that hold a socket, or the reason why none is known."""
    (code,) = finder.find(array(inode), budget_s).tolist()
    return [p.pid for p in finder.owners[code].processes] if code >= 0 else code


def the_process(finder: OwnerFinder, inode: int) -> Process:
    (code,) = finder.find(array(inode), AMPLE).tolist()
    owner: Owner = finder.owners[code]
    assert len(owner.processes) == 1
    return owner.processes[0]


class Tree:
    """A /proc of our own: made-up processes, and links to real ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.add(1)

    def add(self, pid: int, *inodes: int, start: int = 1, comm: str = "x", flags: int = 0) -> None:
        (self.path / str(pid) / "fd").mkdir(parents=True)
        self.rename(pid, comm, start, flags)
        for fd, inode in enumerate(inodes):
            self.open(pid, fd, inode)

    def rename(self, pid: int, comm: str, start: int = 1, flags: int = 0) -> None:
        fields = ["S", "1", "0", "0", "0", "0", str(flags), *["0"] * 12, str(start), "0"]
        (self.path / str(pid) / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")

    def open(self, pid: int, fd: int, inode: int) -> None:
        """Make it a socket; inode 0 stands for a file."""
        link = self.path / str(pid) / "fd" / str(fd)
        link.unlink(missing_ok=True)
        link.symlink_to(f"socket:[{inode}]" if inode else "/dev/null")

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.path / str(pid))

    def show(self, *names: int | str) -> None:
        """Take in something of the real /proc."""
        for name in map(str, names):
            (self.path / name).symlink_to(Path("/proc") / name)

    def hide(self, pid: int) -> None:
        (self.path / str(pid)).unlink()


# Real processes. The finder sees only those of the test, as others may have very many descriptors
# and come and go.


@pytest.fixture
def view(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


@contextmanager
def sleeper(*socks: socket.socket, name: str = "sleep") -> Iterator[int]:
    """A process that holds `socks`, and calls itself `name` in argv[0]."""
    fds = [sock.fileno() for sock in socks]
    with subprocess.Popen([name, "100"], executable="/bin/sleep", pass_fds=fds) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def python(script: str, *args: object, fds: tuple[int, ...] = ()) -> Iterator[tuple[int, str]]:
    """Run `script` in Python until the block ends; yields its pid and its first line."""
    command = [sys.executable, "-IS", "-c", script + "\nprint(flush=True)\nsys.stdin.read()"]
    with subprocess.Popen(
        [*command, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.kill()


def test_own_socket_in_the_real_proc(sock: socket.socket) -> None:
    process = the_process(OwnerFinder(), inode_of(sock))
    me = psutil.Process()
    assert (process.pid, process.name) == (os.getpid(), me.name())
    assert (process.uid, process.user) == (os.getuid(), me.username())
    assert process.started_unix_s == pytest.approx(me.create_time(), abs=1.1)  # btime in /proc/stat is in seconds
    assert process.command.split()[0] == me.cmdline()[0]


def test_a_process_with_many_sockets_and_one_with_none(view: Tree) -> None:
    script = (
        "import sys, os, socket\n"
        "s = [socket.socket() for _ in range(900)]\n"
        "print(*[os.fstat(x.fileno()).st_ino for x in s], end='')"
    )
    with python(script) as (pid, line), sleeper() as other:
        view.show(pid, other)
        finder = OwnerFinder(str(view.path))
        codes = finder.find(array(0, *map(int, line.split())), AMPLE)
    assert codes[0] == UNKNOWN_NO_PROCESS
    assert codes[1:].tolist() == [0] * 900
    assert [[p.pid for p in owner.processes] for owner in finder.owners] == [[pid]]
    assert finder.unreadable == 0


def test_a_socket_that_several_hold(view: Tree, sock: socket.socket) -> None:
    with sleeper(sock) as first, sleeper(sock) as second:
        view.show(first, second, os.getpid())
        assert holders(OwnerFinder(str(view.path)), inode_of(sock)) == sorted([os.getpid(), first, second])


def test_a_process_that_comes_later_shares_it(view: Tree, sock: socket.socket) -> None:
    view.show(os.getpid())
    finder = OwnerFinder(str(view.path))
    assert holders(finder, inode_of(sock)) == [os.getpid()]
    with sleeper(sock) as pid:
        view.show(pid)
        assert holders(finder, inode_of(sock)) == sorted([os.getpid(), pid])


def test_a_socket_passed_to_an_existing_process(view: Tree) -> None:
    script = (
        "import sys, socket\n"
        "print('ready', flush=True)\n"
        "_, fds, *_ = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)\n"
        "print('taken', flush=True)"
    )
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(ours)
        stack.enter_context(theirs)
        pid, _ = stack.enter_context(python(script, theirs.fileno(), fds=(theirs.fileno(),)))
        sock = socket.socket()
        inode = inode_of(sock)
        with sleeper(sock) as giver:
            view.show(pid, giver)
            finder = OwnerFinder(str(view.path))
            assert holders(finder, inode) == [giver]
            socket.send_fds(ours, [b"x"], [sock.fileno()])
            sock.close()
            both = sorted([pid, giver])
            until(lambda: holders(finder, inode) == both, calls=4 * LONGEST_INTERVAL)
        view.hide(giver)
        assert holders(finder, inode) == [pid]


def until(condition: Callable[[], bool], calls: int) -> None:
    """Ask again, at most `calls` times and for some seconds."""
    deadline = monotonic() + 5
    asked = 0
    while not condition():
        asked += monotonic() < deadline  # until the deadline the world may need time as well
        assert monotonic() < deadline or asked < calls, f"not within {asked} calls"


def test_the_only_holder_ends(view: Tree, sock: socket.socket) -> None:
    with sleeper(sock) as pid:
        view.show(pid)
        finder = OwnerFinder(str(view.path))
        assert holders(finder, inode_of(sock)) == [pid]
    # The link is still there: the process vanishes between the listing and the look.
    until(lambda: holders(finder, inode_of(sock)) == UNKNOWN_ELSEWHERE, 2 * LONGEST_INTERVAL)
    view.hide(pid)
    assert holders(finder, inode_of(sock)) == UNKNOWN_ELSEWHERE


def test_hostile_names_are_spelled(view: Tree, sock: socket.socket) -> None:
    script = "import sys\nopen('/proc/self/comm', 'wb').write(b'[@q]\\x1b[31m\\n\\xff')\nprint('named', end='')"
    with sleeper(sock, name=HOSTILE) as pid:
        view.show(pid)
        process = the_process(OwnerFinder(str(view.path)), inode_of(sock))
        view.hide(pid)
        assert process.name == "sleep"
        assert process.command == r"[@click=app.quit]x[/]\x1b[31m\u202e 100"
    with python(script, fds=(sock.fileno(),)) as (pid, _):
        view.show(pid)
        process = the_process(OwnerFinder(str(view.path)), inode_of(sock))
        assert process.name == r"[@q]\x1b[31m\x0a\xff"


def test_a_tiny_budget_is_enough_after_several_calls(view: Tree) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(8)]
        pids = [stack.enter_context(sleeper(sock)) for sock in socks]
        view.show(*pids)
        finder = OwnerFinder(str(view.path))
        inodes = array(*map(inode_of, socks))
        for _ in range(3 * len(pids) + 3):
            codes = finder.find(inodes, 0.0)
        pids_found = [[p.pid for p in finder.owners[code].processes] for code in codes.tolist()]
        assert pids_found == [[pid] for pid in pids]


def can_be_nobody() -> bool:
    """Root of the host can; root of a user namespace of one's own has no other user there."""
    maps = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in maps)


@pytest.mark.skipif(not can_be_nobody(), reason="only root can become another user")
def test_as_an_ordinary_user_the_reason_is_permission(sock: socket.socket) -> None:
    script = f"""
import os, socket, sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
import numpy as np
from tcpwatch.kernel.proc.owner_finder import OwnerFinder
mine = socket.socket()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
finder = OwnerFinder()
inodes = np.array([int(sys.argv[1]), 0], np.uint32)
print(*finder.find(inodes, 30.0).tolist(), finder.unreadable > 0)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, str(inode_of(sock))],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert answer.stdout.split() == [str(UNKNOWN_PERMISSION), str(UNKNOWN_NO_PROCESS), "True"]


# Real processes whose sockets are not in /proc/PID/fd

SYSCALLS = """
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
sock = socket.socket()
inode = os.fstat(sock.fileno()).st_ino
"""
HIDING = {
    "registered with an io_uring": """
ring = libc.syscall(425, 8, (ctypes.c_uint8 * 120)())  # io_uring_setup
fds = (ctypes.c_int * 2)(-1, sock.fileno())
done = ring >= 0 and libc.syscall(427, ring, 2, fds, 2) == 0  # IORING_REGISTER_FILES
error = os.strerror(ctypes.get_errno())
sock.close()
print(inode if done else "no io_uring: " + error, flush=True)
""",
    "in the table of a thread": """
ready = threading.Event()
def separate():
    libc.unshare(0x400)  # CLONE_FILES
    ready.set()
    threading.Event().wait()
threading.Thread(target=separate, daemon=True).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
ready.wait()
sock.close()
print(inode, flush=True)
""",
    "of a process whose main thread has exited": """
def wait_for_the_end():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    print(inode, flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=wait_for_the_end).start()
libc.syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit
""",
}


def first_line(line: str) -> int:
    """Return the inode; skip where the process says why it has none."""
    if not line.isdecimal():
        pytest.skip(line)
    return int(line)


def skip_where_rings_are_not_read(name: str) -> None:
    if "io_uring" in name and not descriptors.READS_RINGS:
        pytest.skip("needs Linux 6.14")


@pytest.mark.parametrize("name", HIDING)
def test_a_socket_that_the_descriptors_do_not_show(view: Tree, name: str) -> None:
    skip_where_rings_are_not_read(name)
    with python(SYSCALLS + HIDING[name]) as (pid, line), sleeper() as other:
        inode = first_line(line)
        view.show(pid, other, os.getpid())
        finder = OwnerFinder(str(view.path))
        until(lambda: holders(finder, inode) == [pid], 2)


@pytest.mark.parametrize("name", HIDING)
def test_a_socket_that_is_hidden_later(view: Tree, name: str, sock: socket.socket) -> None:
    skip_where_rings_are_not_read(name)
    view.show(os.getpid())
    finder = OwnerFinder(str(view.path))
    assert holders(finder, inode_of(sock)) == [os.getpid()]
    with python(SYSCALLS + HIDING[name]) as (pid, line):
        inode = first_line(line)
        view.show(pid)
        assert holders(finder, inode) == UNKNOWN_NOT_LOOKED, "as long as it was not looked for everywhere"
        assert holders(finder, inode) == [pid]
        assert holders(finder, inode, 0.0) == [pid]
    until(lambda: holders(finder, inode) == UNKNOWN_ELSEWHERE, 2 * LONGEST_INTERVAL)


def test_what_is_hidden_is_not_searched_for_while_nothing_is_missing(
    view: Tree, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    view.show(os.getpid())
    finder = OwnerFinder(str(view.path))
    assert holders(finder, inode_of(sock)) == [os.getpid()]
    monkeypatch.setattr(HiddenDescriptors, "scan", fail)
    assert holders(finder, inode_of(sock)) == [os.getpid()]
    assert holders(finder, 999) == UNKNOWN_NOT_LOOKED, "missing for the first time: it may have closed"
    with pytest.raises(AssertionError):
        holders(finder, 999)


# Processes made up.


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The descriptor numbers passed to os.readlink()."""
    numbers: list[str] = []
    readlink = os.readlink

    def counted(path: str, *, dir_fd: int) -> str:
        numbers.append(path)
        return readlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", counted)
    return numbers


def test_other_holders_may_exist_until_every_process_was_read(tree: Tree) -> None:
    for pid in range(10, 20):
        tree.add(pid, 100)
    finder = OwnerFinder(str(tree.path))
    found = holders(finder, 100, 0.0)
    assert isinstance(found, list) and len(found) < 10
    assert finder.has_unread
    until(lambda: holders(finder, 100, 0.0) == [*range(10, 20)] and not finder.has_unread, 40)


def test_a_ring_that_is_in_use_keeps_its_sockets(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lists nothing while it cannot lock the ring (io_uring_show_fdinfo)."""
    monkeypatch.setattr(descriptors, "READS_RINGS", True)
    tree.add(7, 100)
    (tree.path / "7" / "fd" / "9").symlink_to("anon_inode:[io_uring]")
    (tree.path / "7" / "fdinfo").mkdir()
    info = tree.path / "7" / "fdinfo" / "9"
    info.write_text("pos:\t0\nUserFiles:\t2\n    0: /var/log/socket:[501]\n    1: socket:[500]\nUserBufs:\t0\n")
    finder = OwnerFinder(str(tree.path))
    assert holders(finder, 500) == [7]
    assert holders(finder, 501) == UNKNOWN_NOT_LOOKED
    for text in ("pos:\t0\n", "UserFiles:\t2\nUserBufs:\t0\n"):
        info.write_text(text)
        for _ in range(2 * LONGEST_INTERVAL):
            assert holders(finder, 500) == [7]
    info.write_text("UserFiles:\t0\n")
    until(lambda: holders(finder, 500) == UNKNOWN_ELSEWHERE, 4 * LONGEST_INTERVAL)


def test_names_of_files_in_a_ring_of_an_older_kernel_are_no_sockets(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "READS_RINGS", False)
    tree.add(7, 100)
    (tree.path / "7" / "fd" / "9").symlink_to("anon_inode:[io_uring]")
    (tree.path / "7" / "fdinfo").mkdir()
    (tree.path / "7" / "fdinfo" / "9").write_text("UserFiles:\t1\n    0: socket:[500]\n")
    finder = OwnerFinder(str(tree.path))
    assert holders(finder, 100) == [7]
    for _ in range(3):
        assert not isinstance(holders(finder, 500), list)


def test_a_ring_is_not_read_again_at_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "READS_RINGS", True)
    tree.add(7, 100)
    (tree.path / "7" / "fd" / "9").symlink_to("anon_inode:[io_uring]")
    (tree.path / "7" / "fdinfo").mkdir()
    (tree.path / "7" / "fdinfo" / "9").write_text("UserFiles:\t1\n    0: socket:[500]\n")
    clock = iter([0.0, 0.1, 5.0, 9.9, 10.2, 10.3])
    monkeypatch.setattr(descriptors, "perf_counter", lambda: next(clock))
    table = Descriptors(f"{tree.path}/7/fd")
    assert [inode for part in table.scan(array(), True) for inode in part.tolist()] == [100, 0]
    read = [[part.tolist() for part in table.scan_registered()] for _ in range(4)]
    assert read == [[[500]], [], [], [[500]]], "a tenth of a second in ten seconds"


def test_nothing_new_reads_nothing(tree: Tree, reads: list[str]) -> None:
    tree.add(7, *range(100, 400))
    finder = OwnerFinder(str(tree.path))
    inodes = np.arange(100, 400, dtype=np.uint32)
    first = finder.find(inodes, AMPLE)
    assert len(reads) == 300
    reads.clear()
    assert finder.find(inodes, AMPLE).tolist() == first.tolist()
    assert finder.find(inodes[::-1], AMPLE).tolist() == first[::-1].tolist()
    assert finder.find(inodes[:50], AMPLE).tolist() == first[:50].tolist()
    assert not reads


def test_new_sockets_cost_only_themselves(tree: Tree, reads: list[str]) -> None:
    tree.add(7, *range(1000, 1300))
    finder = OwnerFinder(str(tree.path))
    finder.find(np.arange(1000, 1300, dtype=np.uint32), AMPLE)
    reads.clear()
    for fd in range(10):
        tree.open(7, 300 + fd, 5000 + fd)
    tree.open(7, 5, 6000)  # closed and used again: 1005 is not asked for any more
    asked = [i for i in range(1000, 1300) if i != 1005] + [*range(5000, 5010), 6000]
    assert (finder.find(array(*asked), AMPLE) == 0).all()
    assert sorted(map(int, reads)) == [5, *range(300, 310)]


def test_a_file_that_became_a_socket_is_found(tree: Tree) -> None:
    tree.add(7, 0, 200)
    finder = OwnerFinder(str(tree.path))
    assert finder.find(array(200), AMPLE).tolist() == [0]
    tree.open(7, 0, 300)
    assert finder.find(array(200, 300), AMPLE).tolist() == [0, 0]


def test_processes_with_new_sockets_are_searched_first(tree: Tree, reads: list[str]) -> None:
    tree.add(7, 100)
    tree.add(8, *[0] * 50, start=2)
    finder = OwnerFinder(str(tree.path))
    finder.find(array(100), AMPLE)
    tree.open(7, 1, 101)
    finder.find(array(100, 101), AMPLE)
    reads.clear()
    tree.open(7, 2, 102)
    finder.find(array(100, 101, 102), AMPLE)
    assert reads == ["2"]


def test_a_socket_without_holder_is_searched_once(tree: Tree, reads: list[str]) -> None:
    tree.add(7, 100, 0, 0)
    finder = OwnerFinder(str(tree.path))
    assert finder.find(array(100, 999), AMPLE).tolist() == [0, UNKNOWN_ELSEWHERE]
    reads.clear()
    assert finder.find(array(999, 100), AMPLE).tolist() == [UNKNOWN_ELSEWHERE, 0]
    assert not reads
    tree.open(7, 3, 999)
    until(lambda: holders(finder, 999) == [7], calls=LONGEST_INTERVAL + 1)


def test_not_looked_up_is_reported_until_everything_was_read(tree: Tree) -> None:
    for pid in range(10, 20):
        tree.add(pid, 100 + pid)
    finder = OwnerFinder(str(tree.path))
    assert holders(finder, 999, 0.0) == UNKNOWN_NOT_LOOKED
    answers = [holders(finder, 999, 0.0) for _ in range(48)]
    assert set(answers) == {UNKNOWN_NOT_LOOKED, UNKNOWN_ELSEWHERE}
    assert answers == sorted(answers, reverse=True)


def test_a_closed_share_is_noticed(tree: Tree) -> None:
    tree.add(7, 100)
    tree.add(8, 100)
    finder = OwnerFinder(str(tree.path))
    assert holders(finder, 100) == [7, 8]
    (tree.path / "7" / "fd" / "0").unlink()
    until(lambda: holders(finder, 100) == [8], calls=LONGEST_INTERVAL + 1)


def test_a_pid_used_again_is_another_process(tree: Tree) -> None:
    tree.add(7, 100, comm="old")
    finder = OwnerFinder(str(tree.path))
    old = the_process(finder, 100)
    tree.remove(7)
    tree.add(70)  # takes the inode of the directory, so that the next one is another
    tree.add(7, 100, start=99, comm="new")
    new = the_process(finder, 100)
    assert (old.name, new.name) == ("old", "new")
    assert new.started_unix_s > old.started_unix_s
    assert [owner.processes[0].name for owner in finder.owners] == ["old", "new"]


def test_another_name_after_exec_is_another_owner(tree: Tree) -> None:
    tree.add(7, 100, comm="sh")
    finder = OwnerFinder(str(tree.path))
    assert the_process(finder, 100).name == "sh"
    tree.rename(7, "a (b) c")
    until(lambda: the_process(finder, 100).name == "a (b) c", calls=LONGEST_INTERVAL + 1)
    assert finder.owners[0].processes[0].name == "sh"


def test_kernel_threads_are_left_alone(tree: Tree, reads: list[str]) -> None:
    tree.add(2, 100, flags=0x00200000)
    finder = OwnerFinder(str(tree.path))
    assert holders(finder, 100) == UNKNOWN_ELSEWHERE
    assert not reads


def test_a_proc_that_hides_or_is_missing(tree: Tree) -> None:
    tree.add(7, 100)
    tree.remove(1)
    finder = OwnerFinder(str(tree.path))
    assert finder.find(array(100, 999), AMPLE).tolist() == [0, UNKNOWN_PROC]
    tree.remove(7)
    assert finder.find(array(0, 100), AMPLE).tolist() == [UNKNOWN_NO_PROCESS, UNKNOWN_PROC]
    missing = OwnerFinder(str(tree.path / "missing"))
    assert missing.find(array(0, 100), 0.0).tolist() == [UNKNOWN_NO_PROCESS, UNKNOWN_PROC]
    assert missing.find(array(), 0.0).tolist() == []


def test_owners_do_not_pile_up(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_finder, "_SPARE_OWNERS", 4)
    finder = OwnerFinder(str(tree.path))
    most = 0
    for pid in range(100, 160):
        tree.add(pid, pid)
        assert holders(finder, pid) == [pid]
        tree.remove(pid)
        most = max(most, len(finder.owners))
    assert most < 20


def test_no_descriptor_is_left_open(tree: Tree) -> None:
    for pid in range(10, 20):
        tree.add(pid, 100 + pid)
    before = len(list(Path("/proc/self/fd").iterdir()))
    finder = OwnerFinder(str(tree.path))
    for _ in range(5):
        finder.find(array(999), 0.0)
    del finder
    assert len(list(Path("/proc/self/fd").iterdir())) == before
