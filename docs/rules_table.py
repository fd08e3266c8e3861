"""Write the README's table of rules from the rules' docstrings: python -m docs.rules_table."""

from __future__ import annotations

from pathlib import Path

from tcpwatch.model.rules.registry import all_rules

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- rules: written by python -m docs.rules_table -->\n", "<!-- end of rules -->\n"


def rules_table() -> str:
    """Return the table in Markdown, one row per rule."""
    lines = ["| rule | meaning | warning | critical |", "|---|---|---|---|"]
    for rule in all_rules():
        lines.append(f"| `{rule.name}` | {rule.meaning} | {_sentence(rule.warning)} | {_sentence(rule.critical)} |")
    return "\n".join([*lines, ""])


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] if text else "–"


def with_current_table(readme: str) -> str:
    """Return the text of the README with its table replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{rules_table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_current_table(README.read_text(encoding="utf-8")), encoding="utf-8")
