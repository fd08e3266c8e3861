"""Subjects of findings that several rules have."""

from __future__ import annotations

from tcpwatch.model.finding import FindingSubject
from tcpwatch.model.sockets.programs import Program


def program_subject(program: Program) -> FindingSubject:
    """Return the one process of a program; else the program, by name and user, which stay the same."""
    if len(program.processes) == 1:
        return FindingSubject("process", str(program))
    return FindingSubject("program", f"{program.name} of {program.user}")
