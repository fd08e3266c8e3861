"""A short run of each target; `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_an_unexpected_exception(name: str) -> None:
    inputs, _, findings = fuzz(name, 1_000, seed=0)
    assert inputs >= 1
    assert not findings, next(iter(findings.values()))[0]
