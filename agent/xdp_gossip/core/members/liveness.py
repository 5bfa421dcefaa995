# SPDX-License-Identifier: MIT
"""The liveness of a peer: its state, the transitions between states, and the notes by which the detector decides.

Only the detector (``core/detector.py``) writes this. ``tests/agent/test_core_members.py`` enforces that.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..revision import Shown
from ..types import Now, State

#: Every transition of a peer, with its cause. A peer begins as SUSPECT: it counts as present, but this member has not
#: heard it. No peer goes from ALIVE directly to DEAD: it is suspected and probed in between.
TRANSITIONS: Mapping[State, Mapping[State, str]] = {
    State.SUSPECT: {
        State.ALIVE: "it was heard, by this member or by one that tells of it",
        State.DEAD: "no probe was answered; or it is known as gone: from the disk, or by another member's word",
        State.LEFT: "it said that it goes",
    },
    State.ALIVE: {
        State.SUSPECT: "it was silent for the timeout, or this host has no address family in common with it any more",
        State.LEFT: "it said that it goes",
    },
    State.DEAD: {
        State.ALIVE: "it was heard again",
        State.SUSPECT: "it was heard, and this host cannot reach it: others are asked to probe it",
        State.LEFT: "it said that it goes, and that came late",
    },
    State.LEFT: {
        State.ALIVE: "it came back: a packet later than its leave",
        State.SUSPECT: "it came back, and this host cannot reach it: others are asked to probe it",
    },
}


class Liveness(Shown):
    """The state of one peer, when it was last heard, and the progress of its probes. Times are monotonic seconds."""

    __slots__ = (
        "state", "introduced", "last_heard", "gone_at", "vouched_until", "probes", "pinged", "probe_due", "probe_nonce",
        "helped",
    )  # fmt: skip

    SHOWN = frozenset({"state"})

    def __init__(self, now: Now) -> None:
        self.revision = None
        self.state = State.SUSPECT
        self.introduced = False  # it was reported to the shell
        self.last_heard = now.mono
        self.gone_at = (0, 0)  # (incarnation, sequence) of its leave
        self.vouched_until = 0.0  # until then another member vouches for it, as this host cannot reach it
        self.probes = 0  # rounds
        self.pinged = 0  # nonce of the last ping
        self.probe_due = 0.0
        self.probe_nonce = 0  # of the last round in which others were asked to probe it
        self.helped = False  # one of these members answered us

    def move(self, state: State) -> None:
        """Change the state; moving to the same state changes nothing.

        Raises ``ValueError`` for an unknown transition.
        """
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.state.value} -> {state.value}: expected one of core.members.liveness.TRANSITIONS")
        self.state = state

    def restart_probes(self) -> None:
        """Reset the probes for a new suspicion: no rounds yet, and no helper has answered."""
        self.probes = self.probe_nonce = 0
        self.helped = False
