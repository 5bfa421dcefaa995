# SPDX-License-Identifier: MIT
"""Compiles the programs with BCC, into the form of a program container.

No other module imports BCC, so that a process that compiles nothing does not need LLVM's 150 MB of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
import re
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import headers, libbpf
from . import maps
from .container import Container, ContainerError, MapSpec, Part, Program, portable
from .errors import LoaderError
from .programs import MAIN, SELFTEST, SOURCES

_USER_HEADERS = Path("/usr/include")
#: Maximum lines of the compiler's output in the ``detail`` of an error.
_MOST_LINES = 30
#: Reason to report if the process ends during compilation, which needs 150 MB of memory.
_KILLED = "the process was killed (dmesg says if for want of memory)"
_LLVM = re.compile(r"libLLVM(?:-|\.so\.)(\d+)")
_LIBRARIES = re.compile(r"lib(?:bcc|LLVM|clang-cpp)\b")
#: Maps whose values begin with a ``struct bpf_spin_lock``.
_LOCKED = ("nodes",)
#: The kernel itself adds this flag (BPF_F_RDONLY_PROG) to each device map, and refuses a request for the flag.
_ADDED_FLAG = 1 << 7


def wrong_machine() -> tuple[str, str] | None:
    """Return the reason, with a remedy, why the programs cannot run on this machine; None if they can."""
    bits = 64 if sys.maxsize > 2**32 else 32
    if (sys.byteorder, bits) == ("little", 64):
        return None
    machine = f"{platform.machine()}, {sys.byteorder}-endian, Python of {bits} bits"
    remedy = "set protocol to auto or UDP: the agent itself runs here, over UDP"
    return f"the programs are for little-endian machines of 64 bits, this one is {machine}", remedy


def missing() -> list[tuple[str, str]]:
    """Return the components that this host lacks for compiling, each with a remedy. Imports BCC."""
    wrong = wrong_machine()
    found = [wrong] if wrong else []
    try:
        importlib.import_module("bcc")
    except ImportError as error:
        found.append(
            (f"BCC is missing ({error})", "install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora, RHEL)")
        )
    except OSError as error:
        found.append((f"BCC cannot be loaded ({error})", "install libbpfcc (Debian, Ubuntu) or bcc (Fedora, RHEL)"))
    if not (_USER_HEADERS / "linux" / "if_ether.h").is_file() or not any(
        (path / "asm" / "types.h").is_file() for path in include_directories()
    ):
        remedy = "install linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora, RHEL); no headers of the kernel"
        found.append((f"{_USER_HEADERS}/linux/if_ether.h or asm/types.h is missing", remedy))
    return found


def include_directories() -> list[Path]:
    """Return the directories of the kernel's user-space headers, both general and specific to this architecture."""
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    return [path for path in (_USER_HEADERS, _USER_HEADERS / triplet) if path.is_dir()]


def container() -> Container:
    """Compile all programs. Raises ``LoaderError``, ``HeaderError``."""
    parts = tuple(part(source) for source in (MAIN, SELFTEST))
    return Container(headers.sources_digest(), headers.constants()["XG_LAYOUT"], compiler(), parts)


def part(source: str, *, extra: str = "", programs: Mapping[str, str] | None = None) -> Part:
    """Compile the file ``source`` in the directory of the BPF sources.

    ``programs``: program -> its kind (default: the programs of ``source``). ``extra``: more C code, which is compiled
    after the file. Raises ``LoaderError``, ``HeaderError``.
    """
    lacking = missing()
    if lacking:
        raise LoaderError(*lacking[0])
    root = headers.directory()
    path = root / source
    os.environ["BCC_KERNEL_SOURCE"] = str(root / "kshim")
    bcc = importlib.import_module("bcc")
    flags = [f"-I{each}" for each in (root / "kshim" / "include", root, *include_directories())]
    try:
        with _heard(f"{path}: does not compile"):
            if extra:
                module = bcc.BPF(text=path.read_bytes() + extra.encode(), cflags=flags)
            else:
                module = bcc.BPF(src_file=os.fsencode(path), cflags=flags)
    except _Said as said:
        cause = next((line.strip() for line in said.lines if "error:" in line), said.text)
        remedy = "reinstall the release; if that does not help, report it with the compiler's messages"
        text = f"{path}: does not compile: {cause} (kernel {platform.release()}, {compiler()})"
        raise LoaderError(text, remedy, "\n".join(said.lines)) from None
    try:
        return _read(source, bcc, module, SOURCES[source] if programs is None else programs)
    finally:
        module.cleanup()


def _read(source: str, bcc: Any, module: Any, programs: Mapping[str, str]) -> Part:
    """Return the programs and maps of a module of BCC. Raises ``LoaderError``."""
    specs = sorted(_maps(source, bcc.lib, module.module), key=lambda each: each[1].name)
    indexes = {descriptor: index for index, (descriptor, _) in enumerate(specs)}
    placeholder = headers.constants()["XG_PLACEHOLDER"]
    found = []
    for name, kind in programs.items():
        code = module.dump_func(name.encode())
        if not code:
            raise LoaderError(f"{headers.directory() / source}: expected a program {name}, found none")
        try:
            found.append(Program(name, kind, portable(code, indexes, placeholder)))
        except ContainerError as error:
            raise LoaderError(f"{headers.directory() / source}: {name}: {error}") from None
    return Part(source, tuple(spec for _, spec in specs), tuple(found))


def _maps(source: str, lib: Any, module: Any) -> list[tuple[int, MapSpec]]:
    """Return the maps that BCC created for a module, each with its descriptor. Nobody uses these maps themselves."""
    lib.bpf_table_name.restype = ctypes.c_char_p
    for function in (lib.bpf_table_name, lib.bpf_table_fd_id):
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    shared = maps.expected(0) if source == MAIN else {}
    found = []
    for number in range(lib.bpf_num_tables(module)):
        descriptor = int(lib.bpf_table_fd_id(module, number))
        name = lib.bpf_table_name(module, number).decode("ascii")
        info, flags = libbpf.map_info(descriptor), _flags(descriptor)
        if info.type == libbpf.DEVMAP:
            flags &= ~_ADDED_FLAG
        entries = 0 if name in maps.SIZED else info.max_entries
        sizes = (info.type, info.key_size, info.value_size, entries, flags)
        found.append((descriptor, MapSpec(name, *sizes, name in _LOCKED, name in shared)))
    return found


def _flags(descriptor: int) -> int:
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    found = re.search(r"^map_flags:\s*(?:0x)?([0-9a-f]+)$", text, re.MULTILINE)
    return int(found[1], 16) if found else 0


def compiler() -> str:
    """Describe the versions of BCC and LLVM. They are unknown ("") until BCC is imported."""
    bcc = sys.modules.get("bcc")
    if bcc is None:
        return ""
    llvm = next((match[1] for match in map(_LLVM.search, _mapped()) if match), "")
    return f"BCC {getattr(bcc, '__version__', 'of an unknown version')}" + (f", LLVM {llvm}" if llvm else "")


def tools() -> dict[str, str]:
    """Map the path of each compiler library that this process uses to the library's size and modification time."""
    found = {}
    for path in _mapped():
        if _LIBRARIES.match(os.path.basename(path)):
            found[path] = stamp(path)
    return found


def stamp(path: str) -> str:
    """Return the size and modification time of a file; "" if the file does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _mapped() -> list[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
        return sorted({line.split(None, 5)[5].strip() for line in stream if "/" in line})


class _Said(Exception):
    """BCC failed. Contains the text of BCC's exception, and the last lines that clang printed."""

    def __init__(self, text: str, lines: list[str]) -> None:
        super().__init__(text)
        self.text = text
        self.lines = lines


@contextlib.contextmanager
def _heard(what: str) -> Iterator[None]:
    """Capture what clang prints on stderr during the block. Raises ``_Said``.

    BCC raises a bare ``Exception`` without the cause of the failure. The captured output contains the cause.
    """
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            with _witness(said.fileno(), kept, what):
                yield
        except Exception as error:
            said.seek(0)
            lines = said.read()[-65536:].decode("utf-8", "replace").strip().splitlines()[-_MOST_LINES:]
            raise _Said(str(error), lines) from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _witness(said: int, stderr: int, what: str) -> Iterator[None]:
    """Fork a process that prints the output captured in ``said`` if the forking process ends during the block.

    LLVM ends the forking process instead of reporting some errors, for example that a program's stack is too large.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # When a unit's main process ends, systemd sends SIGTERM to the remaining processes.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(writer)
            if not os.read(reader, 1):
                text = os.pread(said, 65536, 0).decode("utf-8", "replace").strip()
                os.write(stderr, f"xdp-gossip: {what}: the compiler gave up, or {_KILLED}\n  {text}\n".encode())
        finally:
            os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        os.write(writer, b".")
        os.close(writer)
        os.waitpid(child, 0)
