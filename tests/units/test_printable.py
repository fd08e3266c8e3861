"""Hostile strings: nothing that steers a terminal or hides gets through."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpwatch.units.printable import printable

# Hypothesis leaves surrogates out unless they are asked for.
ANY_TEXT = st.text(st.characters(codec=None) | st.characters(categories=["Cs", "Cf", "Cc", "Co"]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nginx: worker process", "nginx: worker process"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\x7f", r"a\x0ab\x09c\x7f"),
        ("\x9b31m", r"\x9b31m"),
        (os.fsdecode(b"caf\xe9\x9b"), r"caf\xe9\x9b"),
        ("\u202egpj.exe\u2066", r"\u202egpj.exe\u2066"),
        ("a\u200bb\u200dc\ufeffd", r"a\u200bb\u200dc\ufeffd"),
        ("\ue000\U000f0000", r"\ue000\U000f0000"),
        ("\u3164\u2800\U000e0100", r"\u3164\u2800\U000e0100"),
        ("\u2028\u00a0", r"\u2028\xa0"),
        ("日本語 café 🚀 ❤️", "日本語 café 🚀 ❤️"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
        (r"C:\x1b", r"C:\x1b"),
        ("", ""),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_too_long_ends_with_an_ellipsis_and_not_within_an_escape() -> None:
    assert printable("a" * 11, 10) == "a" * 9 + "…"
    assert printable("a" * 10, 10) == "a" * 10
    assert printable("abcdef\x1b\x1b", 10) == "abcdef…"
    assert printable("\x1b" * 3, 1) == "…"


@given(ANY_TEXT, st.integers(1, 40))
def test_always_printable_bounded_and_stable(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert printable(shown, limit) == shown
    shown.encode()
