"""Every sentence of the rules is in the list of tests/sentences, with tests that exist."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.reports.situations import SITUATIONS
from tests.lab.scenes.scene import about
from tests.sentences.derive import modules, pattern, sentences
from tests.sentences.listed import scenes

ROOT = Path(__file__).parents[2]
WHAT_TO_DO = """
Each sentence needs a test on the real kernel that proves it, and one in which it would be false:
tests/sentences/listed.py says how the list is written."""


@pytest.mark.parametrize("module", modules())
def test_each_sentence_is_listed_once(module: str) -> None:
    said = sentences(modules()[module])
    listed = Counter(sentence for scene in scenes() if scene.module == module for sentence in scene.sentences)
    file = f"tests/sentences/{module}.toml"
    assert not (missing := [one for one in said if one not in listed]), f"not in {file}: {missing}{WHAT_TO_DO}"
    assert not (old := [one for one in listed if one not in said]), f"no rule says what {file} lists: {old}"
    assert not (twice := [one for one, times in listed.items() if times > 1]), f"twice in {file}: {twice}"


def test_the_tests_of_the_list_exist() -> None:
    wanted = {test for scene in scenes() for test in (scene.said_in, scene.not_in)}
    assert not (unknown := sorted(test for test in wanted if not exists(test))), unknown
    assert all(scene.module in modules() and scene.proof for scene in scenes())
    for scene in scenes():
        assert scene.said_in.startswith("real/") != bool(scene.no_lab), f"{scene.said_in}: real, or no_lab says why not"
        assert scene.said_in != scene.not_in


def exists(test: str) -> bool:
    """Return whether there is such a test; parameters are known of scenes and reports alone."""
    path, _, name = test.partition("::")
    function, _, parameters = name.removesuffix("]").partition("[")
    known = parameters_of().get(Path(path).stem)
    return function in functions(path) and (known is None or parameters in known)


@functools.cache
def parameters_of() -> dict[str, set[str]]:
    return {
        "test_scenes": {f"{scene.name}-IPv{family}" for scene, family in about("queues")},
        "test_teardown_scenes": {f"{scene.name}-IPv{family}" for scene, family in about("connections")},
        "test_public_reports": {situation.make.__name__ for situation in SITUATIONS},
    }


@functools.cache
def functions(path: str) -> set[str]:
    file = ROOT / path
    tree = ast.parse(file.read_text(encoding="utf-8") if file.exists() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_sentences_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text("""
'''A docstring is no sentence.'''
def text(number, many):
    filter = f"state:established {number}"
    few = [f"only {number}"] * many
    return f"{'at most ' * many}{units.plural(number, 'thing left')} in the {'shelves' if many else 'shelf'}", few
""")
    assert sentences(file) == ("only {}", "at most {} in the shelves", "at most {} in the shelf", "{} in the shelves",
                               "{} in the shelf")  # fmt: skip
    assert pattern("only {} left").search("3 used, only 12 left")
    assert not pattern("only {} left").search("commonly 12 left")
