# SPDX-License-Identifier: MIT
"""The liveness of a peer: its state, the allowed transitions between states, and the progress of its probes.

Only the detector (``core/detector.py``) writes liveness data. ``tests/agent/test_core_members.py`` enforces this rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..revision import Shown
from ..types import PRESENT, Now, State

#: All allowed transitions between two states of a peer, each with its cause. A new peer is SUSPECT: it counts as
#: present, but this member has not heard it yet. No peer goes from ALIVE directly to DEAD, because this member suspects
#: and probes a silent peer first.
TRANSITIONS: Mapping[State, Mapping[State, str]] = {
    State.SUSPECT: {
        State.ALIVE: "it was heard, by this member or by one that tells of it",
        State.DEAD: "no probe was answered; or most observers report it; or it is known as gone: from the disk, or by "
        "another member's word",
        State.LEFT: "it said that it goes",
        State.AGENT_DOWN: "observers report that its host answers and its agent does not run",
    },
    State.ALIVE: {
        State.SUSPECT: "it was silent for the timeout, observers report it, or this host has no address family in "
        "common with it any more",
        State.LEFT: "it said that it goes",
        State.AGENT_DOWN: "observers report that its host answers and its agent does not run",
    },
    State.AGENT_DOWN: {
        State.ALIVE: "its agent was heard",
        State.SUSPECT: "its agent was heard, and this host cannot reach it: others are asked to probe it",
        State.DEAD: "observers report that its host does not answer any more",
        State.LEFT: "it said that it goes, and that came late",
    },
    State.DEAD: {
        State.ALIVE: "it was heard again",
        State.SUSPECT: "it was heard, and this host cannot reach it: others are asked to probe it",
        State.LEFT: "it said that it goes, and that came late",
        State.AGENT_DOWN: "its silence removed it, and observers report that its host answers",
    },
    State.LEFT: {
        State.ALIVE: "it came back: a packet later than its leave",
        State.SUSPECT: "it came back, and this host cannot reach it: others are asked to probe it",
    },
}


class Liveness(Shown):
    """The state of one peer, the time at which it was last heard, and the progress of its probes.

    Times are monotonic seconds.
    """

    __slots__ = (
        "state", "introduced", "last_heard", "gone_at", "vouched_until", "probes", "pinged", "probe_due", "probe_nonce",
        "helped", "accused", "condemned", "returns",
    )  # fmt: skip

    SHOWN = frozenset({"state"})

    def __init__(self, now: Now) -> None:
        self.revision = None
        self.state = State.SUSPECT
        self.introduced = False  # whether an event about this peer has been emitted
        self.last_heard = now.mono
        self.gone_at = (0, 0)  # Incarnation and sequence of the peer's leave rumor.
        # Until this time the peer counts as reachable, because it answered a ping of another member.
        self.vouched_until = 0.0
        self.probes = 0  # Number of probe rounds since the suspicion.
        self.pinged = 0  # Nonce of the last ping.
        self.probe_due = 0.0
        self.probe_nonce = 0  # Nonce of the last probe round in which other members were asked to probe the peer.
        self.helped = False  # Whether another member acknowledged our request to probe the peer.
        self.accused = False  # Whether the peer is suspect because of its observers' reports.
        # The incarnation under which the observers' reports removed the peer; 0: they did not. Only a later incarnation
        # makes it a member again: it proves that the peer hears others.
        self.condemned = 0
        self.returns = 0  # Number of times that the peer came back after it had died or left.

    def move(self, state: State) -> None:
        """Change the state. If ``state`` is the current state, nothing changes.

        Raises ``ValueError`` for a transition that :data:`TRANSITIONS` does not allow.
        """
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.state.value} -> {state.value}: expected one of core.members.liveness.TRANSITIONS")
        if self.state in (State.DEAD, State.LEFT) and state in PRESENT:
            self.returns += 1
        self.state = state

    def restart_probes(self) -> None:
        """Reset the probes for a new suspicion.

        Set the number of probe rounds to 0, and forget that helpers answered.
        """
        self.probes = self.probe_nonce = 0
        self.helped = False
