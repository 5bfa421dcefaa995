# SPDX-License-Identifier: MIT
"""Judges whether a kernel data plane works. The verdict depends only on counters and on facts about interfaces.

The agent calls :meth:`Health.judge` once per cycle. There is one rule, **the tolerance rule**: a data plane has failed
if more than the fraction :data:`TOLERANCE` of one cycle's work remained undone. So a fault that stops all work is
detected at the end of the first complete cycle after the fault, that is, within two cycles. The tolerance covers a
short gap while the loader replaces programs, and the loss of a few packets in a full queue. There is no tolerance for
facts that the kernel reports, for example that the interface no longer exists. A foreign program at the interface
counts as a fault only in the second consecutive cycle, because a loader replaces programs before it records the new
programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .interfaces import Facts

#: The fraction of one cycle's work that may remain undone.
TOLERANCE = 0.25
#: If this many consecutive checks do not find our program at the interface, the program counts as detached.
_SEEN = 2

#: Maps the name of each finding to its meaning. Each finding has a counter ``plane_stepped_down_<proof>``.
PROOFS = {
    "passed_by": "rumors reached the socket, past the programs",
    "carriers_lost": "own rumors were not multiplied",
    "copies_lost": "copies of others' rumors vanished",
    "copies_refused": "the kernel refused copies",
    "detached": "the XDP program of the interface is not ours",
    "interface_gone": "the interface is gone",
    "address_moved": "the node's address left the interface that had it",
    "route_moved": "packets to the members leave by another interface",
    "maps_gone": "the pinned maps are gone, or others",
    "unreadable": "the kernel refused a call on the maps",
    "taken_down": "the loader has taken the plane down",
}

#: Counters of the copies of other members' rumors, one counter for each possible outcome of a copy (bpf/counters.h).
#: ``copy_due`` counts the requested copies.
COPY_ENDS = ("copy", "copy_surplus", "copy_unresolved", "relay_failed")
_FANOUT_ENDS = ("fanout_copy", "fanout_surplus", "fanout_unresolved", "fanout_failed")
_TAKEN = ("take_heartbeat", "take_metadata", "take_leave", "take_record", "take_alert")
#: Counters of rumors that a program saw and deliberately left to the network stack.
_PASSED = ("pass_odd", "pass_no_agent")


@dataclass(frozen=True)
class Finding:
    """The reason why a data plane is not reliable.

    ``proof``: one of :data:`PROOFS`. ``awaited``: the event that would end the fault.
    """

    proof: str
    text: str
    awaited: str


@dataclass(frozen=True)
class Work:
    """Running totals: the kernel's counters, and the counters of the agent's transport.

    ``at_socket``: number of rumors of other members that were addressed to this node and arrived on the data plane's
    interface, but reached the agent through its socket.
    """

    kernel: Mapping[str, int]
    at_socket: int
    carriers_sent: int
    carriers_lost: int


@dataclass(frozen=True)
class Plane:
    """The facts that must stay true for a data plane in use.

    ``program``: id of the XDP program at the interface, 0 for TC. ``owners``: indexes of the interfaces that had the
    node's address when the loader verified the data plane. These are the data plane's own interface or the loopback
    interface; behind NAT, ``owners`` is empty. ``named``: whether the operator configured the interface by name; if so,
    a changed route is no fault.
    """

    interface: str
    ifindex: int
    program: int
    owners: frozenset[int]
    named: bool = False


def too_much(undone: int, of: int) -> bool:
    """Whether ``undone`` is more than the fraction :data:`TOLERANCE` of ``of``, the work of one cycle."""
    return undone > 0 and undone > TOLERANCE * of


class Health:
    """Judges one data plane while it is in use."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._before: Work | None = None
        self._explained = 0  # number of rumors that the programs left to the network stack in the previous cycle
        self._carrier_changes: int | None = None
        self._foreign = 0  # number of consecutive checks that did not find our program at the interface

    def judge(self, work: Work, facts: Facts | None) -> Finding | None:
        """Judge whether the data plane worked in the cycle that ends now.

        Returns None if the data plane works or if no conclusion is possible.
        """
        before, self._before = self._before, work
        found = self.stated(facts) or self._foreign_program(facts)
        if found is not None:
            return found
        steady = self._steady(facts)
        if before is None or not steady:
            self._explained = 0
            return None
        return self._undone(before, work)

    def notice(self, facts: Facts | None) -> Finding | None:
        """Judge facts that have changed between two calls of :meth:`judge`."""
        return self.stated(facts) or self._foreign_program(facts)

    def stated(self, facts: Facts | None) -> Finding | None:
        """Judge the facts that the kernel reports; ``facts`` is None if the kernel could not be asked."""
        if facts is None:
            return None
        plane = self._plane
        interface = facts.interface
        if interface is None:
            text = f"{plane.interface} (interface {plane.ifindex}) is gone"
            return Finding("interface_gone", text, f"an interface {plane.interface} with the node's address")
        # If the data plane's interface had the address, the address has moved when that interface no longer has it,
        # even if loopback has it now. If only loopback had the address, the address has moved when loopback no longer
        # has it.
        had = {plane.ifindex} if plane.ifindex in plane.owners else plane.owners
        if had and not had & set(facts.owners):
            if facts.owners:
                text = (
                    f"the node's address is on interface {facts.owners[0]} now, not on {self._holder(interface.name)}"
                )
                return Finding("address_moved", text, "the loader to look which interface it arrives on now")
            text = f"the node's address is not on {self._holder(interface.name)} any more"
            return Finding("address_moved", text, "the address")
        if not plane.named and plane.ifindex not in plane.owners and facts.ways and plane.ifindex not in facts.ways:
            text = f"packets to the members leave by interface {min(facts.ways)} now, not by {interface.name}"
            return Finding("route_moved", text, "the loader to move there (dataplane.interface would say it for good)")
        return None

    def _holder(self, name: str) -> str:
        """Describe, for a message, the interface that had the address. ``name``: name of the data plane's interface."""
        plane = self._plane
        return name if plane.ifindex in plane.owners else f"interface {min(plane.owners)}"

    def _foreign_program(self, facts: Facts | None) -> Finding | None:
        plane, interface = self._plane, facts.interface if facts is not None else None
        if interface is None or not plane.program:
            return None
        self._foreign = self._foreign + 1 if plane.program not in interface.programs else 0
        if self._foreign < _SEEN:
            return None
        who = f"program {min(interface.programs)} of others is there" if interface.programs else "none is there"
        text = f"the XDP program of {interface.name} is not ours ({plane.program}): {who}"
        return Finding("detached", text, "the loader to attach it again")

    def _steady(self, facts: Facts | None) -> bool:
        """Whether the interface's link was up (had a carrier) throughout the cycle.

        Packets that are lost while the link is down do not prove a fault.
        """
        interface = facts.interface if facts is not None else None
        if interface is None:
            return True
        before, self._carrier_changes = self._carrier_changes, interface.carrier_changes
        return interface.running and before in (None, interface.carrier_changes)

    def _undone(self, before: Work, work: Work) -> Finding | None:
        def grown(*names: str) -> int:
            return sum(work.kernel.get(name, 0) - before.kernel.get(name, 0) for name in names)

        name = self._plane.interface
        explained = grown(*_PASSED)
        # Subtract the counts of two cycles: the agent may read a datagram one cycle after the program has counted it.
        beside = work.at_socket - before.at_socket - explained - self._explained
        self._explained = explained
        if too_much(beside, beside + grown(*_TAKEN)):
            text = f"{beside} rumors that arrived by {name} in one cycle came past the programs"
            return Finding("passed_by", text, "the loader to attach them again")
        lost, sent = work.carriers_lost - before.carriers_lost, work.carriers_sent - before.carriers_sent
        if too_much(lost, sent):
            text = f"{lost} of {sent} own rumors were not multiplied on {name} in one cycle"
            return Finding("carriers_lost", text, "the loader to attach xg_tc_egress again")
        # An answer leaves the host on the same way as a copy, and ``copy_lost`` counts both.
        answers = grown("answer")
        due = grown("copy_due") + answers
        lost = due - answers - grown(*COPY_ENDS) + grown("copy_lost")
        if too_much(lost, due):
            text = f"{lost} of {due} copies and answers vanished on {name} in one cycle"
            return Finding("copies_lost", text, "a mode that carries (on a veth, native XDP needs GRO on the peer)")
        refused = grown("relay_failed", "fanout_failed", "answer_failed")
        if too_much(refused, due + grown(*_FANOUT_ENDS)):
            text = f"the kernel refused {refused} copies or answers on {name} in one cycle"
            return Finding("copies_refused", text, "a mode that carries")
        return None
