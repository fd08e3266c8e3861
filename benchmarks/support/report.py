"""The Markdown table that a benchmark prints."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Line:
    """One measured value, with its bar, if it has one. Less is better."""

    what: str
    at: str
    measured: float
    bar: float | None = None
    form: str = "{:.2f} ×"
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bar is met; "–" where there is none."""
        if self.bar is None:
            return "–"
        return "met" if self.measured <= self.bar else "NOT met"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table's row."""
        bar = "–" if self.bar is None else "≤ " + self.form.format(self.bar)
        return self.what, self.at, bar, self.form.format(self.measured), self.verdict, self.note


@dataclass(slots=True)
class Report:
    """Lines in the order of measurement."""

    title: str
    lines: list[Line] = field(default_factory=list)

    def add(self, *lines: Line) -> None:
        """Append lines."""
        self.lines.extend(lines)

    def markdown(self) -> str:
        """Return the title and the table."""
        head = ("what", "at", "bar", "measured", "verdict", "")
        rows = [head, *(line.cells() for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        text = [_row(row, widths) for row in rows]
        text.insert(1, _row(tuple("-" * width for width in widths), widths))
        return "\n".join([self.title, "", *text])


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def number(value: int) -> str:
    """Format 1000000 as 1,000,000."""
    return f"{value:,}"
