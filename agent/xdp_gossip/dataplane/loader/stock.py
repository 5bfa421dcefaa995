# SPDX-License-Identifier: MIT
"""Obtains the compiled programs: from the program container beside the BPF sources if it fits, else from BCC."""

from __future__ import annotations

import errno
import os
import platform
import stat
from pathlib import Path

from ...config.templates import who_else_writes
from .. import headers
from . import compile, maps
from .container import MAX_BYTES, Container, ContainerError, Part, checksum, parse
from .errors import LoaderError
from .programs import SOURCES
from .steps import step

#: File name of the program container in the directory of the BPF sources.
NAME = "programs.xgp"
_REMEDY = "deploy the release again, or build the container from this release: xdp-gossip dataplane build"


class Unfit(LoaderError):
    """There is a program container, but it cannot be used."""


class Stock:
    """The compiled programs of this release, part by part."""

    def __init__(self) -> None:
        """Read the program container, if there is one. Raises ``HeaderError``."""
        #: SHA-256 of the container's file; "" if the programs are compiled on this host.
        self.checksum = ""
        #: Reason why the container that exists is not used; None if there is no such reason.
        self.unfit: Unfit | None = None
        self._container: Container | None = None
        self._parts: dict[str, Part] = {}
        try:
            found = read()
        except Unfit as unfit:
            self.unfit = unfit
        else:
            if found is not None:
                self._container, self.checksum = found

    def lacking(self) -> list[tuple[str, str]]:
        """Return the reasons why no programs can be had, each with a remedy; an empty list if programs can be had."""
        wrong = compile.wrong_machine()
        if wrong:
            return [wrong]
        if self._container is not None:
            return []
        found = compile.missing()
        if found and self.unfit is not None:
            return [(self.unfit.reason, self.unfit.remedy), *found]
        return found

    def refuse_lacking(self) -> None:
        """Raise ``LoaderError`` with the first reason of :meth:`lacking`."""
        for reason, remedy in self.lacking()[:1]:
            raise LoaderError(reason, remedy)

    def part(self, source: str) -> Part:
        """Return what was compiled from the file ``source``; compile it if there is no container that fits.

        Raises ``LoaderError``, ``HeaderError``.
        """
        if source not in self._parts:
            self.refuse_lacking()
            if self._container is not None:
                found = self._container.part(source)
                assert found is not None, "read() compares the parts with SOURCES"
            else:
                found = compile.part(source)
                step("compiled")
            self._parts[source] = found
        return self._parts[source]

    def can_replace(self) -> bool:
        """Whether there are programs of a container, and a compiler with which this host can replace them."""
        return self._container is not None and not compile.missing()

    def compile_instead(self, source: str, rejected: LoaderError) -> None:
        """Compile the file ``source``, because the kernel has ``rejected`` a program of the container.

        From now on, no part comes from the container. Raises ``LoaderError`` and ``HeaderError``, after which the
        container is used as before.
        """
        found = compile.part(source)
        step("compiled")
        self._parts = {source: found}
        self._container, self.checksum = None, ""
        self.unfit = Unfit(f"{headers.directory() / NAME}: {rejected.reason}", _REMEDY)

    @property
    def compiler(self) -> str:
        """Versions of the compiler; "" if no part was needed yet."""
        return self._container.compiler if self._container is not None else compile.compiler()

    @property
    def toolchain(self) -> str:
        """Versions of the kernel and of the compiler."""
        return ", ".join(each for each in (f"kernel {platform.release()}", self.compiler) if each)

    @property
    def tools(self) -> dict[str, str]:
        """The compiler's libraries in use on this host, as ``compile.tools`` describes them."""
        return {} if self._container is not None else compile.tools()


def read() -> tuple[Container, str] | None:
    """Return the program container of this release and its checksum; None if there is none.

    Raises ``Unfit``, ``HeaderError``.
    """
    path = headers.directory() / NAME
    content = _content(path)
    if content is None:
        return None
    try:
        found = parse(content)
    except ContainerError as error:
        raise Unfit(f"{path}: {error}", _REMEDY) from None
    if problem := misfit(found):
        raise Unfit(f"{path}: {problem}", _REMEDY)
    return found, checksum(content)


def _content(path: Path) -> bytes | None:
    """Read the file. Raises ``Unfit`` if another user than root could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        text = "expected a regular file, got a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise Unfit(f"{path}: {text}", _REMEDY) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unfit(f"{path}: expected a regular file, got something else", _REMEDY)
        steps = [(path, status)]
        steps += [(directory, directory.stat()) for directory in path.resolve().parents]
        for each, found in steps:
            who = who_else_writes(found)
            if who:
                text = f"expected a path that belongs to root and that only root can write, got {each} {who}"
                raise Unfit(f"{path}: {text}", f"chown root {each}; chmod go-w {each}")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def misfit(found: Container) -> str:
    """Return the reason why a container does not fit this release; "" if it fits."""
    layout, sources = headers.constants()["XG_LAYOUT"], headers.sources_digest()
    if found.layout != layout:
        return f"layout: expected the maps of layout {layout}, got those of layout {found.layout}"
    if found.sources != sources:
        return (
            f"sources: expected programs of the sources {sources[:12]} of this release, got those of "
            f"{found.sources[:12]}: the container belongs to another release"
        )
    programs = {part.source: {each.name: each.kind for each in part.programs} for part in found.parts}
    if programs != SOURCES:
        return (
            f"parts: expected the programs {', '.join(name for part in SOURCES.values() for name in part)}, got others"
        )
    unsized = [
        spec.name for part in found.parts for spec in part.maps if not spec.entries and spec.name not in maps.SIZED
    ]
    if unsized:
        return f"maps: expected a number of entries, got none for {', '.join(unsized)}"
    return ""
