# SPDX-License-Identifier: MIT
"""The three hooks of an interface to which the loader attaches programs: XDP, TC ingress, TC egress.

Attach, replace, inspect, detach.

A fourth hook is the kernel's tracepoint at which ``xg_watch`` counts the copies that a driver did not send.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import interfaces, libbpf
from . import attach, clsact, pins, state
from .errors import LoaderError, Refused
from .programs import INGRESS, TC_EGRESS, TC_INGRESS
from .settings import TC
from .steps import step

#: Maps the pin name of each link to the link's program and TC hook ("" for XDP).
HOOKS = {
    "link_xdp": (INGRESS, ""),
    "link_tc_ingress": (TC_INGRESS, "ingress"),
    "link_tc_egress": (TC_EGRESS, "egress"),
}
#: The tracepoint for frames that are sent through a device map, and the pin name of our link to this tracepoint.
WATCH_POINT, WATCH_LINK = "xdp_devmap_xmit", "link_watch"
#: Maximum number of priorities that the loader tries for a filter.
_MOST_PRIORITIES = 16


def of_mode(mode: str) -> tuple[str, str]:
    """The names of the two hooks that a mode uses: ingress and egress."""
    return ("link_tc_ingress" if mode == TC else "link_xdp", "link_tc_egress")


class Hooks:
    """The hooks of one interface.

    The class saves the state ``now`` before each step whose effect outlives this process.
    """

    def __init__(self, directory: Path, now: state.State, interface: interfaces.Interface) -> None:
        self._directory = directory
        self._pins = pins.pin_directory(directory, now.layout)
        self._now = now
        self._interface = interface

    def sits(self, name: str) -> bool:
        """Whether one of our programs is attached to the hook now. Raises ``OSError``."""
        return bool(self.program_on(name))

    def program_on(self, name: str) -> int:
        """The id of our program on the hook; 0 if there is none. Raises ``OSError``."""
        return _sitting(self._pins, self._now, name)

    def attach(self, name: str, program: int, mode: str = "") -> None:
        """Attach a program to a hook. If the hook allows several programs, ours runs before the others.

        Raises ``Refused``.
        """
        hook = HOOKS[name][1]
        # Remove the remains of a detached link or of a killed loader, because they would block the new link.
        self.detach(name)
        if not hook:
            link: int | None = attach.link_xdp(program, self._interface, mode)
        else:
            link = attach.link_tcx(program, self._interface, hook)
        step(f"{name} attached")
        if link is None:
            self._attach_filter(hook, program)
            return
        self._keep(name, link)

    def exchange(self, name: str, program: int) -> None:
        """Atomically replace our program on a hook with ``program``. Raises ``OSError``, ``Refused``."""
        if name in self._now.links:
            with pins.opened(self._pins / name) as link:
                libbpf.link_update(link, program)
        else:
            self._attach_filter(HOOKS[name][1], program)
        step(f"{name} exchanged")

    def detach(self, name: str) -> None:
        """Detach our program from a hook, if it is attached."""
        hook = HOOKS[name][1]
        pins.remove_link(self._pins / name)
        self._now.links.pop(name, None)
        clsact_ = self._now.clsact
        if clsact_ and hook in clsact_.filters:
            priority = clsact_.priorities.get(hook, clsact.PRIORITY)
            clsact.detach(clsact_.ifindex, hook, clsact_.filters.pop(hook), priority)
            clsact_.priorities.pop(hook, None)

    def ahead(self, name: str) -> str:
        """Describe the foreign filters that still run before ours; "" if there are none. Raises ``OSError``."""
        clsact_, hook = self._now.clsact, HOOKS[name][1]
        if name in self._now.links or clsact_ is None or hook not in clsact_.priorities:
            return ""
        found = clsact.ahead(clsact_.ifindex, hook, clsact_.priorities[hook])
        if not found:
            return ""
        which = f"{'priorities' if found[1:] else 'priority'} {', '.join(map(str, found))}"
        return f"filters of somebody else run before ours at TC {hook} of {self._interface.name}, under {which}"

    def watch(self, program: int) -> None:
        """Attach a program to the tracepoint for device maps, and detach our previous program from the tracepoint.

        Raises ``OSError``.
        """
        self._keep(WATCH_LINK, libbpf.tracepoint_open(WATCH_POINT, program))

    def unwatch(self) -> None:
        """Detach our program from the tracepoint."""
        (self._pins / WATCH_LINK).unlink(missing_ok=True)
        self._now.links.pop(WATCH_LINK, None)

    def watches(self) -> bool:
        """Whether our program is attached to the tracepoint."""
        return WATCH_LINK in self._now.links and (self._pins / WATCH_LINK).exists()

    def _keep(self, name: str, link: int) -> None:
        with _closing(link):
            pins.replace(link, self._pins / name)
            self._now.links[name] = libbpf.link_info(link).id

    def _attach_filter(self, hook: str, program: int) -> None:
        index = self._interface.index
        number = libbpf.program_info(program)[0]
        if self._now.clsact is None:
            self._now.clsact = state.Clsact(index, made=not clsact.present(index))
        there = clsact.present(index)
        renewed = hook in self._now.clsact.filters
        ours = self._now.clsact.filters.setdefault(hook, [])
        ours.append(number)
        if not renewed:
            self._now.clsact.priorities[hook] = clsact.first_priority(index, hook) if there else clsact.PRIORITY
        state.write(self._directory, self._now)
        step(f"filter {hook} intended")
        try:
            if not there:
                clsact.make(index)
            step("clsact made")
            self._first_filter(hook, program, ours)
        except OSError as error:
            if error.errno == errno.EEXIST:
                priority = self._now.clsact.priorities[hook]
                text = f"priority {priority} of TC {hook} of {self._interface.name} is somebody else's"
                raise Refused(text, f"tc filter show dev {self._interface.name} {hook}") from None
            raise attach.why_no_tc(error, self._interface, hook) from None
        step(f"filter {hook} attached")

    def _first_filter(self, hook: str, program: int, ours: list[int]) -> None:
        """Attach a filter ahead of all other filters.

        If a filter of another kind has the first priority, attach our filter with the next priority.
        """
        assert self._now.clsact is not None
        index, priorities = self._interface.index, self._now.clsact.priorities
        for _ in range(_MOST_PRIORITIES):
            try:
                clsact.attach(index, hook, program, ours, priorities[hook])
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or priorities[hook] >= clsact.PRIORITY:
                    raise
            priorities[hook] += 1
            state.write(self._directory, self._now)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def running(directory: Path, now: state.State) -> dict[str, int]:
    """Find our attached programs: hook -> id of our program; 0 if the program or the interface no longer exists."""
    pinned = pins.pin_directory(directory, now.layout)
    return {name: _sitting(pinned, now, name) for name in of_mode(now.mode)}


def _sitting(pinned: Path, now: state.State, name: str) -> int:
    if name in now.links:
        return _link_program(pinned / name, now.ifindex)
    hook = HOOKS[name][1]
    if now.clsact is None or not hook:
        return 0
    number = clsact.query(now.clsact.ifindex, hook, now.clsact.priorities.get(hook, clsact.PRIORITY))
    return number if number in now.clsact.filters.get(hook, ()) else 0


def _link_program(path: Path, ifindex: int) -> int:
    try:
        with pins.opened(path) as link:
            info = libbpf.link_info(link)
    except FileNotFoundError:
        return 0
    return info.program if info.ifindex == ifindex else 0


def detach_all(now: state.State) -> None:
    """Remove our filters, and the clsact queueing discipline that the loader created.

    Links are not affected: a link ends when its pin is removed. Raises ``LoaderError``.
    """
    if now.clsact is None:
        return
    for hook, ours in now.clsact.filters.items():
        try:
            clsact.detach(now.clsact.ifindex, hook, ours, now.clsact.priorities.get(hook, clsact.PRIORITY))
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
