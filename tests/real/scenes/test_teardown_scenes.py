"""Scenes about ports, teardown, loss and windows on the real kernel, with exactly the findings that their files expect.

Healthy neighbours of a faulty application, a proxy under load, and a path with little loss have no finding.
"""

from __future__ import annotations

import pytest

from tests import lab
from tests.lab.scenes.player import play
from tests.lab.scenes.scene import Scene, about
from tests.lab.scenes.watch import watch

SCENES = about("connections")


@pytest.mark.parametrize(("scene", "family"), SCENES, ids=[f"{scene.name}-IPv{family}" for scene, family in SCENES])
def test_findings_of_a_scene(scene: Scene, family: lab.Family) -> None:
    lab.require(lab.namespaces, lab.tun, lab.ipv6, lab.program("ip"))
    with play(scene, family) as it:
        it.wait_until_it_stands()
        watch(it)
