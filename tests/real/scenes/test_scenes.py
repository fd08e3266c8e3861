"""Real situations on the real kernel: each stands as its file says, and the diagnosis finds in it what the file says.

And nothing else: that a listener is healthy, or that a full queue is no flood, counts as much as what is found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import lab
from tests.lab.scenes.player import play
from tests.lab.scenes.scene import FOLDER, Condition, Scene, about, read
from tests.lab.scenes.watch import watch

SCENES = about("queues")


def require_a_stage() -> None:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))


@pytest.mark.parametrize(("scene", "family"), SCENES, ids=[f"{scene.name}-IPv{family}" for scene, family in SCENES])
def test_a_scene_is_found_to_be_what_it_is(scene: Scene, family: lab.Family) -> None:
    require_a_stage()
    with play(scene, family) as it:
        it.wait_until_it_stands()
        watch(it)


# The stage itself -----------------------------------------------------------------------------


def a_scene() -> Scene:
    return read(FOLDER / "accept_stopped.toml")


def test_a_scene_that_does_not_stand_says_what_is_missing() -> None:
    require_a_stage()
    scene = replace(a_scene(), stands=(Condition.parse("accept_queue 8080 >= 0"), Condition.parse("SynMoon > 1")))
    with pytest.raises(KeyError, match="SynMoon"), play(scene, 4) as it:
        it.wait_until_it_stands()
    scene = replace(a_scene(), stands=(Condition.parse("accept_queue 8080 > 1e6"),))
    with pytest.raises(TimeoutError, match=r"accept_queue 8080 > 1e\+06, but is \d+"), play(scene, 4) as it:
        it.wait_until_it_stands(deadline_s=0.1)


def test_a_player_who_cannot_begin_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    require_a_stage()
    with pytest.raises(RuntimeError, match="server"), play(replace(a_scene(), name="no such scene"), 4):
        pass
    assert "no such scene" in capfd.readouterr().err


def test_a_word_that_means_nothing_is_an_error(tmp_path: Path) -> None:
    text = (FOLDER / "accept_stopped.toml").read_text()
    file = tmp_path / "misspelled.toml"
    file.write_text(text.replace("backlog", "backlok"))
    with pytest.raises(TypeError, match="backlok"):
        read(file)
    file.write_text(text.replace("[[expect]]", "[[except]]"))
    with pytest.raises((TypeError, ValueError)):
        read(file)


def test_nothing_is_left_of_a_scene() -> None:
    require_a_stage()
    spoofed = read(FOLDER / "syn_flood_cookies_on.toml").spoofed
    before = traces()
    with play(replace(a_scene(), spoofed=spoofed), 4):
        assert traces() != before
    assert traces() == before


def traces() -> tuple[str, list[str], list[str]]:
    """Where the thread is, which files are open, which processes were started."""
    here = Path("/proc/thread-self")
    files = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    return str((here / "ns/net").readlink()), files, (here / "children").read_text().split()
