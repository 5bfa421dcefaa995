# SPDX-License-Identifier: MIT
"""The packet that carried a message. The dispatcher passes this packet to the handler of the message."""

from __future__ import annotations

from typing import NamedTuple

from .members.peer import Peer
from .packets import Header
from .types import Address, Now


class Received(NamedTuple):
    """A packet that passed all checks of :class:`.admission.Admission`, without its message.

    ``peer``: the packet's origin. ``source``: the address from which the packet arrived. ``source`` differs from the
    origin's address if a member relayed the packet or if the packet came over TCP. ``now``: the time of arrival.
    """

    peer: Peer
    header: Header
    source: Address
    now: Now

    @property
    def origin(self) -> Address:
        """Address of the node that created the packet."""
        return self.header.origin
