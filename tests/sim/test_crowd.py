# SPDX-License-Identifier: MIT
"""Detection in fleets of a thousand and ten thousand members, of which one is a full one (``crowd.py``)."""

from __future__ import annotations

import pytest

from xdp_gossip.core.observers.rings import K
from xdp_gossip.core.types import State

from .crowd import FAULTS, Crowd, judge, play


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "members"), [*((fault, 1000) for fault in FAULTS), ("crash", 10_000)])
def test_exactly_the_faulty_are_removed_and_the_traffic_does_not_grow(fault: str, members: int) -> None:
    seen = play(fault, 0, members, 60.0)
    judge(seen)
    assert max(seen.sent, seen.taken) <= 2 * K + 2


def test_one_observer_that_a_member_does_not_answer_removes_nobody() -> None:
    crowd = Crowd(1, 300)
    subject = crowd.others[0]
    crowd.play([subject])
    crowd.blocked.add((min(crowd.observers(subject)), subject))
    crowd.run(120.0)
    assert [state for _, member, state in crowd.moves if member == subject] in ([], [State.ALIVE])
    assert crowd.engine.counters["rx_alert"] > 3
