"""TerminalDriver: Textual's driver for terminals that are slow, stopped, closed, or send odd bytes."""

from __future__ import annotations

import codecs
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from typing_extensions import override

from tcpwatch.widgets.terminal_output import TerminalOutput

_WAIT_MS = 100
_BYTES = 4096
_PATIENCE_S = 0.3
"""How long a terminal may take at the end for what restores it."""


class TerminalDriver(LinuxDriver):
    """Draws on standard output, so that stderr may be a file; its writes never block, and no byte ends the app."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        """Parameters as for Textual's driver."""
        super().__init__(app, **options)
        assert sys.__stdout__ is not None
        self.output = TerminalOutput(sys.__stdout__.fileno(), sys.__stdout__.encoding, os.environ)
        self._file = self.output  # type: ignore[assignment]
        self._active = self._suspended = False

    def call_when_idle(self, call: Callable[[], object]) -> bool:
        """Return whether the terminal has taken what was drawn; if not, `call` is called in a thread when it has."""
        return self.output.call_when_idle(call)

    @override
    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._active = True

    @override
    def stop_application_mode(self) -> None:
        """Restore the terminal, without what it has not taken yet."""
        self._active = False
        self.output.drop()
        super().stop_application_mode()

    @override
    def close(self) -> None:
        """Wait a moment until the terminal is restored."""
        super().close()
        self.output.finish(_PATIENCE_S)

    @override
    def suspend_application_mode(self) -> None:
        self._suspended = True
        super().suspend_application_mode()

    @override
    def resume_application_mode(self) -> None:
        self._suspended = False
        super().resume_application_mode()

    @override
    def _sigcont_application(self, *arguments: object) -> None:
        """Continue after SIGSTOP, too: then nothing was suspended, but the terminal may show something else."""
        if self._active:
            self.suspend_application_mode()
        if self._suspended:
            super()._sigcont_application(*arguments)

    @override
    def run_input_thread(self) -> None:
        """Read until the driver is closed. A byte that is not UTF-8 becomes U+FFFD; an invalid sequence is skipped."""
        parser, decoder = XTermParser(self._debug), codecs.getincrementaldecoder("utf-8")("replace")
        terminal = select.poll()
        terminal.register(self.fileno, select.POLLIN)
        while not self.exit_event.is_set():
            text = ""
            if terminal.poll(_WAIT_MS):
                data = os.read(self.fileno, _BYTES)
                if not data:  # the terminal was closed; the app notices
                    self.exit_event.wait(_WAIT_MS / 1000)
                text = decoder.decode(data)
            try:
                for event in [*(parser.feed(text) if text else ()), *parser.tick()]:
                    self.process_message(event)
            except Exception:  # of the parser, by a sequence that no terminal sends
                parser = XTermParser(self._debug)
