"""Run the targets: `python -m tests.fuzz [--bytes 1e9] [--seed N] [TARGET ...]`; the exit status is 1 after a finding.

The bytes are divided among the targets by their shares. Each finding is printed once per place in the code, with its
traceback, and its input is written to a file.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.targets import TARGETS


def fuzz(name: str, amount: float, seed: int) -> tuple[int, int, dict[str, tuple[str, bytes]]]:
    """Run a target with at least `amount` bytes; return inputs, bytes, and place → (traceback, input) of findings."""
    inputs = done = 0
    findings: dict[str, tuple[str, bytes]] = {}
    made = TARGETS[name].make(random.Random(f"{name} {seed}"))
    try:
        while done < amount:
            data, run = next(made)
            inputs, done = inputs + 1, done + len(data) + 1
            try:
                run(data)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{type(error).__name__} at {last.filename}:{last.lineno}"
                findings.setdefault(place, (traceback.format_exc(), data))
    finally:
        made.close()  # type: ignore[attr-defined]
    return inputs, done - inputs, findings


def main() -> int:
    """Run the chosen targets and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bytes", type=float, default=1e7, help="of all targets together [1e7]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for inputs [findings]")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    chosen = options.targets or list(TARGETS)
    if unknown := [name for name in chosen if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; the targets are {', '.join(TARGETS)}")
    whole, total, found = sum(TARGETS[name].share for name in chosen), 0, 0
    print(f"{'target':<16} {'inputs':>10} {'MB':>8} {'s':>7} {'findings':>8}   seed {options.seed}", flush=True)
    for name in chosen:
        begin = time.monotonic()
        inputs, done, findings = fuzz(name, options.bytes * TARGETS[name].share / whole, options.seed)
        total, found = total + done, found + len(findings)
        print(
            f"{name:<16} {inputs:>10,} {done / 1e6:>8.1f} {time.monotonic() - begin:>7.1f} {len(findings):>8}",
            flush=True,
        )
        for at, (place, (trace, data)) in enumerate(findings.items()):
            options.findings.mkdir(exist_ok=True)
            file = options.findings / f"{name}-{options.seed}-{at}"
            file.write_bytes(data)
            print(f"\n{place}; input in {file}\n{trace}", flush=True)
    print(f"{total / 1e6:,.1f} MB, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
