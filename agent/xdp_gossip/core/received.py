# SPDX-License-Identifier: MIT
"""An admitted packet, as the handler of its message gets it."""

from __future__ import annotations

from typing import NamedTuple

from .members.peer import Peer
from .packets import Header
from .types import Address, Now


class Received(NamedTuple):
    """An authentic, fresh packet.

    ``peer``: its origin. ``source``: the address it came from, which is another than the origin's when a relay or a
    TCP connection brought it. ``now``: when.
    """

    peer: Peer
    header: Header
    source: Address
    now: Now

    @property
    def origin(self) -> Address:
        """Address of the node that made it."""
        return self.header.origin
