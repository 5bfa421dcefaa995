# SPDX-License-Identifier: MIT
"""Selects the best mode that an interface supports: tries the modes in order, until an attached mode passes its test.

A working mode stays in use until a better mode is verified, if both modes can be attached at the same time. XDP and TC
can be attached to an interface at the same time; native XDP and generic XDP cannot.
"""

from __future__ import annotations

from pathlib import Path

from . import attach, hooks, selftest, state, supply, traps
from .errors import LoaderError, Refused, Rejected, Starved
from .programs import KNOCK, SEND, SEND_WATCH, WATCH
from .settings import GENERIC, NATIVE, TC, Settings
from .steps import step

_WAY_OUT = "link_tc_egress"


class Ascent:
    """One pass over the modes, best first.

    After the pass, ``now`` contains the selected mode, and the reasons why better modes are not possible.
    """

    def __init__(
        self, settings: Settings, programs: supply.Supply, at: hooks.Hooks, now: state.State, pinned: Path
    ) -> None:
        self._settings = settings
        self._interface = settings.interface
        self._programs = programs
        self._at = at
        self._now = now
        self._pinned = pinned
        #: The mode of our existing link at the XDP hook; "" if there is none.
        self._xdp = now.mode if now.mode in (NATIVE, GENERIC) and at.sits("link_xdp") else ""
        #: True after this loader has attached a program to a hook that had no program of ours before.
        self.attached = False
        self._notes: list[str] = []

    def way_out(self) -> None:
        """Attach the TC egress program, which every mode needs, and verify that packets reach it.

        Raises ``LoaderError``, ``OSError``.
        """
        self._seat(_WAY_OUT)
        self._prove(_WAY_OUT)

    def best(self) -> None:
        """Attach the best mode that delivers packets. Raises ``LoaderError`` if no mode delivers packets."""
        reasons: list[state.Refusal] = []
        common = self._notes
        for mode in self._settings.modes:
            self._notes = list(common)
            changes = len(self._now.changes)
            try:
                self._take(mode)
            except (LoaderError, OSError) as error:
                reasons.append(_refusal(mode, error))
                self._give_up(mode)
                traps.set_back(self._now, keep=changes)
                continue
            self._now.mode, self._now.reasons, self._now.notes = mode, reasons, self._notes
            self._leave_others(mode)
            return
        self._now.reasons = reasons
        told = "\n".join(f"  {refusal.mode}: {refusal.reason}" for refusal in reasons)
        raise LoaderError(f"no mode of protocol {self._settings.protocol} is possible:\n{told}", reasons[0].remedy)

    def _take(self, mode: str) -> None:
        """Attach the programs of a mode and verify that the mode delivers packets.

        Raises ``LoaderError``, ``OSError``.
        """
        if mode != TC and not self._xdp:
            attach.refuse_incumbent(self._interface)
        self._notes += traps.clear(self._settings, mode, self._now)
        for name in supply.of_mode(mode):
            self._programs.program(name)
        way_in = hooks.of_mode(mode)[0]
        if mode != TC:
            self._redirects(mode)
            if self._xdp not in ("", mode):
                self._detach_xdp()
        self._seat(way_in, mode)
        step("hooks attached")
        if mode == NATIVE:
            # For a veth, _redirects has already done this test: what a veth can send depends on its peer, not on the
            # attached program.
            if self._interface.kind != "veth":
                self._send_copies()
            self._watch()
        else:
            self._prove(way_in, mode)
        step("tested")

    def _redirects(self, mode: str) -> None:
        """Run those checks of a mode that need no attached program, so that the mode in use keeps working meanwhile."""
        selftest.broadcast(self._programs.program(SEND), self._interface)
        if mode == NATIVE and self._interface.kind == "veth":
            self._send_copies()

    def _send_copies(self) -> None:
        sender = self._programs.program(SEND)
        try:
            watcher: int | None = self._programs.program(SEND_WATCH)
        except Rejected:
            watcher = None
        self._notes += selftest.redirect(sender, watcher, self._programs.map("watched"), self._interface)

    def _watch(self) -> None:
        """Attach the program that counts copies which the driver does not send.

        The mode works without this program, so a failure only adds a note to the state.
        """
        try:
            program = self._programs.program(WATCH)
            if WATCH in self._programs.fresh or not self._at.watches():
                self._at.watch(program)
        except Refused as refused:
            self._notes.append(f"copies that the driver does not send are not counted: {refused.reason}")
        except OSError as error:
            self._notes.append(f"copies that the driver does not send are not counted: {error.strerror}")

    def _seat(self, name: str, mode: str = "") -> None:
        """Ensure that this release's program is attached to the hook ``name``. Raises ``LoaderError``, ``OSError``."""
        program = hooks.HOOKS[name][0]
        descriptor = self._programs.program(program)
        if not self._at.sits(name):
            self._attach(name, descriptor, mode)
        elif self._now.programs.get(program) != self._at.program_on(name) or program in self._programs.fresh:
            self._at.exchange(name, descriptor)

    def _attach(self, name: str, descriptor: int, mode: str) -> None:
        try:
            self._at.attach(name, descriptor, mode)
        except Refused:
            if mode != NATIVE or name != "link_xdp" or not traps.prepare_native(self._settings, self._now):
                raise
            self._at.attach(name, descriptor, mode)
        self.attached = True
        if name == "link_xdp":
            self._xdp = mode

    def _prove(self, name: str, mode: str = "") -> None:
        """Send a frame through a hook.

        If the frame does not reach our program, attach our program ahead of all other programs, and try once more.

        Raises ``Refused``.
        """
        try:
            knocker = self._programs.program(KNOCK)
        except Rejected as rejected:
            self._notes.append(f"no frame was sent through the hooks: {rejected.reason}")
            return
        hook = "egress" if name == _WAY_OUT else "ingress"
        told = self._programs.map("knock")
        try:
            selftest.knock(knocker, told, self._interface, hook, self._pinned, self._settings.node)
        except Starved:
            self._attach(name, self._programs.program(hooks.HOOKS[name][0]), mode)
            try:
                selftest.knock(knocker, told, self._interface, hook, self._pinned, self._settings.node)
            except Starved as starved:
                ahead = self._at.ahead(name)
                if not ahead:
                    raise
                show = f"tc filter show dev {self._interface.name} {hook}"
                remedy = f"give them a priority of 2 or more, or end the chain for less: {show}"
                raise Starved(f"{ahead}, and end the chain: {starved.reason}", remedy) from None
        ahead = self._at.ahead(name)
        if ahead:
            self._notes.append(f"{ahead}: packets for which one of them ends the chain do not reach the program")

    def _give_up(self, mode: str) -> None:
        """Detach a mode's ingress program. A program that was attached for another mode stays attached."""
        if mode == TC:
            self._at.detach("link_tc_ingress")
        elif self._xdp == mode:
            self._detach_xdp()

    def _leave_others(self, mode: str) -> None:
        if mode == TC:
            self._detach_xdp()
        else:
            self._at.detach("link_tc_ingress")
        if mode != NATIVE:
            self._at.unwatch()

    def _detach_xdp(self) -> None:
        self._at.unwatch()
        self._at.detach("link_xdp")
        self._xdp = ""


def _refusal(mode: str, error: LoaderError | OSError) -> state.Refusal:
    if isinstance(error, LoaderError):
        return state.Refusal(mode, error.reason, error.remedy, error.detail)
    where = f"{error.filename}: " if error.filename else ""
    return state.Refusal(mode, f"{where}{error.strerror or error}", "see dmesg, then xdp-gossip dataplane up")
