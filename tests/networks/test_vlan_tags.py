# SPDX-License-Identifier: MIT
"""Frames of another VLAN are not ours: counted nowhere, relayed nowhere, left to the stack.

A tag may be in the frame, or beside it where a device puts it in or takes it out. XDP does not see the latter: what
has to be switched off for it, the loader says (docs/networks.md).
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.bpf import frames
from tests.networks import foreign
from tests.networks.rows import bridge, macvlan, veth, veth_jumbo_tags_kept
from tests.networks.world import NetHost, Row, World, missing_types, params
from tests.planes.fleet import PORT, command, enter, inside
from tests.support.fleet import SECRET, eventually
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

VLAN, COUNT = 7, 20
STRANGER_MAC = bytes.fromhex("020000000063")
_CODEC = NativeCodec(Keyring.single("default", SECRET))
_IPV4 = 0x0800

MODES = [
    Row("XDP (native)", veth),
    Row("XDP (generic)", veth_jumbo_tags_kept, mode="XDP (generic)"),
    Row("TC", veth, mode="TC", settings={"protocol": "TC"}),
    # The stack has taken the tag out before these get a frame: TC only (docs/networks.md).
    Row("bridge", bridge, mode="TC", interface="br9"),
    Row("macvlan", macvlan, mode="TC", interface="mac0", needs=("macvlan",), variant=True),
]


@pytest.fixture(scope="module", params=params(MODES))
def still(request: pytest.FixtureRequest) -> Iterator[World]:
    """Two hosts whose agents are stopped, so that counters change only by what a test sends."""
    lacking = missing_types(request.param.needs)
    if lacking:
        pytest.skip(f"{request.param.name}: this kernel has no {', '.join(lacking)} interfaces")
    with World(request.param, 2, timeout=10.0) as world:
        world.start()
        world.settled(30)
        assert world.hosts[0].status()["mode"] == world.row.mode, world.hosts[0].loader_said
        for host in world.hosts:
            host.signal(signal.SIGSTOP)
        yield world


def heartbeat(host: NetHost, stranger: int) -> bytes:
    """A frame with an authentic rumor of a newcomer, as a relayer would send it to the host."""
    origin = Address(f"198.18.64.{stranger}", PORT)
    packet = _CODEC.encode(Header(PacketType.HEARTBEAT, origin, 1, 1, time.time_ns(), 0, 0, ttl=8), None)
    return frames.frame(packet, origin, Address(host.ip, host.port), mac_target=_mac(host), mac_source=STRANGER_MAC)


def _mac(host: NetHost) -> bytes:
    (link,) = json.loads(host.ip_("-j", "link", "show", host.row.interface))
    return bytes.fromhex(str(link["address"]).replace(":", ""))


def tagged(frame: bytes) -> bytes:
    """The frame with a tag in it."""
    return frame[:12] + struct.pack("!HH", frames.ETH_VLAN, VLAN) + frame[12:]


def send(host: NetHost, sent: list[bytes]) -> None:
    """Put frames onto the host's link, from the hub's end."""
    with inside(host.hub), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((f"eth0-{host.number}", 0))
        for frame in sent:
            sock.send(frame)


@contextlib.contextmanager
def stack_of(host: NetHost) -> Iterator[socket.socket]:
    """A socket that sees the IPv4 packets that got past XDP and TC to the stack, of this VLAN or another."""
    with inside(host.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV4)) as sock:
        sock.settimeout(0.2)
        yield sock


def seen(sock: socket.socket) -> int:
    """How many frames of the stranger it holds."""
    found = 0
    with contextlib.suppress(socket.timeout):
        while found < COUNT:
            found += STRANGER_MAC in sock.recv(65536)[:12]
    return found


def quiet(world: World) -> list[dict[str, int]]:
    """The counters of all, once nothing is under way."""
    last: list[list[dict[str, int]]] = [[host.kernel() for host in world.hosts]]

    def moving() -> str | None:
        last.append([host.kernel() for host in world.hosts])
        return None if last[-1] == last[-2] else "the counters change with all agents stopped"

    eventually(moving, 20, 0.2)
    return last[-1]


@pytest.mark.parametrize("where", ["in the frame", "beside the frame"])
def test_frames_of_another_vlan_are_not_ours(still: World, where: str) -> None:
    host, far = still.hosts[0], "eth0-1"
    beside = where == "beside the frame"
    # XDP sees what the peer's driver leaves beside the frame only if it is told to put it in.
    if beside and still.row.mode != "TC":
        command(*enter(host.hub), "ethtool", "-K", far, "txvlan", "off")
    before = quiet(still)
    numbers = range(100, 100 + COUNT) if beside else range(150, 150 + COUNT)
    rumors = [heartbeat(host, number) for number in numbers]
    with stack_of(host) as sock:
        if beside:
            with foreign.attached(foreign.tagging(VLAN), host.hub, far, egress=True):
                send(host, rumors)
        else:
            send(host, [tagged(frame) for frame in rumors])
        assert seen(sock) == COUNT, "they are the stack's"
    assert quiet(still) == before
    # The same without a tag is ours: what was counted above is not nothing for another reason.
    send(host, rumors)
    eventually(lambda: _taken(host, before[0]["take_newcomer"] + COUNT), 10, 0.1)


def _taken(host: NetHost, wanted: int) -> str | None:
    found = host.kernel()["take_newcomer"]
    return None if found == wanted else f"{found} newcomers taken, expected {wanted}"
