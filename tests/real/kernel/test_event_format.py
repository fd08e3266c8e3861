"""The format descriptions of this kernel's trace events."""

from __future__ import annotations

from pathlib import Path

from tcpwatch.kernel.trace import event_format
from tcpwatch.kernel.trace.tracefs import TracefsMount
from tests import lab
from tests.lab.machine.requirements import tracefs


def test_every_event_of_this_kernel_is_understood() -> None:
    lab.require(tracefs)
    mount = TracefsMount()
    try:
        files = list(Path(mount.path, "events").glob("*/*/format"))
        assert len(files) > 100
        forms = [event_format.parse(file.read_text()) for file in files]
        assert len({form.id for form in forms}) == len(forms)
        header = event_format.page_header(Path(mount.path, "events/header_page").read_text())
        assert header.data >= 12
    finally:
        mount.close()
