"""The players of a scene: separate processes, which share no interpreter lock with the program under test.

Each is `python -m tests.lab.scenes.ROLE SCENE FAMILY NAME FD...` and takes the process name NAME. It prints "ready"
when its part can begin, and ends when its standard input is closed: it never outlives the process that started it.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.scenes.scene import FOLDER, Scene, read
from tests.lab.waiting import DEADLINE_S
from tests.lab.wire.packets import Family

_PROJECT = Path(__file__).parents[3]
_READY = "ready\n"
CUE = 0  # this file descriptor becomes readable when the part is over


@contextlib.contextmanager
def start(role: str, scene: Scene, family: Family, *fds: int, name: str = "") -> Iterator[None]:
    """Let a process play a role in the thread's namespace until the end of the `with` block.

    If it fails, it writes a traceback to its standard error, and RuntimeError is raised here.
    """
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.lab.scenes.{role}", scene.name, str(family), name or role, *map(str, fds)],
        cwd=_PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    ) as process:
        try:
            _await_ready(process, role)
            yield
        finally:
            _end(process)
    if process.returncode:
        raise RuntimeError(f"the {role} of {scene.name} ended with {process.returncode}")


def _await_ready(process: subprocess.Popen[str], role: str) -> None:
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
    if not readable or process.stdout.readline() != _READY:
        raise RuntimeError(f"the {role} did not get ready")


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


# The other side ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """The arguments of the process."""

    scene: Scene
    family: Family
    name: str
    fds: tuple[int, ...]


def part() -> Part:
    """Read the arguments and set the process name, by which monitors know the process from then on.

    The process goes before others, if it may: on a busy machine a host that starves looks like loss.
    """
    with contextlib.suppress(PermissionError):
        os.nice(-15)
    scene, family, name, *fds = sys.argv[1:]
    Path("/proc/self/comm").write_text(name)
    return Part(read(FOLDER / f"{scene}.toml"), 6 if family == "6" else 4, name, tuple(map(int, fds)))


def say_ready() -> None:
    print(_READY, end="", flush=True)


def is_over(wait_s: float) -> bool:
    """Wait at most `wait_s`; return whether the part is over."""
    return bool(select.select([CUE], [], [], max(wait_s, 0))[0])
