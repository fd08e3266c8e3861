"""Scenes about queues on the real kernel: each scene comes about, and has exactly the findings that its file expects.

That a healthy listener or a full queue without a flood has no finding counts as much as the findings.
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
def test_findings_of_a_scene(scene: Scene, family: lab.Family) -> None:
    require_a_stage()
    with play(scene, family) as it:
        it.wait_until_it_stands()
        watch(it)


# The stage itself -----------------------------------------------------------------------------


def a_scene() -> Scene:
    return read(FOLDER / "accept_stopped.toml")


def test_a_scene_that_fails_names_the_missing_conditions() -> None:
    require_a_stage()
    scene = replace(a_scene(), stands=(Condition.parse("accept_queue 8080 >= 0"), Condition.parse("SynMoon > 1")))
    with pytest.raises(KeyError, match="SynMoon"), play(scene, 4) as it:
        it.wait_until_it_stands()
    scene = replace(a_scene(), stands=(Condition.parse("accept_queue 8080 > 1e6"),))
    with pytest.raises(TimeoutError, match=r"accept_queue 8080 > 1e\+06, but is \d+"), play(scene, 4) as it:
        it.wait_until_it_stands(deadline_s=0.1)


def test_the_error_of_a_failing_player_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    require_a_stage()
    with pytest.raises(RuntimeError, match="server"), play(replace(a_scene(), name="no such scene"), 4):
        pass
    assert "no such scene" in capfd.readouterr().err


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    text = (FOLDER / "accept_stopped.toml").read_text()
    file = tmp_path / "misspelled.toml"
    file.write_text(text.replace("backlog", "backlok"))
    with pytest.raises(TypeError, match="backlok"):
        read(file)
    file.write_text(text.replace("[[expect]]", "[[except]]"))
    with pytest.raises((TypeError, ValueError)):
        read(file)


def test_a_scene_leaves_nothing_behind() -> None:
    require_a_stage()
    spoofed = read(FOLDER / "syn_flood_cookies_on.toml").spoofed
    before = traces()
    with play(replace(a_scene(), spoofed=spoofed), 4):
        assert traces() != before
    assert traces() == before


def traces() -> tuple[str, list[str], list[str]]:
    """Return the namespace of the thread, the open files, and the child processes."""
    here = Path("/proc/thread-self")
    files = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    return str((here / "ns/net").readlink()), files, (here / "children").read_text().split()
