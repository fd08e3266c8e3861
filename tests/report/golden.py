"""Expected outputs in files; `WRITE_GOLDEN=1 pytest tests/report` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("golden")


def check(name: str, output: str) -> None:
    """Compare the output with the file of this name."""
    file = FOLDER / name
    if os.environ.get("WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(output, encoding="utf-8")
    assert output == file.read_text(encoding="utf-8")
