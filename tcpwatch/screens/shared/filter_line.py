"""FilterLine: the input that `/` opens; it filters while typing and explains errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantBlur
from textual.message import Message
from textual.widgets import Input, Static
from typing_extensions import override

from tcpwatch.model.query.filter import Filter
from tcpwatch.units.printable import printable


class _Input(Input):
    """An input whose Enter key is in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "keep the filter")]


class FilterLine(Vertical):
    """An input with an error below it. Hidden unless it has the focus or an error."""

    DEFAULT_CSS = """
    FilterLine { height: auto; display: none; background: $panel; }
    FilterLine.-open { display: block; }
    FilterLine Horizontal { height: 1; }
    FilterLine .filter--slash { width: 3; text-style: bold; }
    FilterLine Input, FilterLine Input:focus { height: 1; border: none; padding: 0; background: $panel; }
    FilterLine .filter--wrong { height: auto; padding: 0 1; color: $text-error; display: none; }
    FilterLine.-wrong .filter--wrong { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "clear", "no filter")]

    class Changed(Message):
        """The filter changed."""

    class Dismissed(Message):
        """The line was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = Filter()
        """The last valid filter."""

    @override
    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(" / ", classes="filter--slash", markup=False)
            yield _Input(placeholder="state:tw  port:443  addr:10.0.  process:nginx  -text", compact=True)
        yield Static("", classes="filter--wrong", markup=False)

    @property
    def _input(self) -> Input:
        return self.query_one(Input)

    def open(self) -> None:
        """Show the line and focus it."""
        self.add_class("-open")
        self._input.focus()

    def set_text(self, text: str) -> None:
        """Use this filter; an invalid one is shown with its error."""
        with self.prevent(Input.Changed):
            self._input.value = text
        self._use(Filter.parse)
        self.set_class(self.has_class("-wrong") or self._input.has_focus, "-open")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        event.stop()
        self._use(Filter.parse_partial)

    def _use(self, parse: Callable[[str], Filter]) -> None:
        """Filter by the text, or show its error and keep the last valid filter."""
        try:
            parsed = parse(self._input.value)
        except ValueError as error:
            self.add_class("-wrong")
            self.query_one(".filter--wrong", Static).update(printable(str(error)))
            return
        self.remove_class("-wrong")
        if parsed != self.filter:
            self.filter = parsed
            self.post_message(self.Changed())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return to the table with this filter if it is valid."""
        event.stop()
        self._use(Filter.parse)
        if not self.has_class("-wrong"):
            self._leave()

    def action_clear(self) -> None:
        """Return to the table without a filter."""
        self.set_text("")
        self._leave()

    def _leave(self) -> None:
        self.remove_class("-open")
        self.post_message(self.Dismissed())

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Hide the line unless it shows an error."""
        self.set_class(self.has_class("-wrong"), "-open")
