# SPDX-License-Identifier: MIT
"""The packet of a message, as the dispatcher passes it to the message handler."""

from __future__ import annotations

from typing import NamedTuple

from .members.peer import Peer
from .packets import Header
from .types import Address, Now


class Received(NamedTuple):
    """An authentic, fresh packet, without its message.

    ``peer``: the packet's origin. ``source``: the sender's address, which differs from the origin's address if a relay
    or a TCP connection delivered the packet. ``now``: the time of arrival.
    """

    peer: Peer
    header: Header
    source: Address
    now: Now

    @property
    def origin(self) -> Address:
        """Address of the node that created the packet."""
        return self.header.origin
