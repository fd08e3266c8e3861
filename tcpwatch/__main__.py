"""Entry point of `python -m tcpwatch` and of the console script."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        from tcpwatch.cli import commands

        commands.main()
    except KeyboardInterrupt:  # while modules are still being imported
        sys.exit(130)


if __name__ == "__main__":
    main()
