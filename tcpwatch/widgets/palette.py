"""Which colour means what: the same in every widget, readable in dark, light and ansi-only themes.

The colours of handshake, open and teardown do not come from the theme, as many themes have primary, secondary and
accent colours that look alike; they depend only on whether the theme is dark, light or limited to the terminal's own
colours. Colour is never the only sign, and with NO_COLOR there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.theme import Theme

_PLAIN, _STRONG = Style.null(), Style(bold=True)


@dataclass(frozen=True, slots=True)
class Palette:
    """Foreground styles, drawn over a widget's own background."""

    handshake: Style
    open: Style
    teardown: Style
    warning: Style
    alarm: Style
    """A limit was exceeded."""
    dim: Style
    key: Style
    """A key that can be pressed."""
    cursor: Style
    """The line under the cursor: the only one with a background."""
    plain: Style = _PLAIN
    strong: Style = _STRONG


def palette(app: App[Any]) -> Palette:
    """Return the palette of the app's theme; cheap enough to be called for each line drawn."""
    if app.no_color:
        return _COLOURLESS
    theme, ansi = app.current_theme, app.native_ansi_color
    colours = _PALETTES.get((theme.name, ansi))
    if colours is None:
        colours = _PALETTES[theme.name, ansi] = _ansi(theme) if ansi else _truecolor(theme)
    return colours


_COLOURLESS = Palette(
    **dict.fromkeys(("handshake", "open", "teardown"), _PLAIN),
    warning=_STRONG,
    alarm=Style(bold=True, underline=True),  # in grey, a red would be dimmer than plain text
    dim=Style(dim=True),
    key=_STRONG,
    cursor=Style(reverse=True),
)
_PALETTES: dict[tuple[str, bool], Palette] = {}

_NAMES = ("handshake", "open", "teardown", "warning", "alarm")
_DARK = ("#61afef", "#7fd197", "#c9a0e0", "#ffc473", "#ff7080")
_LIGHT = ("#0b5cad", "#1b7837", "#7b3294", "#8a5300", "#b3001b")
_ANSI_DARK = ("cyan", "green", "magenta", "yellow", "bright_red")
_ANSI_LIGHT = ("blue", "green", "magenta", "yellow", "red")


def _styles(colours: tuple[str, ...]) -> dict[str, Style]:
    """Return the styles of _NAMES; those of the two that warn are bold too."""
    return {
        name: Style(color=colour, bold=name in ("warning", "alarm") or None)
        for name, colour in zip(_NAMES, colours, strict=True)
    }


def _truecolor(theme: Theme) -> Palette:
    colours = theme.to_color_system().generate()
    foreground, background = (Color.parse(colours[k]) for k in ("foreground", "background"))
    dim = background.blend(foreground, 0.62, 1)
    key = Color.parse(colours["text-accent"] if theme.dark else colours["primary"])
    band = background.blend(foreground, 0.16, 1)
    return Palette(
        **_styles(_DARK if theme.dark else _LIGHT),
        dim=Style(color=dim.rich_color),
        key=Style(color=key.rich_color, bold=True),
        cursor=Style(bgcolor=band.rich_color),
    )


def _ansi(theme: Theme) -> Palette:
    # Reverse, as no background of the sixteen suits every terminal.
    return Palette(
        **_styles(_ANSI_DARK if theme.dark else _ANSI_LIGHT),
        dim=Style(dim=True),
        key=Style(bold=True),
        cursor=Style(reverse=True),
    )
