"""TerminalDriver: reads keys, whatever bytes the terminal sends."""

from __future__ import annotations

import codecs
import os
import select

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from typing_extensions import override

_WAIT_MS = 100
_BYTES = 4096


class TerminalDriver(LinuxDriver):
    """Textual's driver, whose own thread ends the app at the first byte that is not UTF-8."""

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
