"""The axis of the timelines: cells and times, what a person does to the window, the ticks, and a flow's cells."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from tcpwatch.model.lifecycle.ending import Ending
from tcpwatch.model.lifecycle.transitions import Origin
from tcpwatch.model.query.filter import Filter
from tcpwatch.model.query.timeline import Timeline, timelines_at
from tcpwatch.model.query.timeline_arrangement import TimelineArranger
from tcpwatch.model.states import FACTS, State
from tcpwatch.screens.shared.state_marks import STATE_LETTERS
from tcpwatch.screens.timelines.axis import ZOOM_STEPS_S, TimeAxis, TimeWindow, snap_to_flow, window_around
from tcpwatch.screens.timelines.cells import ENDINGS, MARKS, line_pieces
from tcpwatch.screens.timelines.ruler import ruler_pieces, tick_s, ticks
from tcpwatch.widgets.palette import Palette
from tests.support.records import closed_flow, make_archive, polled, traced
from tests.support.views import NOW, make_view, sock

NULL = Style.null()
COLOURS = Palette(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)


pytestmark = pytest.mark.usefixtures("utc")


# Cells and times

spans = st.sampled_from(ZOOM_STEPS_S)
widths = st.integers(4, 200)
offsets = st.floats(-1e5, 1e5)


@given(spans, widths, st.floats(0, 1), st.floats(0, 1))
def test_cells_follow_time(span: float, cells: int, one: float, other: float) -> None:
    axis = TimeAxis(NOW, span, cells)
    first, second = sorted((one, other))
    assert axis.cell(NOW + first * span) <= axis.cell(NOW + second * span)
    assert 0 <= axis.cell(axis.middle(0)) <= axis.cell(axis.middle(cells - 1)) == cells - 1


@given(spans, widths, offsets)
def test_who_follows_sees_now_in_the_last_cell(span: float, cells: int, offset: float) -> None:
    now = NOW + offset
    axis = TimeWindow(span).axis(now, cells)
    assert axis.right - axis.cell_s - 1e-6 <= now <= axis.right + 1e-6
    assert TimeWindow(span).cursor_cell(now, cells) >= cells - 2


keys = st.lists(
    st.tuples(st.sampled_from(["moved", "zoomed", "panned"]), st.sampled_from([-1, 1])), min_size=1, max_size=60
)


@given(keys, widths, offsets)
@example([("moved", -1), ("zoomed", -1), ("moved", 1), ("moved", 1)], 4, 0.0)
def test_the_cursor_is_in_sight_and_never_after_now(pressed: list[tuple[str, int]], cells: int, offset: float) -> None:
    window, now = TimeWindow(), NOW + offset
    for what, by in pressed:
        window = getattr(window, what)(by * 0.5 if what == "panned" else by, now, cells)
        axis, at = window.axis(now, cells), window.cursor_time(now)
        assert at <= now
        assert -1e-6 <= at - axis.left <= axis.span_s + 1e-6
        assert 0 <= window.cursor_cell(now, cells) < cells


@given(spans, widths, st.integers(0, 199), st.sampled_from([-1, 1]))
def test_zoom_keeps_the_cursors_time_and_cell(span: float, cells: int, cell: int, by: int) -> None:
    axis = TimeAxis(NOW - span, span, cells)
    window = TimeWindow(span, (axis.left, axis.middle(cell % cells)))
    zoomed = window.zoomed(by, NOW, cells)
    assert zoomed.cursor_time(NOW) == window.cursor_time(NOW)
    assert zoomed.cursor_cell(NOW, cells) == window.cursor_cell(NOW, cells) or axis.cell_s < 1e-5
    assert zoomed.span_s in ZOOM_STEPS_S


def test_zoom_has_steps_and_ends() -> None:
    window = TimeWindow()
    for by, end in ((-1, ZOOM_STEPS_S[0]), (1, ZOOM_STEPS_S[-1])):
        for _ in ZOOM_STEPS_S:
            window = window.zoomed(by, NOW, 40)
            assert window.follows
        assert window.span_s == end
    assert TimeWindow(7.0).zoomed(-1, NOW, 40).span_s == 5.0
    assert TimeWindow(7.0).zoomed(1, NOW, 40).span_s == 10.0


def test_moving_holds_and_pans_at_the_edges() -> None:
    window = TimeWindow(40.0).moved(-1, NOW, 40)
    assert not window.follows
    left = window.axis(NOW, 40).left
    for _ in range(38):
        window = window.moved(-1, NOW, 40)
    assert (window.cursor_cell(NOW, 40), window.axis(NOW, 40).left) == (0, left)
    window = window.moved(-1, NOW, 40)
    assert (window.cursor_cell(NOW, 40), window.axis(NOW, 40).left) == (0, left - 1)
    window = window.moved(39, NOW, 40).moved(1, NOW, 40)
    assert (window.cursor_cell(NOW, 40), window.axis(NOW, 40).left) == (39, left)
    assert window.moved(1, NOW, 40).axis(NOW, 40).left == left, "there is nothing after now"


def test_pan() -> None:
    window = TimeWindow(40.0).panned(-0.5, NOW, 40)
    assert window.cursor_time(NOW) == NOW - 20
    assert window.panned(0.5, NOW, 40).panned(0.5, NOW, 40).cursor_time(NOW) == NOW


def test_fit_shows_all_of_a_flow() -> None:
    for begin, end in ((NOW - 30, NOW - 2), (NOW, NOW), (NOW - 1e6, NOW)):
        axis = window_around(begin, end).axis(NOW, 40)
        assert axis.cell(begin) in (1, 2)
        assert axis.cell(end) < 40 or axis.span_s == ZOOM_STEPS_S[-1]


def test_a_short_flow_is_looked_at_wherever_in_its_cell_the_cursor_is() -> None:
    axis = TimeAxis(NOW, 40.0, 40)
    assert snap_to_flow(NOW + 5.5, axis, NOW + 5.1, NOW + 5.2) == NOW + 5.2
    assert snap_to_flow(NOW + 5.5, axis, NOW + 5.7, NOW + 9) == NOW + 5.7
    assert snap_to_flow(NOW + 5.5, axis, NOW + 1, NOW + 9) == NOW + 5.5
    assert snap_to_flow(NOW + 6.5, axis, NOW + 5.1, NOW + 5.2) == NOW + 6.5


# Ticks


@given(st.floats(0.001, 86_400), widths, offsets)
def test_ticks_stand_at_their_times_and_do_not_touch(span: float, cells: int, offset: float) -> None:
    axis = TimeAxis(NOW + offset, span, cells)
    found = ticks(axis)
    ends = [cell + len(label) + 1 for cell, label in found]
    assert all(end <= cell for end, (cell, _) in zip(ends, found[1:], strict=False))
    assert all(0 <= cell < cells for cell, _ in found)
    line = ruler_pieces(axis, cells // 2, COLOURS)
    assert sum(cell_len(text) for text, _ in line) == cells
    assert cells < 20 or found or tick_s(axis, 10) > axis.span_s / 2


@pytest.mark.parametrize(("span", "cells", "expected"), [
    (40, 40, [(0, "22:13:20"), (10, "22:13:30"), (20, "22:13:40"), (30, "22:13:50")]),
    (3600, 60, [(6, "22:20"), (16, "22:30"), (26, "22:40"), (36, "22:50"), (46, "23:00"), (56, "23:10")]),
    (1, 50, [(0, ":20.0"), (10, ":20.2"), (20, ":20.4"), (30, ":20.6"), (40, ":20.8")]),
    (0.001, 20, [(0, ":20.0000"), (10, ":20.0005")]),
    (86_400, 30, [(2, "00:00"), (17, "12:00")]),
])  # fmt: skip
def test_labels(span: float, cells: int, expected: list[tuple[int, str]]) -> None:
    assert [(cell, label) for cell, label in ticks(TimeAxis(NOW, span, cells))] == expected


# Cells of a flow


def drawn(one: Timeline, begin: float, end: float, cells: int = 40) -> str:
    """Seconds before NOW."""
    line = line_pieces(one, TimeAxis(NOW - begin, begin - end, cells), None, COLOURS)
    return "".join(text for text, _ in line)


def made(*told: list, ending: Ending | None = None, end: float = 0, **given: object) -> Timeline:  # type: ignore[type-arg]
    flow = sock("ESTAB", "10.0.0.1:443", "10.0.0.9:4000", cookie=7, age_s=100)
    known = {7: [one for some in told for one in some]}
    if ending is None:
        view = make_view(flow, archive=make_archive(changes=known))
    else:
        view = make_view(archive=make_archive(closed_flow(flow, 100, end, ending, **given), changes=known))  # type: ignore[arg-type]
    return timelines_at(TimelineArranger().arrange(view, Filter()), 0, 1)[0]


def test_a_state_is_its_letter_and_its_line() -> None:
    one = made(traced(35, "SYN_RCVD", 30, "ESTAB", 10, "CLOSE_WAIT"))
    assert drawn(one, 40, 0) == "     R┄┄┄┄E━━━━━━━━━━━━━━━━━━━C╍╍╍╍╍╍╍╍╍╍"[:40]
    assert drawn(one, 20, 0) == "E" + "━" * 19 + "C" + "╍" * 19, "clipped, the letter stays in sight"


def test_the_longest_state_has_the_cell_and_of_equals_the_later() -> None:
    one = made(traced(35, "SYN_RCVD", 34.9, "ESTAB", 20.5, "FIN_WAIT_1", 20.2, "FIN_WAIT_2"))
    assert drawn(one, 40, 0) == "     E" + "━" * 13 + "━" + "2" + "╍" * 19
    even = made(traced(35, "SYN_RCVD", 34.5, "ESTAB"))
    assert drawn(even, 40, 0)[5] == "E"


@pytest.mark.parametrize("ending", list(Ending))
def test_a_flow_shorter_than_a_cell_is_its_mark(ending: Ending) -> None:
    one = made(traced(20.5, "SYN_RCVD", 20.499, "ESTAB", 20.498, None), ending=ending, end=20.498)
    assert drawn(one, 40, 0) == " " * 19 + ENDINGS[ending] + " " * 20


def test_the_end_of_a_longer_one() -> None:
    one = made(traced(30, "ESTAB", 10.5, None), ending=Ending.RESET_SENT, end=10.5)
    assert drawn(one, 40, 0) == " " * 10 + "E" + "━" * 18 + "x" + " " * 10
    assert drawn(one, 8, 0).strip() == ""


def test_time_wait_tells_an_orderly_end_by_itself() -> None:
    told = traced(30, "ESTAB", 20.5, "FIN_WAIT_1", 20.4, "TIME_WAIT", 5.5, None)
    one = made(told, ending=Ending.BY_US, end=20.4)
    assert drawn(one, 40, 0) == " " * 10 + "E" + "━" * 9 + "T" + "┈" * 14 + " " * 5
    only = made(polled(30, "TIME_WAIT", 10, None), ending=Ending.BY_US, end=10, begin_slack=float("nan"))
    assert drawn(only, 40, 0).rstrip().endswith("┈~|")


def test_what_a_poll_cannot_tell_is_drawn_as_unsure() -> None:
    one = made(polled(30, "ESTAB", 20, "CLOSE_WAIT", slack_s=3))
    assert drawn(one, 40, 0) == " " * 7 + "~~~E━━━━━━~~~C" + "╍" * 19
    assert "~" not in drawn(one, 400, 0), "less than a cell"
    brief = made(polled(20, "ESTAB", 17, "CLOSE_WAIT", slack_s=3))
    assert drawn(brief, 40, 0) == " " * 17 + "~~~E~~C" + "╍" * 16, "each state has its letter, sure or not"


def test_what_was_there_before_us_has_no_beginning() -> None:
    flow = sock("ESTAB", "10.0.0.1:443", "10.0.0.9:4000", age_s=30, begin_seen=False)
    one = timelines_at(TimelineArranger().arrange(make_view(flow), Filter()), 0, 1)[0]
    assert drawn(one, 40, 0) == " " * 9 + "…E" + "━" * 29


@given(st.floats(-10, 200), st.floats(0.001, 400), widths)
def test_a_line_has_exactly_the_cells_of_its_axis(begin: float, span: float, cells: int) -> None:
    told = [*polled(100, "SYN_RCVD", 90, "ESTAB", 40, "FIN_WAIT_1"), *traced(39.5, "TIME_WAIT", 20, None)]
    for one in (made(told), made(told, ending=Ending.BY_US, end=39.5, origin=Origin.TRACE)):
        line = line_pieces(one, TimeAxis(NOW - begin, span, cells), cells // 2, COLOURS)
        assert sum(cell_len(text) for text, _ in line) == cells


def test_every_state_and_every_ending_has_a_sign_of_its_own() -> None:
    letters = {STATE_LETTERS[state] for state in State if state is not State.CLOSED}
    assert letters.isdisjoint(ENDINGS.values())
    assert set(ENDINGS) == set(Ending)
    assert set(STATE_LETTERS) == set(FACTS)
    explained = "".join(sign for sign, _ in MARKS)
    assert set(ENDINGS.values()) <= set(explained)
