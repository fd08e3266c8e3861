"""Groups as CSV (RFC 4180, lines ended by a newline alone), one line a group."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence

from tcpwatch.model.query.groups import GroupRow

Value = str | int | float


def values_of(row: GroupRow, untold: Collection[str] = ()) -> dict[str, Value]:
    """Name of the column → value; empty for what is not known, or `untold` by the source."""
    one = row.group
    values: dict[str, Value | None] = {
        "by": row.by.value,
        "group": one.name,
        "filter": one.filter,
        "sockets": one.sockets,
        "share": round(row.share, 6),
        "established": one.established,
        "rx_bytes_per_s": _rounded(one.rx_per_s),
        "tx_bytes_per_s": _rounded(one.tx_per_s),
        "retransmits_per_s": _rounded(one.retransmits_per_s),
        "recv_queue": one.recv_queue,
        "send_queue": one.send_queue,
    }
    return {name: "" if value is None or name in untold else value for name, value in values.items()}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def csv_lines(rows: Sequence[GroupRow], untold: Collection[str] = ()) -> Iterator[str]:
    """A line of names, then one for each group; nothing at all for none."""
    for at, row in enumerate(rows):
        values = values_of(row, untold)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if at == 0:
            writer.writerow(values)
        writer.writerow(values.values())
        yield text.getvalue()
