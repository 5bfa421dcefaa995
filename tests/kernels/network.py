# SPDX-License-Identifier: MIT
"""Guests joined by virtio-net: taps with vnet headers, as hypervisors make them, on a bridge in its own namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "xgk-"
#: Each run has its own, so that two on one machine do not take each other's away.
NAMESPACE = f"{_PREFIX}{os.getpid()}"
BRIDGE = "br0"
NET = "198.18.61."
#: The member outside, on the bridge.
OUTSIDE = f"{NET}100"


def ip(*words: str, check: bool = True) -> None:
    """The ip command. Raises ``AssertionError`` with what it says."""
    done = subprocess.run(("ip", *words), capture_output=True, text=True, timeout=30)
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def enter(namespace: str = NAMESPACE) -> tuple[str, ...]:
    """Words that run what follows in the namespace."""
    return ("nsenter", f"--net=/run/netns/{namespace}")


@contextlib.contextmanager
def network() -> Iterator[None]:
    """The bridge; taken away in the end, with what is on it."""
    _remove_left_over()
    ip("netns", "add", NAMESPACE)
    try:
        for words in (
            ("link", "set", "lo", "up"),
            ("link", "add", BRIDGE, "mtu", "9000", "type", "bridge"),
            ("link", "set", BRIDGE, "up"),
            ("addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE),
        ):
            ip("-n", NAMESPACE, *words)
        yield
    finally:
        ip("netns", "del", NAMESPACE, check=False)


def _remove_left_over() -> None:
    """Delete the namespaces of runs that were killed."""
    for path in Path("/run/netns").glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX)
        if path.name == NAMESPACE or not Path("/proc", owner).exists():
            ip("netns", "del", path.name, check=False)


def device(number: int, options: str = "", queues: int = 1) -> tuple[str, ...]:
    """QEMU's words for guest ``number``'s interface, on a tap that is made here. ``options``: of virtio-net-pci."""
    tap = f"tap{number}"
    several = ("multi_queue",) if queues > 1 else ()
    ip("-n", NAMESPACE, "link", "del", tap, check=False)
    ip("-n", NAMESPACE, "tuntap", "add", tap, "mode", "tap", "vnet_hdr", *several)
    ip("-n", NAMESPACE, "link", "set", tap, "mtu", "9000", "master", BRIDGE, "up")
    netdev = f"tap,id=net{number},ifname={tap},script=no,downscript=no" + (f",queues={queues}" if queues > 1 else "")
    card = f"virtio-net-pci,netdev=net{number},mac=52:54:00:58:47:{number:02x}"
    if queues > 1:
        card += f",mq=on,vectors={2 * queues + 2}"
    return ("-netdev", netdev, "-device", card + (f",{options}" if options else ""))
