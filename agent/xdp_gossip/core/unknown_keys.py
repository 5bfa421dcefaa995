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
from .members.timing import Timing
from .outbox import Outbox
from .types import Address, Now

#: Maximum number of addresses that are stored.
MOST = 64
#: Seconds for which a packet counts. Absent seeds are contacted every few seconds, former members every 30 s.
_RECENT = 120.0
#: Seconds from the first packet until the first warning. By then this node knows whether it is isolated, and a packet
#: that was still under way at the end of a rotation causes no warning.
_SURE = 10.0
#: Minimum seconds between two warnings.
_QUIET = 60.0


class UnknownKeys:
    """Records the known nodes whose packets are signed with a key that this node does not have.

    ``contacts`` returns whether this node contacts an address that is not in the NodeList: a seed or a former member.
    ``isolated`` returns whether no other node answers.
    """

    def __init__(
        self,
        membership: Membership,
        timing: Timing,
        contacts: Callable[[Address], bool],
        isolated: Callable[[], bool],
        out: Outbox,
    ) -> None:
        #: Whether this node seems to have missed a rotation: it hears packets, but none signed with a key that it has.
        self.missed_rotation = False
        self._membership = membership
        self._timing = timing
        self._contacts = contacts
        self._isolated = isolated
        self._out = out
        self._seen: dict[Address, float] = {}  # address -> monotonic time of its newest packet
        self._counted_at: float | None = None  # when a data plane last counted such a packet
        self._since: float | None = None  # monotonic time of the first of the recent packets
        self._warned_at: float | None = None

    @property
    def nodes(self) -> int:
        """Number of known nodes whose recent packets are signed with an unknown key; at most ``MOST``."""
        return len(self._seen)

    def note(self, origin: Address, now: Now) -> None:
        """Record a packet with an unknown key that claims to come from ``origin``."""
        known = origin in self._seen or self._membership.get(origin) is not None or self._contacts(origin)
        if known and (origin in self._seen or len(self._seen) < MOST):
            self._seen[origin] = now.mono
            self._since = now.mono if self._since is None else self._since

    def counted(self, now: Now) -> None:
        """Record that a data plane dropped packets with an unknown key. It does not tell from whom."""
        self._counted_at = now.mono
        self._since = now.mono if self._since is None else self._since

    def clear(self) -> None:
        """Forget all packets, because the keys of this node have changed."""
        self._seen.clear()
        self._counted_at = self._since = self._warned_at = None
        self.missed_rotation = False

    def tick(self, now: Now) -> None:
        """Forget old packets, and warn of recent ones, at most once a minute."""
        for address in [address for address, mono in self._seen.items() if now.mono - mono >= _RECENT]:
            del self._seen[address]
        if self._counted_at is not None and now.mono - self._counted_at >= _RECENT:
            self._counted_at = None
        if not self._seen and self._counted_at is None:
            self._since = None
        self.missed_rotation = self._judge(now)
        if self._since is None or now.mono - self._since < _SURE:
            return
        if self._warned_at is not None and now.mono - self._warned_at < _QUIET:
            return
        if not self.missed_rotation and not self._seen:
            return
        self._warned_at = now.mono
        whose = f"packets from {len(self._seen)} addresses" if self._seen else "packets"
        text = f"{whose} are signed with a key that this member does not have; "
        if self.missed_rotation:
            text += "it may have missed a rotation: deploy again, or give it the keys of the other members"
        else:
            text += "their nodes may have missed a rotation: see xdp-gossip keys on each of them"
        self._out.emit(Warned("unknown_key", text))

    def _judge(self, now: Now) -> bool:
        # What a data plane has counted may come from a stranger, and a node that knows nobody hears nobody.
        if not self._seen and not (self._counted_at is not None and self._isolated()):
            return False
        return not any(
            peer.heard and self._membership.silence(peer, now) <= self._timing.timeout for peer in self._membership
        )
