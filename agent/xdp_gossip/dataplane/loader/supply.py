# SPDX-License-Identifier: MIT
"""Provides the programs of a mode: opens the pinned programs if they are up to date; otherwise loads the programs from
the program container, or compiles them.

Only the programs that a mode needs are loaded, so a program that this kernel rejects does not prevent modes without
this program. The state records which programs the kernel rejected, because another attempt to load such a program would
need the compiler and fail again.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import headers, libbpf
from . import pins, selftest, state
from .errors import LoaderError, Refused, Rejected
from .loading import Programs
from .programs import (
    EGRESS,
    INGRESS,
    KNOCK,
    MAIN,
    SELFTEST,
    SEND,
    SEND_WATCH,
    TC_EGRESS,
    TC_INGRESS,
    WATCH,
)
from .settings import NOWHERE, TC, Settings
from .steps import step
from .stock import Stock

#: Groups of programs that share private maps. The programs of a group come from one compilation: either the pins of all
#: programs in a group are used, or none.
_XDP_GROUP = (INGRESS, EGRESS, WATCH)
SELFTEST_GROUP = (SEND, SEND_WATCH, KNOCK)
_SELFTEST_MAPS = ("ports", "watched", "knock")
_RELAY_MAPS = ("relay", "relay_wide")
#: Prefixes of the pin names of the self-test's maps and of the device maps.
_MAP_PREFIX, _DEVMAP_PREFIX = "selftest_", "devmap_"


def of_mode(mode: str) -> tuple[str, ...]:
    """The names of the programs that a mode needs."""
    return (TC_INGRESS, TC_EGRESS) if mode == TC else (INGRESS, EGRESS, TC_EGRESS)


def refuse_known(rejected: Mapping[str, state.Refusal], modes: Sequence[str]) -> None:
    """Raise ``Rejected`` without compiling if every mode needs a program that the kernel is known to reject."""
    known = [next((rejected[name] for name in of_mode(mode) if name in rejected), None) for mode in modes]
    if known and known[0] is not None and all(known):
        raise Rejected(known[0].reason, known[0].remedy, known[0].detail)


def pin(program: str) -> str:
    """The name of a program's pin."""
    return pins.PROGRAM_PREFIX + program


def constants(settings: Settings) -> dict[str, int]:
    """The values of the constants that the loader sets (``container.CONSTANTS``)."""
    return {"amount": settings.amount, "wide": settings.wide}


def digest(settings: Settings) -> str:
    """Digest of everything that determines programs and maps: all source files, the constants and the sizes.

    Raises ``HeaderError``.
    """
    text = f"{headers.sources_digest()} {settings.nodes} {settings.amount} {settings.wide}"
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Supply:
    """Descriptors of the programs and of the self-test's maps, open until :meth:`close`."""

    def __init__(self, settings: Settings, pinned: Path, now: state.State, *, renew: bool, moved: bool = False) -> None:
        """Store the arguments; programs and maps are opened on demand.

        ``renew``: the pinned programs were compiled from other sources and are not used. ``moved``: the pinned programs
        were made for another interface.
        """
        self._settings = settings
        self._pinned = pinned
        self._now = now
        self._renew = renew
        self._moved = moved
        self._open: dict[str, int] = {}
        self._own: list[int] = []  # descriptors of pins, which this object must close itself
        self._stock: Stock | None = None
        self._loaded: dict[str, Programs] = {}
        self._replaced: list[Programs] = []  # from the container; some of their programs may be in use
        #: Program -> descriptor, for programs that this object loaded itself.
        self.fresh: dict[str, int] = {}

    @property
    def rejected(self) -> dict[str, state.Refusal]:
        """Program -> reason, for programs that the kernel rejects."""
        return self._now.rejected

    def close(self) -> None:
        """Close every descriptor. Pinned and attached objects remain."""
        while self._own:
            os.close(self._own.pop())
        self._open.clear()
        self.fresh.clear()
        for each in (*self._loaded.values(), *self._replaced):
            each.close()
        self._loaded.clear()
        self._replaced.clear()

    def program(self, name: str) -> int:
        """Return the descriptor of a program: open the program's pin or, if there is none, load the program.

        Raises ``Rejected``, ``Refused``, ``LoaderError``.
        """
        if name not in self._open:
            known = self._now.rejected.get(name)
            if known is not None:
                raise Rejected(known.reason, known.remedy, known.detail)
            if not self._from_pins(name):
                self._load(name)
        return self._open[name]

    def loads(self, mode: str) -> bool:
        """Whether the kernel accepts all programs of a mode.

        Raises ``LoaderError`` if loading fails for another reason.
        """
        try:
            for name in of_mode(mode):
                self.program(name)
        except Rejected:
            return False
        return True

    def map(self, name: str) -> int:
        """Descriptor of a self-test map (``ports``, ``watched`` or ``knock``).

        One of the self-test programs must have been opened or loaded before this call.
        """
        return self._open[_MAP_PREFIX + name]

    def pin(self) -> None:
        """Pin the newly loaded programs for the next loader, and record their ids in the state."""
        if self._renew:
            # Remove pins of programs from the former sources: the next loader would take these pins for new programs.
            for name in [name for name in self._now.programs if name not in self.fresh]:
                (self._pinned / pin(name)).unlink(missing_ok=True)
                del self._now.programs[name]
        for name, program in self.fresh.items():
            pins.replace(program, self._pinned / pin(name))
            self._now.programs[name] = libbpf.program_info(program)[0]
        if any(name in self.fresh for name in SELFTEST_GROUP):
            for name in _SELFTEST_MAPS:
                pins.replace(self.map(name), self._pinned / (_MAP_PREFIX + name))
        if EGRESS in self.fresh:
            for name in _RELAY_MAPS:
                pins.replace(self._open[_DEVMAP_PREFIX + name], self._pinned / (_DEVMAP_PREFIX + name))
        if self._loaded:
            self._record_origin()

    def _record_origin(self) -> None:
        """Record in the state where the loaded programs come from."""
        now, stock = self._now, self._stock
        assert stock is not None, "programs were loaded"
        now.tools, now.compiler, now.container = stock.tools, stock.toolchain, stock.checksum
        now.unfit = stock.unfit.reason if stock.unfit is not None else ""

    def _group(self, name: str) -> tuple[str, ...]:
        for group in (_XDP_GROUP, SELFTEST_GROUP):
            if name in group:
                return group
        return (name,)

    def _from_pins(self, name: str) -> bool:
        """Open the pins of the program's group.

        Returns False if a pin is missing. Programs that the kernel rejects need no pin.
        """
        if self._renew:
            return False
        group = [each for each in self._group(name) if each not in self._now.rejected]
        paths = {each: self._pinned / pin(each) for each in group}
        if name in SELFTEST_GROUP:
            paths.update({_MAP_PREFIX + each: self._pinned / (_MAP_PREFIX + each) for each in _SELFTEST_MAPS})
        elif EGRESS in group and self._moved:
            paths.update({_DEVMAP_PREFIX + each: self._pinned / (_DEVMAP_PREFIX + each) for each in _RELAY_MAPS})
        found = {}
        try:
            for each, path in paths.items():
                found[each] = libbpf.get(str(path))
        except FileNotFoundError:
            for descriptor in found.values():
                os.close(descriptor)
            return False
        self._own += found.values()
        self._open.update(found)
        if self._moved:
            self._fill(name)
        return True

    def _fill(self, name: str) -> None:
        """Write the interface, if it exists, into the device maps of a program's group. Raises ``Refused``."""
        if self._settings.interface is NOWHERE:
            return
        if name in SELFTEST_GROUP:
            self._fill_devmap("ports", _MAP_PREFIX, selftest.COPIES, None)
        elif name in _XDP_GROUP and EGRESS in self._open:
            self._fill_devmap("relay", _DEVMAP_PREFIX, self._settings.amount, self._open[EGRESS])
            self._fill_devmap("relay_wide", _DEVMAP_PREFIX, self._settings.wide, self._open[EGRESS])

    def _fill_devmap(self, name: str, prefix: str, count: int, program: int | None) -> None:
        """Set the first ``count`` entries of a device map to the interface.

        ``program`` runs on frames that leave through these entries.
        """
        interface = self._settings.interface
        value = struct.pack("=ii", interface.index, -1 if program is None else program)
        for index in range(count):
            try:
                libbpf.update(self._open[prefix + name], struct.pack("=I", index), value)
            except OSError as error:
                raise Refused(
                    f"map {name}: entry {index} for {interface.name}: {error.strerror} ({self._toolchain()})",
                    "this kernel does not support programs in device map entries (Linux 5.8 and later do)",
                ) from None

    def _load(self, name: str) -> None:
        """Load all programs of the group to which ``name`` belongs.

        If the kernel rejects a program of the container, and this host has a compiler, the whole group is compiled and
        loaded again. Raises ``Rejected`` only if the kernel rejects ``name`` itself.
        """
        source = SELFTEST if name in SELFTEST_GROUP else MAIN
        rejected = self._attempt(name, source)
        if rejected and self._compile_instead(source, rejected):
            for each in self._group(name):
                self._open.pop(each, None)
                self.fresh.pop(each, None)
            rejected = self._attempt(name, source)
        # Several programs of one source may be rejected for the same cause. All rejections are recorded, but only the
        # rejection of ``name`` is raised.
        for each, error in rejected.items():
            self._now.rejected[each] = state.Refusal("", error.reason, error.remedy, error.detail)
            self._record_origin()
        if name in SELFTEST_GROUP:
            for each in _SELFTEST_MAPS:
                self._open[_MAP_PREFIX + each] = self._source(source).map(each)
        elif name in _XDP_GROUP and EGRESS in self.fresh:
            for each in _RELAY_MAPS:
                self._open[_DEVMAP_PREFIX + each] = self._source(source).map(each)
        self._fill(name)
        step("loaded")
        if name in rejected:
            raise rejected[name]

    def _attempt(self, name: str, source: str) -> dict[str, Rejected]:
        """Load all programs of the group of ``name``, and return the rejection of each that the kernel rejects."""
        rejected = {}
        for each in self._group(name):
            try:
                program = self._source(source).load(each)
                selftest.run_program(each, program)
                self._open[each] = self.fresh[each] = program
            except Rejected as error:
                rejected[each] = error
        return rejected

    def _compile_instead(self, source: str, rejected: Mapping[str, Rejected]) -> bool:
        """Compile what the container's programs are made of, if this host can.

        Programs of other groups that came from the container stay in use: both are of the same sources.
        """
        assert self._stock is not None, "programs were loaded"
        if not self._stock.can_replace():
            return False
        first = next(iter(rejected.values()))
        try:
            self._stock.compile_instead(source, first)
        except LoaderError as error:
            first.detail = "\n".join(filter(None, (first.detail, f"instead of the container: {error}", error.detail)))
            return False
        self._replaced.append(self._loaded.pop(source))
        return True

    def _source(self, name: str) -> Programs:
        if name not in self._loaded:
            if self._stock is None:
                self._stock = Stock()
            part, sizes = self._stock.part(name), {"nodes": self._settings.nodes}
            self._loaded[name] = Programs(
                part, self._stock.compiler, constants(self._settings), sizes, self._pinned if name == MAIN else None
            )
        return self._loaded[name]

    def _toolchain(self) -> str:
        return self._stock.toolchain if self._stock is not None else self._now.compiler
