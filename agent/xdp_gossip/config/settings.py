# SPDX-License-Identifier: MIT
"""All settings of a node: those of its engine (:mod:`xdp_gossip.core.settings`), transport, store and data plane.

The library's constructor or the reader of ``agent.yml`` creates a :class:`NodeSettings`. The node list, its transport,
its store and its engine all receive the same :class:`NodeSettings` and read their settings from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..core.settings import MAX_DATAGRAM, MAX_OBJECT, AgentYml, Knob, Settings, knobs, setting
from ..core.signers import Signer

WIRES = ("native", "pekonode")
#: ``XDP`` and ``TC`` require a kernel data plane in a mode of that name; ``auto`` selects the best mode the host
#: supports.
PROTOCOLS = ("UDP", "TCP", "auto", "XDP", "TC")


@dataclass(frozen=True)
class ClusterKey:
    """One cluster key: its ``state`` (staged, active or retiring) and its secret, which the reader took from ``file``.

    ``file`` is "" if a program passed the secret itself.
    """

    state: str
    secret: str = field(repr=False)
    file: str = ""


@dataclass(frozen=True)
class DataPlaneConfig:
    """Settings of the kernel data plane: its interface, its state directory, and the networks that may send packets."""

    interface: str = setting(
        "",
        "interface of the data plane; if not set, the interface that has `node.addr`",
        words="the name of an interface",
    )
    directory: str = setting(
        "/run/xdp-gossip-dataplane",
        "directory of the kernel data plane: pins, state and requests to the loader",
        words="a path",
        agent=AgentYml(words="an absolute path"),
    )
    prepare_interface: bool = setting(
        False, "whether the loader may change offloads and queues of the interface that prevent a mode"
    )
    allow: tuple[str, ...] = setting(
        (),
        "networks from which this node accepts gossip packets, over any protocol; if not set, all networks",
        words="at most 256 networks such as 10.0.0.0/8",
    )


@dataclass(frozen=True)
class NodeSettings(Settings):
    """All settings of a node. If ``state_dir`` is "", nodes and documents are stored in memory only."""

    buffer: int = setting(
        0,
        "maximum number of packets in the queue for one peer, and in the queue for the kernel",
        unit="packets",
        least=1,
        most=1_000_000,
        auto="3 x amount",
    )
    secret_key: str = setting(
        "",
        "the secret, the same on all nodes; without a secret, packets are checked for damage but not authenticated",
        secret=True,
        agent=AgentYml(
            key="secret_key_file",
            reload=True,
            words="a private file with one line: a generated key, or a passphrase of at least 16 bytes",
        ),
    )
    protocol: str = setting(
        "UDP",
        "`UDP` (long packets still use TCP) or `TCP`; `auto` uses the kernel data plane if it is loaded, "
        "else UDP; `XDP` and `TC` require the kernel data plane in that mode",
        choices=PROTOCOLS,
        any_case=True,
        agent=AgentYml(default="auto"),
    )
    listen_addr: str = setting(
        "0.0.0.0",
        "local address to listen on, of the same family as the node's address; `::` for IPv6 and IPv4",
        words="an IP address",
    )
    is_print: bool = setting(False, "print PekoNode's console lines")
    wire: str = setting("native", "`native`, or `pekonode` to join a [PekoNode cluster](pekonode.md)", choices=WIRES)
    cluster: str = setting(
        "default",
        "name of the cluster; members of different clusters ignore each other's packets",
        unit="bytes of UTF-8",
        least=1,
        most=255,
        agent=AgentYml(
            pattern="[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            words="1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
        ),
    )
    keys: tuple[ClusterKey, ...] = setting(
        (),
        "several keys, for [rotation](security.md#rotation-of-the-secret); set either `keys` or a single secret",
        words="at most 8 of (state, secret)",
        agent=AgentYml(reload=True, words="at most 8 of {state, file}; state staged, active or retiring"),
    )
    signers: tuple[Signer, ...] = setting(
        (),
        "signers of documents: a document whose key begins with a prefix of a signer needs the signer's signature",
        words="a list of (name, public key, prefixes, time or None)",
        agent=AgentYml(
            reload=True, words="a list of {name, public_key, prefixes, valid_before}; see [security.md](security.md)"
        ),
    )
    state_dir: str = setting(
        "",
        "directory in which the node stores its identity, nodes and documents",
        words="a path",
        agent=AgentYml(default="/var/lib/xdp-gossip", words="an absolute path"),
    )
    history: int = setting(10, "versions kept of each document", unit="versions", least=1, most=1_000)
    dataplane: DataPlaneConfig = setting(DataPlaneConfig(), "the kernel data plane", words="a section")

    @property
    def key_pairs(self) -> list[tuple[str, str]]:
        """State and secret of each key, for ``wire.keys.Keyring``. The sole secret is active."""
        return [(key.state, key.secret) for key in self.keys] or [("active", self.secret_key)]

    @property
    def queue(self) -> int:
        """Maximum packets that a transport queues for one peer; 3 x ``amount`` if ``buffer`` is 0."""
        return self.buffer or 3 * self.amount


def rules(kind: type[NodeSettings], wire: str, protocol: str) -> Mapping[str, Knob]:
    """Return the settings that the class ``kind`` declares.

    With PekoNode's wire format, ``size`` and ``protocol`` allow other values than with the native wire format.
    """
    found = knobs(kind)
    if wire != "pekonode":
        return found
    # The kernel cannot parse PekoNode's packets, so the modes of the data plane are not allowed. PekoNode's packets
    # have no minimum size.
    most = MAX_OBJECT if protocol.upper() == "TCP" else MAX_DATAGRAM
    size = replace(found["size"], least=1, most=most, agent=AgentYml(least=1024))
    plain = tuple(name for name in PROTOCOLS if name not in ("XDP", "TC"))
    return {**found, "size": size, "protocol": replace(found["protocol"], choices=plain)}
