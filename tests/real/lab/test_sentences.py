"""The tests that tests/sentences names exist with these parameters; only pytest knows them all."""

from __future__ import annotations

import pytest

from tests.sentences.listed import claims


def test_the_named_tests_are_collected(request: pytest.FixtureRequest) -> None:
    config = request.config
    if config.option.keyword or any("::" in arg for arg in config.args):
        pytest.skip("not all tests of each file are selected")
    collected = {item.nodeid.removeprefix("tests/") for item in request.session.items}
    files = {test.partition("::")[0] for test in collected}
    assert not [test for test in claims() if test.partition("::")[0] in files and test not in collected]
