# SPDX-License-Identifier: MIT
"""Selects engine, transport and steering for a node list.

Only this module imports all engines, transports and steerings.

Modules that a combination does not use are not imported: for example, a node with the native wire over UDP saves the
memory of the other wires and transports.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..config.settings import NodeSettings
from ..core.allowlist import AllowList, parse_network
from ..core.engine import Engine
from ..core.interface import ProtocolEngine
from ..core.members.timing import MAX_COPIES, WIDE
from ..core.signers import Signers
from ..core.types import Node
from ..signing.sshsig import verify
from ..signing.together import verify_all
from ..transport import Transport, TransportError
from ..transport.udp import UdpTransport
from ..wire.keys import Keyring, cluster_id
from ..wire.native import NativeCodec
from .steering import PlaneSteering, WithoutPlane

if TYPE_CHECKING:
    from ..dataplane.maps import DataPlane


def keyring_of(settings: NodeSettings) -> Keyring | None:
    """Derive the keys that ``settings`` name; None on PekoNode's wire, which has no keys. Raises ``ValueError``."""
    if settings.wire == "pekonode":
        return None
    try:
        return Keyring(settings.cluster, settings.key_pairs)
    except ValueError as error:
        raise ValueError(f"{'keys' if settings.keys else 'secret_key'}: {error}") from None


class Assembly:
    """Builds the parts of one node from its settings. The constructor raises ``ValueError`` for invalid keys."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.keyring = keyring_of(settings)
        self.allow = AllowList([parse_network(network) for network in settings.dataplane.allow])

    @property
    def _plane(self) -> str:
        return self.settings.protocol.upper()

    def engine(
        self, node: Node, incarnation: int, plane: str, rng: random.Random, sealing: bytes = b""
    ) -> ProtocolEngine:
        """Build the protocol engine for ``node``.

        ``plane`` is the name of the node's transport, and ``sealing`` the fingerprint of its sealing key. The node
        announces both to other members.
        """
        if self.settings.wire == "pekonode":
            from ..pekonode import PekoNodeEngine

            return PekoNodeEngine(node, self.settings, rng, self.settings.secret_key)
        assert self.keyring is not None
        codec, settings = NativeCodec(self.keyring), self.settings
        signers = Signers(settings.cluster, settings.signers, verify, verify_all)
        about = (node, settings, codec, rng, incarnation)
        return Engine(*about, agent_version=__version__, plane=plane, signers=signers, sealing=sealing)

    def transport(self, node: Node) -> tuple[Transport, str]:
        """Build the transport without opening it.

        Returns the transport, and the reason why the transport cannot have a kernel data plane. The reason is "" if a
        data plane is possible, or if the settings do not request one. Raises ``TransportError`` if the node cannot use
        the protocol that the settings name.
        """
        listen, own = (self.settings.listen_addr, node.port), node.address
        size, queue = self.settings.size, self.settings.queue
        if self.settings.wire == "pekonode":
            if self._plane == "TCP":
                from ..pekonode.transport import OneShotTransport

                return OneShotTransport(listen, size=size, buffer=queue, own=own), ""
            plain = UdpTransport(listen, size=size, buffer=queue, datagram=size, frames=False, own=own)
            return plain, "the kernel data plane cannot read the wire of PekoNode" if self._plane == "AUTO" else ""
        if self._plane == "TCP":
            from ..transport.tcp import TcpTransport

            return TcpTransport(listen, size=size, buffer=queue, own=own), ""
        if self._plane == "UDP":
            return UdpTransport(listen, size=size, buffer=queue, own=own), ""
        from ..dataplane.headers import HeaderError
        from ..dataplane.transport import KernelTransport

        try:
            return KernelTransport(listen, own, size=size, buffer=queue), ""
        except HeaderError as error:  # the library was installed without the directory bpf/
            if self._plane != "AUTO":
                raise TransportError(f"protocol {self.settings.protocol}: {error}") from None
            return UdpTransport(listen, size=size, buffer=queue, own=own), str(error)

    def steering(self, engine: ProtocolEngine, transport: Transport, why_not: str) -> PlaneSteering:
        """Build the steering that keeps a kernel data plane in sync with ``engine``.

        ``why_not`` is the reason why ``transport`` cannot have a data plane, as returned by :meth:`transport`.
        """
        if not isinstance(engine, Engine):
            return WithoutPlane(why_not)
        directory = Path(self.settings.dataplane.directory)
        if self._plane in ("UDP", "TCP"):
            if directory.is_dir():  # an earlier run of the agent may have used a data plane
                from ..dataplane.aside import stand_aside

                stand_aside(directory, engine.node.address)
            return WithoutPlane(why_not)
        from ..dataplane.transport import KernelTransport

        if not isinstance(transport, KernelTransport):
            return WithoutPlane(why_not)
        from ..dataplane.maps import open_plane
        from ..dataplane.monitor import Monitor
        from ..dataplane.steering import Steering

        own, settings = engine.node.address, self.settings
        amount = settings.amount
        wide = min(MAX_COPIES, WIDE * amount)
        allow = self.allow.entries()

        def find() -> DataPlane:
            keyring = self.keyring  # the keys may have been replaced since the node started
            assert keyring is not None
            return open_plane(
                directory,
                settings.protocol,
                own,
                cluster_id(settings.cluster),
                amount,
                wide,
                keyring.mac_keys,
                keyring.active.id,
                allow,
            )

        return Steering(engine, transport, find, own, settings.protocol, directory, Monitor(own.ip))
