# SPDX-License-Identifier: MIT
"""Checks, without changing anything, whether the loaded data plane works and which programs this kernel accepts."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ...core.types import Address
from .. import interfaces
from . import pins, selftest, state, supply
from .errors import Refused, Rejected
from .loading import Programs
from .programs import KNOCK, SEND, SEND_WATCH, SOURCES
from .settings import MODES, NATIVE, Settings
from .stock import Stock


def again(directory: Path, now: state.State) -> list[Refused]:
    """Send the self-test's frames through the hooks of the loaded mode. Returns the failures.

    Raises ``OSError`` if the pins of the self-test cannot be opened.
    """
    interface = interfaces.by_index(now.ifindex)
    if interface is None:
        return [Refused(f"{now.interface} is gone", "xdp-gossip dataplane up")]
    pinned = pins.pin_directory(directory, now.layout)
    found = []
    with ExitStack() as stack:

        def opened(name: str) -> int:
            return stack.enter_context(pins.opened(pinned / name))

        if KNOCK not in now.rejected:
            told, knocker = opened("selftest_knock"), opened(supply.pin(KNOCK))
            for hook in ("egress",) if now.mode == NATIVE else ("egress", "ingress"):
                try:
                    selftest.knock(knocker, told, interface, hook, pinned, Address.parse(now.node))
                except Refused as refused:
                    found.append(refused)
        if now.mode == NATIVE and SEND not in now.rejected:
            sender, watched = opened(supply.pin(SEND)), opened("selftest_watched")
            watcher = None if SEND_WATCH in now.rejected else opened(supply.pin(SEND_WATCH))
            try:
                selftest.redirect(sender, watcher, watched, interface)
            except Refused as refused:
                found.append(refused)
    return found


def trial(settings: Settings, stock: Stock) -> dict[str, Rejected | None]:
    """Load every program of ``stock`` with this kernel, then unload it again.

    Returns for each program the reason why the kernel rejects it; None if the kernel accepts it. Raises ``LoaderError``
    or ``HeaderError`` if the programs cannot be compiled.
    """
    found: dict[str, Rejected | None] = {}
    for source, names in SOURCES.items():
        part, sizes = stock.part(source), {"nodes": settings.nodes}
        programs = Programs(part, stock.compiler, supply.constants(settings), sizes)
        try:
            for name in names:
                try:
                    selftest.run_program(name, programs.load(name))
                    found[name] = None
                except Rejected as rejected:
                    found[name] = rejected
        finally:
            programs.close()
    return found


def lost_modes(rejected: str) -> list[str]:
    """The modes that are impossible without the program ``rejected``."""
    return [mode for mode in MODES["auto"] if rejected in supply.of_mode(mode)]
