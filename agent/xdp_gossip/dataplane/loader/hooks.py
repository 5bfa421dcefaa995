# SPDX-License-Identifier: MIT
"""The three hooks of an interface that programs sit on: XDP, TC ingress, TC egress. Attach, exchange, look, detach."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import attach, calls, clsact, netlink, pins, state
from .compile import INGRESS, TC_EGRESS, TC_INGRESS
from .errors import LoaderError, Refused
from .settings import TC
from .steps import step

#: Pin of the link -> (program, hook of TC or "" for XDP).
HOOKS = {
    "link_xdp": (INGRESS, ""),
    "link_tc_ingress": (TC_INGRESS, "ingress"),
    "link_tc_egress": (TC_EGRESS, "egress"),
}


def of_mode(mode: str) -> tuple[str, str]:
    """The two hooks that a mode uses, by the names of their pins: the way in and the way out."""
    return ("link_tc_ingress" if mode == TC else "link_xdp", "link_tc_egress")


class Hooks:
    """The hooks of one interface; ``now`` is written down whenever something is about to outlive this process."""

    def __init__(self, directory: Path, now: state.State, interface: netlink.Interface) -> None:
        self._directory = directory
        self._pins = pins.pin_directory(directory, now.layout)
        self._now = now
        self._interface = interface

    def attach(self, name: str, programs: dict[str, int], mode: str = "") -> None:
        """Put a program on a free hook. Raises ``Refused``."""
        program, hook = HOOKS[name]
        if not hook:
            link: int | None = attach.link_xdp(programs[program], self._interface, mode)
        else:
            link = attach.link_tcx(programs[program], self._interface, hook)
        step(f"{name} attached")
        if link is None:
            self._attach_filter(hook, programs[program])
            return
        with _closing(link):
            pins.replace(link, self._pins / name)
            self._now.links[name] = calls.link_info(link).id

    def exchange(self, name: str, programs: dict[str, int]) -> None:
        """Put another program on a hook that is ours, in one step. Raises ``OSError``, ``Refused``."""
        program, hook = HOOKS[name]
        if name in self._now.links:
            with pins.opened(self._pins / name) as link:
                calls.link_update(link, programs[program])
        else:
            self._attach_filter(hook, programs[program])

    def detach(self, name: str) -> None:
        """Take a program off its hook."""
        hook = HOOKS[name][1]
        pins.remove_link(self._pins / name)
        self._now.links.pop(name, None)
        if self._now.clsact and hook in self._now.clsact.filters:
            clsact.detach(self._now.clsact.ifindex, hook, self._now.clsact.filters.pop(hook))

    def _attach_filter(self, hook: str, program: int) -> None:
        index = self._interface.index
        number = calls.program_info(program)[0]
        if self._now.clsact is None:
            self._now.clsact = state.Clsact(index, made=not netlink.has_clsact(index))
        ours = self._now.clsact.filters.setdefault(hook, [])
        ours.append(number)
        state.write(self._directory, self._now)
        step(f"filter {hook} intended")
        try:
            if not netlink.has_clsact(index):
                clsact.make(index)
            step("clsact made")
            clsact.attach(index, hook, program, ours)
        except OSError as error:
            if error.errno == errno.EEXIST:
                text = f"priority {clsact.PRIORITY} of TC {hook} of {self._interface.name} is somebody else's"
                raise Refused(text, f"tc filter show dev {self._interface.name} {hook}") from None
            raise attach.why_no_tc(error, self._interface, hook) from None
        step(f"filter {hook} attached")


def running(directory: Path, now: state.State) -> dict[str, int]:
    """Hook -> id of the program that really sits there now, 0 where ours is gone (the interface too, maybe)."""
    pinned = pins.pin_directory(directory, now.layout)
    found = {}
    for name in of_mode(now.mode):
        hook = HOOKS[name][1]
        if name in now.links:
            found[name] = _link_program(pinned / name, now.ifindex)
        elif now.clsact is not None:
            number = clsact.query(now.clsact.ifindex, hook)
            found[name] = number if number in now.clsact.filters.get(hook, ()) else 0
        else:
            found[name] = 0
    return found


def _link_program(path: Path, ifindex: int) -> int:
    try:
        with pins.opened(path) as link:
            info = calls.link_info(link)
    except FileNotFoundError:
        return 0
    return info.program if info.ifindex == ifindex else 0


def detach_all(now: state.State) -> None:
    """Remove what no pin holds: filters, and a clsact of our making. Raises ``LoaderError``."""
    if now.clsact is None:
        return
    for hook, ours in now.clsact.filters.items():
        try:
            clsact.detach(now.clsact.ifindex, hook, ours)
        except OSError as error:
            raise LoaderError(f"TC {hook} of interface {now.clsact.ifindex}: {error.strerror}") from None
    if now.clsact.made:
        clsact.remove(now.clsact.ifindex)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
