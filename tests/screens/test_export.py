"""Exports: where they go, what they are called, what is left of them, and what they say."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcpwatch.screens.shared import export
from tcpwatch.screens.shared.export import Export, export_is_running, finish_exports, write_new

NAME = "tcpwatch.csv"
BLOCKS = ("a,b\n", "1,é\n")
TEXT = "".join(BLOCKS)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """The current, the home and the temporary directory."""
    folders = (tmp_path / "here", tmp_path / "home", tmp_path / "tmp")
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    monkeypatch.setenv("HOME", str(folders[1]))
    monkeypatch.setenv("TMPDIR", str(folders[2]))
    return folders


def test_no_file_is_replaced_and_no_link_followed(places: tuple[Path, ...]) -> None:
    here, home, _ = places
    (here / NAME).symlink_to(home / "target")
    (here / "tcpwatch-2.csv").write_text("mine")
    (here / f"{NAME}.part").symlink_to(home / "target")
    before = set(here.iterdir())
    assert [write_new(NAME, BLOCKS) for _ in range(2)] == [here / "tcpwatch-3.csv", here / "tcpwatch-4.csv"]
    assert (here / "tcpwatch-3.csv").read_text(encoding="utf-8") == TEXT
    assert (here / "tcpwatch-2.csv").read_text() == "mine"
    assert not (home / "target").exists()
    assert len(set(here.iterdir()) - before) == 2


def test_a_name_that_is_taken_meanwhile(places: tuple[Path, ...]) -> None:
    here = places[0]

    def blocks() -> Iterator[str]:
        (here / NAME).write_text("other")
        yield TEXT

    assert write_new(NAME, blocks()) == here / "tcpwatch-2.csv"
    assert (here / NAME).read_text() == "other" and len(list(here.iterdir())) == 2


def test_a_file_system_without_hard_links(places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    here = places[0]
    (here / NAME).write_text("other")
    monkeypatch.setattr(os, "link", _not_permitted)
    assert write_new(NAME, BLOCKS) == here / "tcpwatch-2.csv"
    assert sorted(path.read_text(encoding="utf-8") for path in here.iterdir()) == sorted([TEXT, "other"])


def _not_permitted(source: Path, target: Path) -> None:
    if target.exists():
        raise FileExistsError(errno.EEXIST, "File exists")
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_the_first_directory_that_can_be_written(broken: int, places: tuple[Path, ...]) -> None:
    for folder in places[:broken]:  # a deleted one cannot be written, not even by root
        folder.rmdir()
    if broken < 3:
        assert write_new(NAME, BLOCKS) == places[broken] / NAME
    else:
        with pytest.raises(OSError) as failed:
            write_new(NAME, BLOCKS)
        assert failed.value.filename == str(places[1] / NAME)


def test_a_full_disk_leaves_nothing(places: tuple[Path, ...]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # SIGXFSZ is ignored by Python
    try:
        with pytest.raises(OSError, match=f"File too large: '{places[0] / NAME}'"):
            write_new(NAME, ["x" * 7_000] * 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not any(list(folder.iterdir()) for folder in places)


@pytest.fixture
def started() -> Iterator[Callable[[Iterator[str]], tuple[Export, threading.Event]]]:
    """Starts an export, and returns it and an event that it has ended."""

    def start(blocks: Iterator[str]) -> tuple[Export, threading.Event]:
        ended = threading.Event()
        return Export(NAME, "2 flows", blocks, lambda _: ended.set()), ended

    finish_exports()  # those of other tests
    yield start
    finish_exports()


Start = Callable[[Iterator[str]], tuple[Export, threading.Event]]


def test_an_export_that_is_left_at_the_end_is_finished(started: Start, places: tuple[Path, ...]) -> None:
    going = threading.Event()

    def blocks() -> Iterator[str]:
        going.wait(30)
        yield TEXT

    left, _ = started(blocks())
    threading.Timer(0.02, going.set).start()
    assert finish_exports() == [left]
    assert (left.failed, left.message) == (False, f"2 flows written to {places[0] / NAME}")
    assert finish_exports() == [] and (places[0] / NAME).read_text(encoding="utf-8") == TEXT


def test_an_export_that_takes_too_long_is_given_up(
    started: Start, places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_FINISH_S", 0.02)
    monkeypatch.setattr(export, "_GIVE_UP_S", 30.0)

    def endless() -> Iterator[str]:
        while True:
            yield TEXT

    left, _ = started(endless())
    assert finish_exports() == [left] and left.failed
    assert left.message == f"cannot write {places[0] / NAME}: not finished before the end of tcpwatch"
    assert list(places[0].iterdir()) == []


def test_an_export_that_hangs(started: Start, places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_FINISH_S", 0.01)
    monkeypatch.setattr(export, "_GIVE_UP_S", 0.01)
    hangs, going = threading.Event(), threading.Event()

    def hanging() -> Iterator[str]:
        hangs.set()
        going.wait(30)
        yield ""

    left, ended = started(hanging())
    assert hangs.wait(30) and export_is_running()
    assert finish_exports() == [left] and left.failed
    assert list(places[0].iterdir()) == []
    assert left.message == "2 flows not written: it takes too long"
    going.set()
    assert ended.wait(30) and list(places[0].iterdir()) == []


def test_a_result_that_has_been_read_is_not_repeated(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for seen_s, again in ((2.0, 1), (0.0, 0)):
        monkeypatch.setattr(export, "_SEEN_S", seen_s)
        left, ended = started(iter(BLOCKS))
        assert ended.wait(30) and "written to" in left.report()
        assert len(finish_exports()) == again


def test_a_bug_is_reported(started: Start, places: tuple[Path, ...]) -> None:
    def crashing() -> Iterator[str]:
        yield "1\n"
        raise ValueError("[/x]\x1b")

    left, ended = started(crashing())
    assert ended.wait(30)
    assert left.failed and left.message == "cannot write tcpwatch.csv: internal error: ValueError: [/x]\\x1b"
    assert list(places[0].iterdir()) == []
