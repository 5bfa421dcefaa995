# SPDX-License-Identifier: MIT
"""An admitted packet, as the handler of its message gets it."""

from __future__ import annotations

from typing import NamedTuple

from .members.peer import Peer
from .packets import Header
from .types import Address, Now


class Received(NamedTuple):
    """An authentic, fresh packet.

    ``peer``: its origin. ``source``: the address that it came from; this differs from the origin's address if a relay
    or a TCP connection delivered it. ``now``: the time of arrival.
    """

    peer: Peer
    header: Header
    source: Address
    now: Now

    @property
    def origin(self) -> Address:
        """Address of the node that created the packet."""
        return self.header.origin
