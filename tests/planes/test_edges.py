# SPDX-License-Identifier: MIT
"""What an observer gets for its probes is the same on every plane, until the agent is gone."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.planes.conftest import CYCLE, TIMEOUT
from tests.planes.fleet import PORT, Fleet, Host, inside
from tests.support.fleet import SECRET, eventually
from tests.support.patience import patient
from xdp_gossip.core.packets import Header, PacketType
from xdp_gossip.core.types import Address
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

CODEC = NativeCodec(Keyring.single("default", SECRET))
#: Until an answer that is wanted comes; and one that is not wanted would have come.
COMES, WOULD_COME = patient(3.0), 0.5


class Observer:
    """A node that does nothing but ask, on the host of a member, at another port."""

    def __init__(self, home: Host, asked: Host) -> None:
        with inside(home.namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((home.ip, 0))
        self._address = Address(home.ip, self._socket.getsockname()[1])
        self._asked = asked
        self.incarnation, self.round = time.time_ns() // 10**9 & 0xFFFFFFFF, 1 << 61

    def probe(self) -> bytes:
        """The probe of the next round."""
        self.round += 1
        fields = (self.incarnation, self.round, time.time_ns(), 0, 0)
        return CODEC.encode(Header(PacketType.EDGE_PROBE, self._address, *fields), None)

    def ask(self, data: bytes, wanted: bool = True) -> Header | None:
        """The verified answer to a packet, None if there is none."""
        self._socket.sendto(data, (self._asked.ip, PORT))
        if not select.select([self._socket], [], [], COMES if wanted else WOULD_COME)[0]:
            return None
        answer, source = self._socket.recvfrom(2048)
        assert source == (self._asked.ip, PORT) and len(answer) == len(data)
        header = CODEC.parse(answer)
        CODEC.verify(answer, header)
        return header

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


@contextlib.contextmanager
def observer(fleet: Fleet) -> Iterator[Observer]:
    """One beside the second member that asks the first."""
    made = Observer(fleet[1], fleet[0])
    try:
        yield made
    finally:
        made.close()


def test_a_probe_is_answered_once_with_what_the_node_says_of_itself(fleet: Fleet) -> None:
    fleet[1].publish("answered", fleet.plane.encode())
    fleet.settled()
    with observer(fleet) as asker:
        asker.ask(asker.probe())  # the first one may meet a neighbour entry that is made
        for _ in range(5):
            data, began = asker.probe(), time.time_ns()
            header = asker.ask(data)
            assert header is not None
            assert (header.type, header.origin) == (PacketType.EDGE_ACK, Address(fleet[0].ip, PORT))
            assert header.sequence == asker.round
            assert began - 10**9 <= header.wall_ns <= time.time_ns() + 10**9
            assert header.lease_age_ms < TIMEOUT * 1000, "its agent runs"
            assert asker.ask(data, wanted=False) is None, "a recording is not answered"
        assert asker.ask(asker.probe()[:64] + bytes(16) + data[80:], wanted=False) is None, "nor is a forgery"


def test_a_host_answers_without_its_agent_where_the_kernel_does(fleet: Fleet) -> None:
    """The age of its lease grows, and that is how observers know."""
    with observer(fleet) as asker:
        asker.ask(asker.probe())
        fleet[0].signal(signal.SIGKILL)
        eventually(lambda: "still there" if fleet[0].running else None, 10)
        ages = []
        for _ in range(3):
            header = asker.ask(asker.probe(), wanted=fleet.plane != "UDP")
            if fleet.plane == "UDP":
                assert header is None
                return
            assert header is not None
            ages.append(header.lease_age_ms)
            time.sleep(2 * CYCLE)
        assert ages == sorted(set(ages)) and ages[-1] - ages[0] >= 4 * CYCLE * 1000
        # It starts again: the age is that of an agent at work, and the incarnation is the new one.
        before = header.incarnation
        fleet.start([fleet[0]])
        fleet.settled(30)
        header = asker.ask(asker.probe())
        assert header is not None and header.lease_age_ms < ages[0] + 2000 and header.incarnation > before


def test_members_ask_each_other_and_no_agent_is_woken_for_it(fleet: Fleet) -> None:
    if fleet.plane == "UDP":
        pytest.skip("about the kernel data plane")

    def counts() -> list[tuple[int, int]]:
        return [(host.kernel()["answer"], host.kernel()["take_ack"]) for host in fleet]

    before = counts()

    def asked() -> str | None:
        short = [
            host.name for host, was, now in zip(fleet, before, counts()) if now[0] < was[0] + 6 or now[1] < was[1] + 6
        ]
        return f"{short}: no probes answered, or no answers recorded" if short else None

    eventually(asked, 20 * CYCLE + 5)
    for host in fleet:
        status = host.status()["counters"]
        assert not status.get("rx_edge_probe") and not status.get("rx_edge_ack"), f"{host.name} reads them itself"
