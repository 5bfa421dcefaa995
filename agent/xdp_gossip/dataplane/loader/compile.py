# SPDX-License-Identifier: MIT
"""Compiles the programs with BCC. Only this module imports it: LLVM takes 150 MB for the second that it works."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import platform
import signal
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .. import headers
from . import calls
from .errors import LoaderError
from .settings import Settings

INGRESS, EGRESS, TC_INGRESS, TC_EGRESS = "xg_xdp_ingress", "xg_xdp_egress", "xg_tc_ingress", "xg_tc_egress"
_USER_HEADERS = Path("/usr/include")
#: Lines of what the compiler or the verifier said that go into an error.
_MOST_LINES = 15


def sources_digest(settings: Settings) -> str:
    """What the programs depend on: every source, and the constants they are compiled with. Raises ``HeaderError``."""
    digest = hashlib.sha256()
    root = headers.directory()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".c", ".h") and path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode())
        digest.update(content)
    digest.update(f"{settings.nodes} {settings.amount} {settings.wide}".encode())
    return digest.hexdigest()


def missing() -> list[tuple[str, str]]:
    """What this host lacks for compiling, each with its remedy."""
    found = []
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
    """Where the user-space headers of Linux are, the machine's own directory among them."""
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    return [path for path in (_USER_HEADERS, _USER_HEADERS / triplet) if path.is_dir()]


class Programs:
    """One compiled source: loads its functions and finds its maps."""

    def __init__(self, source: str, constants: dict[str, str]) -> None:
        """Compile ``source`` of the sources' directory. Raises ``LoaderError``."""
        lacking = missing()
        if lacking:
            raise LoaderError(*lacking[0])
        root = headers.directory()
        os.environ["BCC_KERNEL_SOURCE"] = str(root / "kshim")
        self._bcc = importlib.import_module("bcc")
        includes = [root / "kshim" / "include", root, *include_directories()]
        flags = [f"-I{path}" for path in includes] + [f"-D{name}={value}" for name, value in constants.items()]
        self._source = root / source
        with _explained(f"{self._source}: does not compile"):
            self._module = self._bcc.BPF(src_file=str(self._source), cflags=flags)

    def load(self, name: str, kind: str, attach_type: int | None = None) -> int:
        """Load one function; ``kind`` is XDP, SCHED_CLS or RAW_TRACEPOINT. Returns a descriptor.

        Raises ``LoaderError`` with the end of what the verifier says.
        """
        number = getattr(self._bcc.BPF, kind)
        remedy = "the kernel is older than 5.14, or lacks a capability: see xdp-gossip doctor"
        with _explained(f"{self._source}: {name}: the kernel does not take it", remedy):
            if attach_type is None:
                function = self._module.load_func(name, number)
            else:
                function = self._module.load_func(name, number, None, attach_type)
        return int(function.fd)

    def map(self, name: str) -> int:
        """Descriptor of a map. Raises ``LoaderError``."""
        try:
            return int(self._module[name].get_fd())
        except KeyError:
            raise LoaderError(f"{self._source}: expected a map {name}, found none") from None

    def fill_devmap(self, name: str, count: int, ifindex: int, program: int | None) -> None:
        """Make the first ``count`` entries of a devmap the interface, with ``program`` for what leaves by them."""
        value = ctypes.string_at(ctypes.byref((ctypes.c_int * 2)(ifindex, -1 if program is None else program)), 8)
        descriptor = self.map(name)
        for index in range(count):
            try:
                calls.update(descriptor, bytes(ctypes.c_uint32(index)), value)
            except OSError as error:
                raise LoaderError(
                    f"map {name}: entry {index} for interface {ifindex}: {error.strerror}",
                    "programs at the way out need Linux 5.8",
                ) from None

    def attach_tracepoint(self, program: int, name: str) -> int:
        """Attach to a raw tracepoint until the returned descriptor is closed. Raises ``OSError``."""
        ctypes.set_errno(0)
        descriptor = int(self._bcc.lib.bpf_attach_raw_tracepoint(program, name.encode()))
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        return descriptor


@contextlib.contextmanager
def _explained(what: str, remedy: str = "") -> Iterator[None]:
    """Catch what clang and the verifier print on stderr, and put its end into the error.

    BCC raises bare ``Exception``; its own text says little.
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
            raise LoaderError("\n  ".join([f"{what}: {error}", *lines]), remedy) from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _witness(said: int, stderr: int, what: str) -> Iterator[None]:
    """A process that tells what ``said`` holds if this one ends: LLVM ends it over some sources, a large stack say."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # systemd ends what is left of a unit whose main process has gone.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(writer)
            if not os.read(reader, 1):
                text = os.pread(said, 65536, 0).decode("utf-8", "replace").strip()
                os.write(stderr, f"xdp-gossip: {what}: the compiler gave up\n  {text}\n".encode())
        finally:
            os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        os.write(writer, b".")
        os.close(writer)
        os.waitpid(child, 0)
