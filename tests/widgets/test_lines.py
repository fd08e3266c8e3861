"""Lines under the cursor."""

from __future__ import annotations

from rich.style import Style

from tcpwatch.widgets.lines import overlay_style

RED, REVERSE = Style(color="red"), Style(reverse=True)


def test_the_bars_of_a_reversed_line_are_not_reversed() -> None:
    line = (("12 ", RED), ("██▌ ", RED), ("▁▃", Style.null()))
    shown = overlay_style(line, 12, REVERSE)
    assert "".join(text for text, _ in shown) == "12 ██▌ ▁▃   "
    assert [bool(style.reverse) for _, style in shown] == [True, False, False, True]
    assert shown[1][1].color == RED.color


def test_a_line_with_a_background_keeps_it_below_its_bars() -> None:
    band = Style(bgcolor="blue")
    assert overlay_style((("█", RED),), 1, band)[0] == ("█", RED + band)
