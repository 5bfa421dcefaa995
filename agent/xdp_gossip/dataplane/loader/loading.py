# SPDX-License-Identifier: MIT
"""Creates the maps and loads the programs of one part of a program container. Needs no compiler."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from .. import libbpf
from .container import MapSpec, Part, linked
from .errors import LoaderError, Refused, Rejected
from .programs import KINDS

#: Bytes of the buffer for the messages of the verifier, which is allocated only for a rejected program. Before
#: Linux 6.4 the reason is lost if the messages do not fit, so the loader then tries a larger buffer.
_LOG_BYTES = (1 << 24, 1 << 26, 1 << 28)
#: Maximum lines of the verifier's messages in the ``detail`` of an error.
_MOST_LINES = 30
#: Beginning of the last line of the verifier's messages. The line before this last line states the reason.
_SUMMARY = "processed "
#: Kernel-internal error number ENOTSUPP (include/linux/errno.h): no room for JIT code.
_ENOTSUPP = 524
#: Errors that are not caused by the program: no memory, a signal, no room for JIT code.
_PASSING = (errno.ENOMEM, errno.EAGAIN, errno.EINTR, _ENOTSUPP)


class Programs:
    """The programs and maps of a part. Maps are created, and programs loaded, at their first use.

    :meth:`close` closes all descriptors; what is pinned or attached remains.
    """

    def __init__(
        self,
        part: Part,
        compiler: str,
        constants: Mapping[str, int],
        sizes: Mapping[str, int],
        pinned: Path | None = None,
    ) -> None:
        """Store the arguments.

        ``compiler``: text for error messages. ``constants``: values of the constants of the loader. ``sizes``: entries
        of the maps whose number of entries the loader sets. ``pinned``: directory of the pins of shared maps, which are
        opened if they exist; if None, no map is pinned.
        """
        self._part = part
        self._compiler = compiler
        self._constants = constants
        self._sizes = sizes
        self._pinned = pinned
        self._maps: dict[str, int] = {}
        self._programs: dict[str, int] = {}

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        for descriptor in (*self._programs.values(), *self._maps.values()):
            os.close(descriptor)
        self._programs.clear()
        self._maps.clear()

    def map(self, name: str) -> int:
        """Return the descriptor of a map. Raises ``LoaderError``."""
        if name not in self._maps:
            spec = next((each for each in self._part.maps if each.name == name), None)
            if spec is None:
                raise LoaderError(f"{self._part.source}: expected a map {name}, found none")
            try:
                self._maps[name] = self._opened(spec)
            except OSError as error:
                raise LoaderError(
                    f"map {name}: {error.strerror} ({self._where()})",
                    "the loader needs CAP_SYS_ADMIN and memory; a container or lockdown may forbid maps",
                ) from None
        return self._maps[name]

    def load(self, name: str) -> int:
        """Load a program, if it is not loaded, and return its descriptor.

        Raises ``Rejected`` with the last message of the verifier, ``Refused`` if a privilege is missing, and
        ``LoaderError``.
        """
        if name not in self._programs:
            program = self._part.program(name)
            if program is None:
                raise LoaderError(f"{self._part.source}: expected a program {name}, found none")
            # All maps of the part, so that the agent finds every shared map, whichever programs are loaded.
            maps = [self.map(spec.name) for spec in self._part.maps]
            code = linked(program.code, maps, self._constants)
            kind, attach_type = KINDS[program.kind]
            try:
                self._programs[name] = libbpf.program_load(name, kind, code, attach_type)
            except OSError as error:
                number, said = error.errno or 0, _heard(name, kind, code, attach_type)
                raise self._why_not_loaded(name, number, error.strerror or "", said) from None
        return self._programs[name]

    def _opened(self, spec: MapSpec) -> int:
        path = self._pinned / spec.name if self._pinned is not None and spec.shared else None
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                return libbpf.get(str(path))
        entries = spec.entries or self._sizes[spec.name]
        made = libbpf.map_create(spec.name, spec.kind, spec.key, spec.value, entries, spec.flags, lock=spec.lock)
        try:
            if path is not None:
                libbpf.pin(made, str(path))
        except OSError:
            os.close(made)
            raise
        return made

    def _where(self) -> str:
        return ", ".join(each for each in (f"kernel {platform.release()}", self._compiler) if each)

    def _why_not_loaded(self, name: str, number: int, cause: str, lines: list[str]) -> Refused:
        """Build the error that explains why the program ``name`` was not loaded. ``lines``: the verifier's messages."""
        ends = [at for at, line in enumerate(lines) if line.startswith(_SUMMARY)]
        before = [line.strip() for line in lines[: ends[-1] if ends else len(lines)] if line.strip()]
        if not before and number == errno.EPERM:
            remedy = (
                "run the loader as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; a container or lockdown may forbid it"
            )
            return Refused(f"{name}: the kernel forbids loading programs ({cause})", remedy)
        # The verifier did not cause this error, and the next attempt may succeed, so the loader does not record the
        # error as a rejection.
        if number in _PASSING or (not before and number == errno.EACCES):
            remedy = (
                "look for limits of memory and of JIT code (net.core.bpf_jit_limit), and for SELinux: dmesg, audit log"
            )
            return Refused(f"{name}: the kernel does not load it: {cause}", remedy)
        sentence = before[-1] if before else cause
        return Rejected(
            f"{name}: the kernel's verifier rejects it: {sentence} ({self._where()})",
            "another kernel or compiler (BCC, LLVM) may do; please report this with the verifier's log, which is in "
            "xdp-gossip dataplane status --json",
            "\n".join(lines[-_MOST_LINES:]),
        )


def _heard(name: str, kind: int, code: bytes, attach_type: int) -> list[str]:
    """Return the verifier's messages about a program that the kernel has just rejected, line by line.

    Without messages the verifier is faster, so the loader asks for them only now.
    """
    for size in _LOG_BYTES:
        log = ctypes.create_string_buffer(size)
        try:
            # If the kernel accepts the program this time, there is nothing to tell, and nobody uses this copy.
            os.close(libbpf.program_load(name, kind, code, attach_type, log, libbpf.LOG_TEXT))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                continue
        return log.value[-65536:].decode("utf-8", "replace").strip().splitlines()
    return [f"the verifier's messages are longer than {_LOG_BYTES[-1]} bytes"]
