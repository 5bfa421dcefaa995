# SPDX-License-Identifier: MIT
"""A layer-3 interface whose far end is this process: packets go to the tunnel that has their destination."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import select
import struct
import threading
from types import TracebackType

from tests.planes.fleet import inside

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000
_SECONDS = 0.2


class Tunnel:
    """``name`` in ``namespace``, for the IPv4 address ``ip``; it is gone when the context ends."""

    _all: dict[bytes, Tunnel] = {}  # noqa: RUF012 - the switch that all of them share

    def __init__(self, namespace: str, name: str, ip: str) -> None:
        self._namespace, self._name = namespace, name
        self._packed = ipaddress.IPv4Address(ip).packed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._forward, name=f"tunnel {ip}")
        self._fd = -1

    def __enter__(self) -> Tunnel:
        with inside(self._namespace):
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self._fd, _TUNSETIFF, struct.pack("16sH22x", self._name.encode(), _IFF_TUN | _IFF_NO_PI))
        self._all[self._packed] = self
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        del self._all[self._packed]
        os.close(self._fd)

    def _forward(self) -> None:
        while not self._over.is_set():
            if not select.select([self._fd], [], [], _SECONDS)[0]:
                continue
            with contextlib.suppress(BlockingIOError):
                packet = os.read(self._fd, 65536)
                far = self._all.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                if far is not None:
                    # A tunnel that is being taken down loses packets, as tunnels do.
                    with contextlib.suppress(OSError):
                        os.write(far._fd, packet)
