# SPDX-License-Identifier: MIT
"""A veth pair in a network namespace of its own: what programs send into one end is read at the other."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.bpf.harness import inside

#: Of this process: test files run side by side.
NAMESPACE = f"xgb-wire-{os.getpid()}"
NEAR, FAR = "xgb-near", "xgb-far"
_EVERYTHING = 3  # ETH_P_ALL
_SO_RCVBUFFORCE = 33


def ip(*words: str, check: bool = True) -> str:
    """The ip command. Raises ``AssertionError`` with what it says."""
    done = subprocess.run(("ip", *words), capture_output=True, text=True, timeout=30)
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def wait_until_up(namespace: str, *links: str, seconds: float = 60.0) -> None:
    """Until the links send: a new one has a queue that drops everything until the kernel's link watch came to it.

    Raises ``AssertionError`` with what the links are instead.
    """
    end = time.monotonic() + seconds
    for link in links:
        while "state UP" not in (told := ip("-n", namespace, "link", "show", "dev", link)):
            assert time.monotonic() < end, f"not up: {told}"
            time.sleep(0.02)


class Wire:
    """``ifindex`` is the end that programs send into."""

    def __init__(self) -> None:
        with inside(NAMESPACE):
            self.ifindex = socket.if_nametoindex(NEAR)
            self._far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
            self._far.bind((FAR, 0))
            self._far.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            self._far.setblocking(False)

    def frames(self, expected: int = 0, seconds: float = 2.0, rumor: bytes = b"") -> list[bytes]:
        """What arrived: at least ``expected`` frames if they come within ``seconds``, and all that are there.

        With ``rumor``, a packet, only copies of it: a frame of an earlier test may come late on a busy machine.
        """
        found: list[bytes] = []
        end = time.monotonic() + seconds
        while True:
            try:
                while True:
                    data, address = self._far.recvfrom(4096)
                    if address[2] != socket.PACKET_OUTGOING and rumor[64:80] in data:
                        found.append(data)
            except BlockingIOError:
                pass
            if len(found) >= expected or time.monotonic() > end:
                return found
            select.select([self._far], [], [], 0.05)

    def close(self) -> None:
        """Give the socket back."""
        self._far.close()


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """Make the pair; take it away."""
    ip("netns", "del", NAMESPACE, check=False)
    ip("netns", "add", NAMESPACE)
    try:
        ip("-n", NAMESPACE, "link", "add", NEAR, "type", "veth", "peer", "name", FAR)
        for link in (NEAR, FAR):
            # No addresses, so that nothing but what the programs send is on the wire.
            ip("-n", NAMESPACE, "link", "set", link, "addrgenmode", "none", "up")
        wait_until_up(NAMESPACE, NEAR, FAR)
        made = Wire()
        try:
            yield made
        finally:
            made.close()
    finally:
        ip("netns", "del", NAMESPACE, check=False)
