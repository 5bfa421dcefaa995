# SPDX-License-Identifier: MIT
"""64 of 64 copies of an own rumor arrive, on each plane, IPv4 and IPv6: with no next hop known yet, and with one."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.planes import send_copies
from tests.planes.fleet import PLANES, Fleet, command, enter, inside
from xdp_gossip.core.types import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(100)]

COPIES = 64
CASES = [*((plane, False) for plane in PLANES), ("TC", True), ("XDP (native)", True)]


@pytest.mark.parametrize(("plane", "six"), CASES)
def test_every_copy_arrives(plane: str, six: bool) -> None:
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(plane, 2, six=six, loaded=1))
        sender, receiver = fleet
        with inside(receiver.namespace):
            family = socket.AF_INET6 if six else socket.AF_INET
            sockets = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(COPIES)]
            for number, sock in enumerate(sockets):
                sock.bind((receiver.ip, 20_000 + number))
                sock.setblocking(False)
        targets = [Address(receiver.ip, 20_000 + number) for number in range(COPIES)]
        own = Address(sender.ip, sender.port)
        directory = "-" if plane == "UDP" else str(sender.plane_dir)
        script = str(Path(send_copies.__file__))
        words = (*enter(sender.namespace), sys.executable, script, directory, str(own), *map(str, targets))
        told = json.loads(command(*words))
        rounds = [send_copies.rumor(own, number) for number in range(1, send_copies.ROUNDS + 1)]
        for number, sock in enumerate(sockets):
            got = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(sock.recvfrom(2000))
            assert [data for data, _ in got] == rounds, f"target {number} got {got}"
            assert {source[:2] for _, source in got} == {(sender.ip, sender.port)}
    transport, kernel = told["transport"], told["kernel"]
    if plane == "UDP":
        assert transport["datagrams_sent"] == 2 * COPIES
        return
    assert (transport["carriers_sent"], transport["carriers_lost"]) == (2, 0)
    assert kernel["fanout"] == 2
    assert kernel["fanout_copy"] == COPIES, kernel
    assert kernel["fanout_unresolved"] == transport["plane_unresolved"] == transport["datagrams_sent"] == COPIES
    assert kernel["fanout_failed"] == kernel["fanout_surplus"] == 0
