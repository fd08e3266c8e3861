"""RLIMIT_NOFILE of processes, against getrlimit(2)."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tcpwatch.kernel.proc import limits
from tcpwatch.kernel.proc.limits import DescriptorLimits, descriptor_limit


def test_our_own() -> None:
    assert descriptor_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ("Limit  Soft  Hard  Units\nMax open files            1024                 524288               files\n", 1024),
        ("Max open files            unlimited            unlimited            files\n", None),
        ("Max stack size            8388608              unlimited            bytes\n", None),
        ("", None),
    ],
)
def test_limit_from_the_file(content: str, limit: int | None, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "limits").write_text(content)
    assert descriptor_limit(7, str(tmp_path)) == limit
    assert DescriptorLimits(str(tmp_path)).lookup([7, 8]) == ({} if limit is None else {7: limit})


def test_a_limit_is_read_again_after_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    file, now = tmp_path / "7" / "limits", 100.0
    monkeypatch.setattr(limits, "monotonic", lambda: now)
    known = DescriptorLimits(str(tmp_path))
    for second, expected in ((0, 1), (29, 1), (31, 32)):
        file.write_text(f"Max open files {second + 1} 99 files\n")
        now = 100.0 + second
        assert known.lookup([7]) == {7: expected}
