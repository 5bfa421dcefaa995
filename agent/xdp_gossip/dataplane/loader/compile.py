# SPDX-License-Identifier: MIT
"""Compiles the programs with BCC.

No other module imports BCC, so that a process that compiles nothing does not need LLVM's 150 MB of memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import re
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .. import headers
from .errors import LoaderError, Refused, Rejected
from .settings import Settings

INGRESS, EGRESS, TC_INGRESS, TC_EGRESS = "xg_xdp_ingress", "xg_xdp_egress", "xg_tc_ingress", "xg_tc_egress"
_USER_HEADERS = Path("/usr/include")
#: Maximum lines of compiler or verifier output in the ``detail`` of an error.
_MOST_LINES = 30
#: Reason to report if the process ends during compilation, which needs 150 MB of memory.
_KILLED = "the process was killed (dmesg says if for want of memory)"
_LLVM = re.compile(r"libLLVM(?:-|\.so\.)(\d+)")
_LIBRARIES = re.compile(r"lib(?:bcc|LLVM|clang-cpp)\b")
#: Beginning of the last line of the verifier's log. The line before this last line states the reason for a rejection.
_SUMMARY = "processed "


def sources_digest(settings: Settings) -> str:
    """Digest of everything from which the programs are compiled: all source files and the compile-time constants.

    Raises ``HeaderError``.
    """
    digest = hashlib.sha256()
    root = headers.directory()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".c", ".h") and path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode())
        digest.update(content)
    digest.update(f"{settings.nodes} {settings.amount} {settings.wide}".encode())
    return digest.hexdigest()


def missing() -> list[tuple[str, str]]:
    """Return the components that this host lacks for compiling, each with a remedy."""
    found = []
    bits = 64 if sys.maxsize > 2**32 else 32
    if (sys.byteorder, bits) != ("little", 64):
        machine = f"{platform.machine()}, {sys.byteorder}-endian, Python of {bits} bits"
        remedy = "set protocol to auto or UDP: the agent itself runs here, over UDP"
        found.append((f"the programs are for little-endian machines of 64 bits, this one is {machine}", remedy))
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


class Programs:
    """One compiled source file, whose functions can be loaded and whose maps can be opened."""

    def __init__(self, source: str, constants: dict[str, str]) -> None:
        """Compile the file ``source`` in the directory of the BPF sources. Raises ``LoaderError``."""
        lacking = missing()
        if lacking:
            raise LoaderError(*lacking[0])
        root = headers.directory()
        os.environ["BCC_KERNEL_SOURCE"] = str(root / "kshim")
        self._bcc = importlib.import_module("bcc")
        includes = [root / "kshim" / "include", root, *include_directories()]
        flags = [f"-I{path}" for path in includes] + [f"-D{name}={value}" for name, value in constants.items()]
        self._source = root / source
        try:
            with _heard(f"{self._source}: does not compile"):
                self._module = self._bcc.BPF(src_file=str(self._source), cflags=flags)
        except _Said as said:
            cause = next((line.strip() for line in said.lines if "error:" in line), said.text)
            remedy = "reinstall the release; if that does not help, report it with the compiler's messages"
            raise LoaderError(
                f"{self._source}: does not compile: {cause} ({toolchain()})", remedy, "\n".join(said.lines)
            ) from None

    def load(self, name: str, kind: str, attach_type: int | None = None) -> int:
        """Load one function; ``kind`` is XDP, SCHED_CLS or RAW_TRACEPOINT. Returns a descriptor.

        Raises ``Rejected`` with the last message of the verifier, and ``Refused`` if a privilege is missing.
        """
        number = getattr(self._bcc.BPF, kind)
        try:
            with _heard(f"{self._source}: {name}"):
                if attach_type is None:
                    function = self._module.load_func(name, number)
                else:
                    function = self._module.load_func(name, number, None, attach_type)
        except _Said as said:
            raise _why_not_loaded(name, said) from None
        return int(function.fd)

    def map(self, name: str) -> int:
        """The descriptor of a map. Raises ``LoaderError``."""
        try:
            return int(self._module[name].get_fd())
        except KeyError:
            raise LoaderError(f"{self._source}: expected a map {name}, found none") from None


def toolchain() -> str:
    """Describe the versions of kernel, BCC and LLVM. The versions of BCC and LLVM are unknown until BCC is imported."""
    found = [f"kernel {platform.release()}"]
    bcc = sys.modules.get("bcc")
    if bcc is not None:
        found.append(f"BCC {getattr(bcc, '__version__', 'of an unknown version')}")
        llvm = next((match[1] for match in map(_LLVM.search, _mapped()) if match), "")
        found += [f"LLVM {llvm}"] if llvm else []
    return ", ".join(found)


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


#: Load errors that are not caused by the program: no memory, a signal, no room for JIT code (ENOTSUPP).
_PASSING = ("Cannot allocate memory", "Resource temporarily unavailable", "Interrupted system call", "error 524")


def _why_not_loaded(name: str, said: _Said) -> Refused:
    """Build the error that explains why the program ``name`` was not loaded.

    ``said``: output of BCC and the verifier.
    """
    ends = [at for at, line in enumerate(said.lines) if line.startswith(_SUMMARY)]
    before = [line.strip() for line in said.lines[: ends[-1]] if line.strip()] if ends else []
    if not before and "Operation not permitted" in said.text:
        remedy = "run the loader as root with CAP_SYS_ADMIN and CAP_NET_ADMIN; a container or lockdown may forbid it"
        return Refused(f"{name}: the kernel forbids loading programs (Operation not permitted)", remedy)
    # The verifier did not cause this error, and the next attempt may succeed, so the loader does not record the error
    # as a rejection.
    if any(error in said.text for error in _PASSING) or (not before and "Permission denied" in said.text):
        remedy = "look for limits of memory and of JIT code (net.core.bpf_jit_limit), and for SELinux: dmesg, audit log"
        return Refused(f"{name}: the kernel does not load it: {said.text.strip()}", remedy)
    sentence = before[-1] if before else said.text
    return Rejected(
        f"{name}: the kernel's verifier rejects it: {sentence} ({toolchain()})",
        "another kernel or compiler (BCC, LLVM) may do; please report this with the verifier's log, which is in "
        "xdp-gossip dataplane status --json",
        "\n".join(said.lines),
    )


class _Said(Exception):
    """BCC failed. Contains the text of BCC's exception, and the last lines that clang or the verifier printed."""

    def __init__(self, text: str, lines: list[str]) -> None:
        super().__init__(text)
        self.text = text
        self.lines = lines


@contextlib.contextmanager
def _heard(what: str) -> Iterator[None]:
    """Capture what clang and the verifier print on stderr during the block. Raises ``_Said``.

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
