# SPDX-License-Identifier: MIT
"""Notices that other nodes sign with a key that this node does not have.

If a member misses a rotation of the keys, it hears nobody, because all others sign with a key that the member does not
have, and nobody hears it. The member then tells its operator so. Packets with an unknown key are not authenticated, so
they must cost nothing: this module stores at most ``MOST`` addresses, only those of nodes that this node knows anyway,
and warns at most once a minute.
"""

from __future__ import annotations

from collections.abc import Callable

from .events import Warned
from .members.membership import Membership
from .outbox import Outbox
from .types import Address, Now

#: Maximum number of addresses that are stored.
MOST = 64
#: Seconds for which a packet counts. Absent seeds are contacted every few seconds, former members every 30 s.
_RECENT = 120.0
#: Minimum seconds between two warnings.
_QUIET = 60.0


class UnknownKeys:
    """Records the known nodes whose packets are signed with a key that this node does not have.

    ``contacts`` returns whether this node contacts an address that is not in the NodeList: a seed or a former member.
    ``isolated`` returns whether no other node answers.
    """

    def __init__(
        self, membership: Membership, contacts: Callable[[Address], bool], isolated: Callable[[], bool], out: Outbox
    ) -> None:
        self._membership = membership
        self._contacts = contacts
        self._isolated = isolated
        self._out = out
        self._seen: dict[Address, float] = {}  # address -> monotonic time of its newest packet
        self._counted_at: float | None = None  # when a data plane last counted such a packet
        self._warned_at: float | None = None

    @property
    def nodes(self) -> int:
        """Number of known nodes whose recent packets are signed with an unknown key; at most ``MOST``."""
        return len(self._seen)

    @property
    def missed_rotation(self) -> bool:
        """Whether this node seems to have missed a rotation: it hears packets, but none with a key that it has."""
        if self._isolated():
            return bool(self._seen) or self._counted_at is not None
        return bool(self._seen) and not self._membership.number_alive

    def note(self, origin: Address, now: Now) -> None:
        """Record a packet with an unknown key that claims to come from ``origin``."""
        known = origin in self._seen or self._membership.get(origin) is not None or self._contacts(origin)
        if known and (origin in self._seen or len(self._seen) < MOST):
            self._seen[origin] = now.mono

    def counted(self, now: Now) -> None:
        """Record that a data plane dropped packets with an unknown key. It does not tell from whom."""
        self._counted_at = now.mono

    def clear(self) -> None:
        """Forget all packets, because the keys of this node have changed."""
        self._seen.clear()
        self._counted_at = self._warned_at = None

    def tick(self, now: Now) -> None:
        """Forget old packets, and warn of recent ones, at most once a minute."""
        for address in [address for address, mono in self._seen.items() if now.mono - mono >= _RECENT]:
            del self._seen[address]
        if self._counted_at is not None and now.mono - self._counted_at >= _RECENT:
            self._counted_at = None
        if self._warned_at is not None and now.mono - self._warned_at < _QUIET:
            return
        missed = self.missed_rotation
        if not missed and not self._seen:
            return
        self._warned_at = now.mono
        whose = f"packets from {len(self._seen)} addresses" if self._seen else "packets"
        text = f"{whose} are signed with a key that this member does not have; "
        if missed:
            text += "it may have missed a rotation: deploy again, or give it the keys of the other members"
        else:
            text += "their nodes may have missed a rotation: see xdp-gossip keys on each of them"
        self._out.emit(Warned("unknown_key", text))
