"""The first line of every screen: source, cost, completeness and age of the data."""

from __future__ import annotations

from collections.abc import Sequence

from tcpwatch import units
from tcpwatch.model.finding import Severity
from tcpwatch.model.rules.remarks import forged_events
from tcpwatch.model.view import View
from tcpwatch.screens.shared.finding_lines import SEVERITY_SIGNS, severity_style
from tcpwatch.screens.shared.shell import app_state
from tcpwatch.widgets.lines import Line, Lines, Piece, cells_of, cropped
from tcpwatch.widgets.palette import Palette

_TICK_S = 1.0


class HeaderLine(Lines):
    """Shows the state of the app; the age is updated once a second."""

    DEFAULT_CSS = "HeaderLine { height: 1; overflow: hidden; background: $panel; }"

    def __init__(self) -> None:
        super().__init__()
        self._hidden_owners = 0

    def on_mount(self) -> None:
        """Watch the app."""
        self._tick = self.set_interval(_TICK_S, self.redraw)
        self.watch(self.app, "view", self._view_changed)
        for name in ("paused", "poll_error", "interval_s"):
            self.watch(self.app, name, self.redraw, init=False)

    def _view_changed(self, view: View | None) -> None:
        if view is not None and view.sample.source.privilege != "root":
            self._hidden_owners = view.hidden_owners
        # With a View each second the timer would only draw the line twice.
        self._tick.reset()
        self.redraw()

    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        """Return the line: the right end always, then the notices, and the facts in the cells that are left."""
        view = app_state(self).view
        right = self._liveness(view, colours)
        notices = cropped(self._notices(view, colours), width - cells_of(right) - 2)
        room = width - cells_of(right) - cells_of(notices) - 4
        left = _facts(view, app_state(self).interval_s, self._hidden_owners, room, colours)
        blanks = width - 2 - cells_of(left) - cells_of(notices) - cells_of(right)
        gap = min(2, blanks) if notices else 0
        pad = (" " * max(0, blanks - gap), colours.plain)
        return [((" ", colours.plain), *left, (" " * gap, colours.plain), *notices, pad, *right, (" ", colours.plain))]

    def _liveness(self, view: View | None, colours: Palette) -> Line:
        """Return LIVE or PAUSED, and the age of the View on screen."""
        age = units.duration(app_state(self).age_s) if view is not None else ""
        if app_state(self).paused:
            return (("‖ PAUSED", colours.warning), (f" {age}", colours.strong))
        if view is None:
            return (("○ reading", colours.dim),)
        return (("●", colours.open), (" LIVE", colours.strong), (f" {age}", colours.plain))

    def _notices(self, view: View | None, colours: Palette) -> Line:
        """Return what limits the figures on screen; empty if nothing does."""
        notices: list[Piece] = []
        if app_state(self).poll_error:
            notices.append((f"cannot read: {app_state(self).poll_error}", colours.alarm))
        if view is not None:
            notices += severity_notice(view, colours)
            if not view.sample.completeness.complete:
                notices.append((f"incomplete: {view.sample.completeness.words}", colours.warning))
            if view.pace.slowed:
                notices.append((f"slowed to {units.duration(view.pace.interval_s)} (CPU budget)", colours.warning))
        gap = ("  ", colours.plain)
        return tuple(piece for notice in notices for piece in (notice, gap))[:-1]


def severity_notice(view: View, colours: Palette) -> list[Piece]:
    """Return `▲ 2` for critical findings, or `△ 1` for warnings."""
    top = max((finding.severity for finding in view.findings), default=Severity.INFO)
    if top is Severity.INFO:
        return []
    count = sum(finding.severity is top for finding in view.findings)
    return [(f"{SEVERITY_SIGNS[top]} {count}", severity_style(top, colours))]


def _not_watched(view: View) -> str:
    """Return `3 other netns not watched`; empty if there are none with TCP sockets."""
    others = view.sample.other_namespaces
    return f"{others} other netns not watched" if others else ""


def _facts(view: View | None, interval_s: float, hidden: int, room: int, colours: Palette) -> Line:
    """Return host, source, privilege, interval and cost, without the least important if `room` is too small."""
    name: Line = (("tcpwatch", colours.strong),)
    if view is None:
        return cropped(name, room)
    source, pace = view.sample.source, view.pace
    hidden_owners = f"unprivileged: {units.plural(hidden, 'owner')} hidden" if hidden else ""
    cost = f"poll {pace.duration_s * 1000:.0f} ms {units.share(pace.core_share)}"
    ranked = [  # rank, text: a low rank is left out first
        (9, view.sample.host),
        (4, source.kind),
        (5, hidden_owners or source.privilege_text),
        (3, units.duration(interval_s)),
        (2, cost),
        (6, _not_watched(view)),
        (7, forged_events(view.sample)),
        (8, ", ".join(view.sample.unanswered)),
    ]
    items = [(rank, words) for rank, words in ranked if words]
    while items:
        joined = " · ".join(words for _, words in items)
        line: Line = (*name, ("  ", colours.plain), (joined, colours.plain))
        if cells_of(line) <= room:
            return line
        if len(items) == 1:
            break
        items.remove(min(items))
    return cropped(line, room)
