"""tcp_info of flows for tests, from readable specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tcpwatch.kernel.netlink import uapi
from tcpwatch.sample import TcpInfoTable

INFO_BYTES = uapi.TCP_INFO.itemsize


def make_infos(
    flows: Mapping[int, Mapping[str, Any]], when: float = 1000.0, info_bytes: int = INFO_BYTES
) -> TcpInfoTable:
    """Build a table from cookie → fields of uapi.FLOW_INFO without `tcpi_`, 0 by default; all at the same moment."""
    figures = np.zeros(len(flows), uapi.FLOW_INFO)
    for row, cookie in zip(figures, sorted(flows), strict=True):
        row["idiag_cookie"] = cookie
        for name, value in flows[cookie].items():
            row[name if name == "congestion" else f"tcpi_{name}"] = value
    cookie_column = np.ascontiguousarray(figures["idiag_cookie"])
    return TcpInfoTable(figures, np.full(len(flows), when), info_bytes, cookie_column)
