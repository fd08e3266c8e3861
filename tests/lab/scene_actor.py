"""The players of a scene: processes of their own, which share no interpreter lock with the program under test.

Each is `python -m tests.lab.scene_ROLE SCENE FAMILY ...`, says "ready" when its part can begin, and ends when its
standard input does: it does not outlive whoever started it, whatever happens there.
"""

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.lab.packets import Family
from tests.lab.scene import FOLDER, Scene, read
from tests.lab.waiting import DEADLINE_S

_PROJECT = Path(__file__).parents[2]
_READY = "ready\n"
CUE = 0  # the file descriptor that becomes readable when the part is over


@contextlib.contextmanager
def start(role: str, scene: Scene, family: Family, *fds: int) -> Iterator[None]:
    """Let a process play a role in the thread's namespace for the length of the `with` block.

    What it could not do to the end is an error: a traceback on its standard error, RuntimeError here.
    """
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.lab.scene_{role}", scene.name, str(family), *map(str, fds)],
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


def part() -> tuple[Scene, Family, list[int]]:
    """The arguments of the process: its scene, the family, file descriptors."""
    name, family, *fds = sys.argv[1:]
    return read(FOLDER / f"{name}.toml"), 6 if family == "6" else 4, [int(fd) for fd in fds]


def say_ready() -> None:
    print(_READY, end="", flush=True)


def is_over(wait_s: float) -> bool:
    """Wait so long at most; whether the part has been ended."""
    return bool(select.select([CUE], [], [], max(wait_s, 0))[0])
