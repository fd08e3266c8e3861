"""Help: the keys of a screen, columns, states and their spellings, the filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from typing_extensions import override

from tcpwatch.model.columns.columns import IN_TABLE, MARK_SIGNS
from tcpwatch.model.query.filter import HELP
from tcpwatch.model.sockets.rows import Mark
from tcpwatch.model.states import FACTS, STATE_ORDER, State
from tcpwatch.screens.main import MainScreen
from tcpwatch.screens.shared.header_line import HeaderLine
from tcpwatch.widgets.footer_line import FooterLine
from tcpwatch.widgets.lines import Line, title_rule
from tcpwatch.widgets.palette import Palette
from tcpwatch.widgets.reader import Reader
from tcpwatch.widgets.sections import Entry, Section, column_lines

_MARKS = {Mark.NEW: "appeared since the last poll", Mark.CHANGED: "changed state", Mark.CLOSED: "closed"}


@runtime_checkable
class HasHelp(Protocol):
    """A page or screen with help sections."""

    def help_sections(self) -> Sequence[Section]:
        """Return the meaning of its columns and signs."""


class HelpScreen(Screen[None], inherit_bindings=False):
    """Explains the screen below it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "back")]

    def __init__(self, keys: Sequence[Entry], about: Sequence[Section] = ()) -> None:
        super().__init__()
        self._keys, self._about = keys, about

    @classmethod
    def of(cls, screen: Screen[Any]) -> HelpScreen:
        """Return the help for this screen, with the keys that are active now."""
        return cls(keys_of(screen), help_sections_of(screen))

    @override
    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield _Help(self._keys, self._about)
        yield FooterLine()

    def on_mount(self) -> None:
        """Focus the text."""
        self.query_one(_Help).focus()


class _Help(Reader):
    """The text of the screen."""

    def __init__(self, keys: Sequence[Entry], about: Sequence[Section]) -> None:
        super().__init__()
        self._keys, self._about = keys, about

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        sections = [
            Section("Keys of this screen", self._keys, 18),
            *self._about,
            Section("Filter", [Entry(term, meaning) for term, meaning in HELP], 20),
            Section("Columns", [Entry(column.title, column.help) for column in IN_TABLE], 10),
            Section("Marks", [Entry(MARK_SIGNS[mark], meaning) for mark, meaning in _MARKS.items()], 3),
            *_states(),
        ]
        return [title_rule("Help", width, colours), *column_lines(sections, width, colours)]


def help_sections_of(screen: Screen[Any]) -> Sequence[Section]:
    """Return the help sections of the screen, or of its page."""
    shown = screen.page if isinstance(screen, MainScreen) else screen
    return shown.help_sections() if isinstance(shown, HasHelp) else ()


def keys_of(screen: Screen[Any]) -> list[Entry]:
    """Return every key that is active on the screen; keys with the same description share an entry."""
    keys: dict[str, list[str]] = {}
    for _, binding, enabled, _ in screen.active_bindings.values():
        # system bindings such as ctrl+q come from Textual.
        if enabled and binding.description and not binding.system:
            shown = screen.app.get_key_display(binding)
            keys.setdefault(binding.tooltip or binding.description, []).append(shown)
    return [Entry(" ".join(shown), description) for description, shown in keys.items()]


def _states() -> list[Section]:
    return [
        Section("States", [_state(state) for state in STATE_ORDER], 12),
        Section("Spellings", [
            Entry("", "A state may be typed in any case, with -, _ or nothing between the words, as ss spells it, in "
                  "Chinese, or as below."),
            *map(_spelled, STATE_ORDER),
            Entry("", "CLOSED_WAIT1 and CLOSE_WAIT2 are what some documents call the two ends after the first FIN: "
                  "they are accepted with that meaning, FIN_WAIT_1 and CLOSE_WAIT."),
        ], 12),
    ]  # fmt: skip


def _state(state: State) -> Entry:
    facts = FACTS[state]
    return Entry(state.name, f"{facts.side} · {facts.meaning}")


def _spelled(state: State) -> Entry:
    facts = FACTS[state]
    return Entry(state.name, ", ".join(dict.fromkeys((facts.kernel, facts.ss, *facts.spellings, facts.zh))))
