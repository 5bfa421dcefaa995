# SPDX-License-Identifier: MIT
"""Where there is no kernel data plane, the runtime works with an object that does nothing."""

from __future__ import annotations

import inspect
import math

from xdp_gossip.dataplane.steering import Steering
from xdp_gossip.node.steering import PlaneSteering, WithoutPlane


def public(cls: type) -> dict[str, list[str]]:
    """Public methods and properties of a class -> names of their parameters."""
    return {
        name: list(inspect.signature(member).parameters) if inspect.isfunction(member) else []
        for name, member in vars(cls).items()
        if not name.startswith("_")
    }


def test_a_node_without_a_plane_answers_all_that_a_runtime_asks() -> None:
    asked = public(PlaneSteering)
    assert public(Steering) == asked
    assert {**public(WithoutPlane), "reason": []} == asked


def test_it_wants_no_time_and_says_why() -> None:
    absent = WithoutPlane("the wire of PekoNode")
    assert absent.next_timer() == math.inf and absent.status() == {}
    assert absent.reason == "the wire of PekoNode"
