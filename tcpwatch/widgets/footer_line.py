"""The last line: the keys of the screen. `q` and `?` are always shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.binding import Binding
from textual.events import Click
from textual.screen import Screen
from typing_extensions import override

from tcpwatch.widgets.lines import Line, Lines, Piece
from tcpwatch.widgets.palette import Palette

_ALWAYS = ("quit", "help")
_PALETTE = "command_palette"
_GAP = 2
_ROOM_FOR_ALWAYS = 18

Key = tuple[str, str, str]
"""The key as displayed, its description, and its name."""


class FooterLine(Lines):
    """Shows the bindings with `show`, those of the focused widget first. A click acts like the key."""

    DEFAULT_CSS = "FooterLine { height: 1; overflow: hidden; background: $panel; }"

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[Key] = []
        self._more: Key | None = None

    def on_mount(self) -> None:
        """Watch for changed bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if not self.is_attached or screen is not self.screen:
            return
        shown: dict[str, Binding] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            if enabled and (binding.show or binding.action == _PALETTE):
                shown.setdefault(binding.action, binding)
        keys = {action: (self.app.get_key_display(b), b.description, b.key) for action, b in shown.items()}
        more = keys.pop(_PALETTE, None)
        always = [keys.pop(action) for action in _ALWAYS if action in keys]
        shown_keys = [*always, *keys.values()]
        if (shown_keys, more) != (self._keys, self._more):
            self._keys, self._more = shown_keys, more
            self.redraw()

    def _layout(self, width: int) -> list[tuple[int, Key]]:
        """Return the position of each key: from the left as many as fit, and `ctrl+p more` at the right end."""
        placed, x = [], 1
        end = width - 1
        if self._more and end - _width(self._more) > _ROOM_FOR_ALWAYS:
            end -= _width(self._more)
            placed.append((end, self._more))
        for key in self._keys:
            if x + _width(key) + (_GAP if placed else 0) > end:
                continue  # a shorter one may still fit
            placed.append((x, key))
            x += _width(key) + _GAP
        return sorted(placed)

    @override
    def draw(self, width: int, height: int, colours: Palette) -> Sequence[Line]:
        pieces: list[Piece] = []
        at = 0
        for x, (key, description, _) in self._layout(width):
            pieces += [(" " * (x - at), colours.plain), (key, colours.key), (f" {description}", colours.plain)]
            at = x + cell_len(key) + 1 + cell_len(description)
        return [tuple(pieces)]

    def on_click(self, event: Click) -> None:
        """Press the key under the mouse."""
        for x, key in self._layout(self.size.width):
            if x <= event.x < x + _width(key):
                self.app.simulate_key(key[2])


def _width(key: Key) -> int:
    return cell_len(key[0]) + 1 + cell_len(key[1])
