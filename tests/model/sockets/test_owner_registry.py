"""The numbers of owners: they mean the same owner in every sample, and memory for them is bounded."""

from __future__ import annotations

import numpy as np

from tcpwatch.kernel.proc.owner_finder import UNKNOWN_NO_PROCESS, Owner
from tcpwatch.kernel.proc.process import Process
from tcpwatch.model.lifecycle.archive import Archive
from tcpwatch.model.sockets.owner_registry import OwnerRegistry

REMEMBERED = 20_000


def owner(pid: int) -> Owner:
    return Owner((Process(pid, f"worker-{pid}", "", 0, "root", 0.0),))


def coded(numbers: OwnerRegistry, codes: list[int], owners: list[Owner]) -> list[int]:
    registered: list[int] = numbers.register(np.array(codes, np.int32), owners).tolist()
    return registered


def meaning(numbers: OwnerRegistry, code: int) -> Owner | None:
    return Archive(owners=numbers.owners, owners_from=numbers.begin).owner(code)


def test_the_same_owner_has_the_same_number_in_every_sample() -> None:
    numbers = OwnerRegistry()
    first, second, third = (owner(pid) for pid in (1, 2, 3))
    assert coded(numbers, [1, 0, 1], [first, second]) == [1, 0, 1]
    assert coded(numbers, [0, 1, 0], [third, second]) == [2, 1, 2]
    assert [meaning(numbers, code) for code in range(-1, 4)] == [None, first, second, third, None]


def test_a_negative_code_is_a_reason_and_stays() -> None:
    numbers = OwnerRegistry()
    assert coded(numbers, [UNKNOWN_NO_PROCESS, 0, -3], [owner(1)]) == [UNKNOWN_NO_PROCESS, 0, -3]
    assert coded(numbers, [], []) == []
    assert numbers.owners == (owner(1),)


def test_beyond_the_limit_the_older_half_is_forgotten() -> None:
    numbers = OwnerRegistry()
    all_codes = list(range(REMEMBERED))
    owners = [owner(pid) for pid in all_codes]
    assert coded(numbers, all_codes, owners) == all_codes
    held = numbers.owners
    assert (numbers.begin, len(held)) == (0, REMEMBERED)
    assert coded(numbers, [0], [owner(99_999)]) == [REMEMBERED]
    assert len(held) == REMEMBERED, "a list that a view holds does not lose owners"
    assert (numbers.begin, len(numbers.owners)) == (REMEMBERED // 2, REMEMBERED // 2 + 1)
    assert meaning(numbers, REMEMBERED) == owner(99_999)
    assert meaning(numbers, REMEMBERED // 2 - 1) is None
    assert meaning(numbers, REMEMBERED // 2) == owner(REMEMBERED // 2)
    assert coded(numbers, [0, 1], [owners[-1], owners[0]]) == [REMEMBERED - 1, REMEMBERED + 1]
