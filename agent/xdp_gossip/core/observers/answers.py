# SPDX-License-Identifier: MIT
"""Answers the probes of observers in user space. The programs of ``bpf/`` have the same rules."""

from __future__ import annotations

from ..outbox import Outbox
from ..packets import Header
from ..runs import later
from ..types import Address, Now

#: Maximum number of askers that are remembered; the one that asked first is forgotten first.
_ASKERS = 4096


class Answers:
    """Answers each probe at most once.

    A probe is answered if its round is newer than the last answered round of its origin. So a recording of a probe
    causes at most one packet, which is as long as the recorded one.
    """

    def __init__(self, out: Outbox) -> None:
        self._out = out
        # Origin -> its incarnation, and the newest round that was answered.
        self._askers: dict[Address, tuple[int, int]] = {}

    def answer(self, header: Header, now: Now) -> None:
        """Answer an authentic probe to the address of its origin, wherever it came from."""
        known = self._askers.get(header.origin)
        if known is None and not header.origin.may_be_node(self._out.local.address):
            self._out.count("rx_bad_address")
            return
        run, newest = known or (header.incarnation, 0)
        if later(run, header.incarnation) or (run == header.incarnation and header.sequence <= newest):
            self._out.count("rx_probe_again")
            return
        self._askers.pop(header.origin, None)
        if len(self._askers) >= _ASKERS:
            del self._askers[next(iter(self._askers))]
        self._askers[header.origin] = (header.incarnation, header.sequence)
        self._out.acknowledge(header.sequence, header.origin, now)
