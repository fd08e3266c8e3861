"""The list of sentences in the TOML files of this folder, one file for each module of the rules.

    [[scene]]
    said_in = "real/scenes/test_scenes.py::test_findings_of_a_scene[accept_stopped-IPv4]"
    proof = "sock_diag: more connections wait than the backlog"
    not_in = "real/scenes/test_scenes.py::test_findings_of_a_scene[healthy_load-IPv4]"
    sentences = ["{} of {} waiting"]

`said_in` is the test, below `tests`, in which a rule says these sentences, `proof` what proves there that they are
true, and `not_in` a test in which they would be false and are not said. `no_lab` says why there is no test on the real
kernel, where that cannot be. `tests/conftest.py` checks both tests while they run.
"""

import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Some sentences of one module, and the tests that say them and do not."""

    module: str
    said_in: str
    proof: str
    not_in: str
    sentences: tuple[str, ...]
    no_lab: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What one test has to say, and must not say: module and sentence."""

    said: set[tuple[str, str]] = field(default_factory=set)
    never: set[tuple[str, str]] = field(default_factory=set)


@functools.cache
def scenes() -> tuple[Scene, ...]:
    """Read all files; an unknown key is an error."""
    return tuple(
        Scene(module=path.stem, sentences=tuple(table.pop("sentences")), **table)
        for path in sorted(FOLDER.glob("*.toml"))
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["scene"]
    )


@functools.cache
def claims() -> dict[str, Claims]:
    """Return what is claimed of each test, by its name below `tests`."""
    found: dict[str, Claims] = {}
    for scene in scenes():
        these = {(scene.module, sentence) for sentence in scene.sentences}
        found.setdefault(scene.said_in, Claims()).said.update(these)
        found.setdefault(scene.not_in, Claims()).never.update(these)
    return found
