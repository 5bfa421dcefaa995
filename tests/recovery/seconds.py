# SPDX-License-Identifier: MIT
"""Seconds from the end of a fault's cause until a host is in its best mode again: causes, and what measures them."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

NATIVE = "XDP (native)"
#: Seconds that a cause lasts, and that are waited for the best mode.
LASTS, MOST = 6.0, 120.0
_POLL = 0.05


class Measured(Protocol):
    """A host whose faults can be made, and ended, from outside."""

    def status(self) -> dict[str, Any]:
        """The agent's status; ``mode`` is "none" while it does not answer."""

    def detach(self) -> None:
        """Take our program off the interface. The cause is over at once."""

    def take_address(self) -> None:
        """Remove the node's address."""

    def give_address(self) -> None:
        """And give it back."""

    def lose_carrier(self) -> None:
        """Take the far end of the link down."""

    def give_carrier(self) -> None:
        """And up."""

    def delete_interface(self) -> None:
        """Delete it, as when a driver is unloaded."""

    def make_interface(self) -> None:
        """And make it again, with its address."""

    def boot_without_address(self) -> None:
        """Start loader and agent as after a power cut, before the host has the node's address."""


def causes(host: Measured) -> dict[str, tuple[Callable[[], None], Callable[[], None] | None]]:
    """Name of each cause, how it begins, and how it ends."""
    return {
        "hook detached": (host.detach, None),
        "hook detached again": (host.detach, None),
        "address late": (host.take_address, host.give_address),
        "link back": (host.lose_carrier, host.give_carrier),
        "interface made again": (host.delete_interface, host.make_interface),
        "started without address": (host.boot_without_address, host.give_address),
    }


def measure(host: Measured, name: str) -> float:
    """Seconds from the end of a cause. Raises ``TimeoutError``."""
    _best(host)
    time.sleep(LASTS)  # a loader that was asked twice would mend a fault before it is noticed
    begin, end = causes(host)[name]
    if end is None:
        before = host.status()["counters"]["plane_stepped_down"]
        began = time.monotonic()
        begin()
        _until(lambda: host.status()["counters"].get("plane_stepped_down", 0) > before, f"{name}: not noticed")
    else:
        begin()
        time.sleep(LASTS)
        began = time.monotonic()
        end()
    _best(host)
    return time.monotonic() - began


def table(host: Measured, where: str, runs: int) -> None:
    """Measure every cause and print the seconds: median, least and most."""
    print(f"{where}: seconds from the end of the cause until {NATIVE}, {runs} runs; load {os.getloadavg()[0]:.1f}")
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for name in causes(host):
            found.setdefault(name, []).append(measure(host, name))
            print(f"    {name}: {found[name][-1]:.1f}", file=sys.stderr, flush=True)
    for name, seconds in found.items():
        print(f"  {name:<24} {statistics.median(seconds):5.1f}  [{min(seconds):.1f} .. {max(seconds):.1f}]", flush=True)
    print(f"  load at the end          {os.getloadavg()[0]:5.1f}", flush=True)


def _best(host: Measured) -> None:
    def there() -> bool:
        status = host.status()
        return status["mode"] == NATIVE and not status["mode_reason"]

    _until(there, f"not back in {NATIVE}")


def _until(there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + MOST
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {MOST:.0f} s")
        time.sleep(_POLL)
