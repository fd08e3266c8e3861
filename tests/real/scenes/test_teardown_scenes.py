"""Real ports, teardowns, losses and windows on the real kernel: each stands as its file says, and is found to be that.

And nothing else: the neighbours of what is wrong, a proxy under load, a path that loses little, are met with silence.
"""

from __future__ import annotations

import pytest

from tests import lab
from tests.lab.scenes.player import play
from tests.lab.scenes.scene import Scene, about
from tests.lab.scenes.watch import watch

SCENES = about("connections")


@pytest.mark.parametrize(("scene", "family"), SCENES, ids=[f"{scene.name}-IPv{family}" for scene, family in SCENES])
def test_a_scene_is_found_to_be_what_it_is(scene: Scene, family: lab.Family) -> None:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))
    with play(scene, family) as it:
        it.wait_until_it_stands()
        watch(it)
