"""Valid sock_diag messages with any values."""

from __future__ import annotations

import random

from tests.support.kernel import netlink

_EXTRAS = (
    netlink.INFO,
    netlink.CONG,
    netlink.SKMEMINFO,
    netlink.SHUTDOWN,
    netlink.SKV6ONLY,
    netlink.CGROUP_ID,
    netlink.SOCKOPT,
)


def random_message(rng: random.Random, kind: int = netlink.GETSOCK, sequence: int = netlink.CURRENT) -> bytes:
    """Return a valid message with any values, and any attributes of any sizes."""
    family, state = rng.choice((2, 2, 10, 0, 255)), rng.choice((*range(14), 1, 1, 10, 255))
    body = bytes((family, state, rng.randrange(8), rng.randrange(256))) + rng.randbytes(netlink.BODY.size - 4)
    if rng.random() < 0.7:
        cookie = rng.randrange(200).to_bytes(8, "little")
        body = body[:44] + cookie + body[52:]
    sizes = {
        netlink.INFO: rng.choice((280, 280, 232, 248, 104, 1, 0)),
        netlink.CONG: 16,
        netlink.SKMEMINFO: 36,
        netlink.CGROUP_ID: 8,
    }
    kinds = [*rng.sample(_EXTRAS, rng.randrange(len(_EXTRAS) + 1)), *[rng.randrange(1 << 16)] * (rng.random() < 0.1)]
    attributes = [
        (kind_, rng.randbytes(sizes.get(kind_, 1) if rng.random() < 0.9 else rng.randrange(64))) for kind_ in kinds
    ]
    return netlink.message(kind, body, attributes, flags=rng.choice((2, 2, 2, 0x12)), sequence=sequence)
