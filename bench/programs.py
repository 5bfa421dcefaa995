# SPDX-License-Identifier: MIT
"""Compiles BPF programs with BCC, attaches them to interfaces, and runs the frame generator."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import socket
import struct
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xdp_gossip.dataplane import headers, libbpf

from .netns import BenchError, inside

HERE = Path(__file__).resolve().parent
BPF_SOURCES = headers.directory()

XDP, TC_INGRESS, TC_EGRESS = 37, 46, 47  # enum bpf_attach_type
DEVMAP = 33
#: Number of frames that the kernel sends before the receivers run, which is also the number of frames in one poll of a
#: NIC.
BATCH = 64
#: Maximum number of frames that one system call sends, so that a call does not take long.
_MOST = 1 << 20


def compile_source(path: Path, defines: Mapping[str, int], sources: Path = BPF_SOURCES) -> Any:
    """Compile the file ``path`` with the headers in ``sources``. Returns a ``bcc.BPF``. Raises :class:`BenchError`."""
    try:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources / "kshim")
        import bcc
    except ImportError:
        raise BenchError("bcc: expected the Debian package python3-bpfcc, found no module") from None
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    flags = [f"-I{sources}/kshim/include", f"-I{sources}", "-I/usr/include", f"-I/usr/include/{multiarch}", "-O2"]
    flags += [f"-D{name}={value}" for name, value in defines.items()]
    try:
        return bcc.BPF(src_file=str(path).encode(), cflags=flags)
    except Exception as error:
        raise BenchError(f"{path}: BCC cannot compile the file: {error}") from None


def load(module: Any, name: str, kind: str, attach_type: int | None = None) -> Any:
    """Load the program ``name`` of a compiled file. ``kind``: XDP or SCHED_CLS. Raises :class:`BenchError`."""
    import bcc

    try:
        arguments = (None, attach_type) if attach_type is not None else ()
        return module.load_func(name.encode(), getattr(bcc.BPF, kind), *arguments)
    except Exception as error:
        raise BenchError(f"{name}: the kernel does not load the program: {error}") from None


@contextlib.contextmanager
def attached(function: Any, namespace: str, interface: str, kind: int = XDP) -> Iterator[None]:
    """Context manager: the program is attached to an interface. Raises :class:`BenchError`."""
    import bcc

    with inside(namespace):
        index = index_of(interface)
        descriptor = bcc.lib.bpf_link_create(function.fd, index, kind, None)
    if descriptor < 0:
        reason = os.strerror(ctypes.get_errno() or -descriptor)
        raise BenchError(f"{interface} in {namespace}: the kernel does not attach {function.name!r}: {reason}")
    try:
        yield
    finally:
        os.close(descriptor)


def index_of(interface: str) -> int:
    """The index of an interface in the current network namespace."""
    return socket.if_nametoindex(interface)


def set_devmap(table: Any, entries: Sequence[tuple[int, int]]) -> None:
    """Fill a devmap with ``entries`` (interface index, and file descriptor of a program or 0), in the current network
    namespace.
    """
    import bcc

    for number, (index, program) in enumerate(entries):
        key = ctypes.c_uint32(number)
        value = struct.pack("=Ii", index, program) if table.Leaf is not ctypes.c_int else struct.pack("=I", index)
        buffer = ctypes.create_string_buffer(value, len(value))
        if bcc.lib.bpf_update_elem(table.map_fd, ctypes.byref(key), buffer, 0) != 0:
            raise BenchError(f"devmap entry {number}: {os.strerror(ctypes.get_errno())}")


def write(table: Any, key: bytes, value: bytes) -> None:
    """Write one entry of a BPF map, as bytes. Raises :class:`BenchError`."""
    import bcc

    keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    if bcc.lib.bpf_update_elem(table.map_fd, keys, values, 0) != 0:
        raise BenchError(f"{table.name}: {os.strerror(ctypes.get_errno())}")


class Generator:
    """Sends frames from an interface of a namespace, as fast as one processor can send them, or with a minimum gap
    between two frames.
    """

    def __init__(self, namespace: str, interface: str, frames: Sequence[bytes], gap: int = 0) -> None:
        """``frames``: frames of equal length.

        The generator uses only the first 2^n of these frames (n as large as possible).

        ``gap``: minimum nanoseconds between two frames, at most about 5,000.
        """
        self._gap = gap
        self.count = 1 << (len(frames).bit_length() - 1)
        self._length = len(frames[0])
        self._padding = bytes(8 - self._length % 8)
        self._module = compile_source(HERE / "generator.c", {"FRAME_BYTES": self._length, "FRAMES": self.count})
        self._program = load(self._module, "generate", "XDP")
        self._namespace = namespace
        with inside(namespace):
            set_devmap(self._module["way_out"], [(index_of(interface), 0)])
        self.fill(frames)

    def fill(self, frames: Sequence[bytes]) -> None:
        """Replace all frames by ``frames``, which have the same length, and send the first of them next."""
        import bcc

        blob = b"".join(frame + self._padding for frame in frames[: self.count])
        if len(blob) != (self._length + len(self._padding)) * self.count:
            raise BenchError(f"expected {self.count} frames of {self._length} bytes, got {len(blob)} bytes in all")
        values = ctypes.create_string_buffer(blob, len(blob))
        keys = (ctypes.c_uint32 * self.count)(*range(self.count))
        count = ctypes.c_uint32(self.count)
        table = self._module["frames"]
        if bcc.lib.bpf_update_batch(table.map_fd, keys, values, ctypes.byref(count)) != 0:
            raise BenchError(f"frames: {os.strerror(ctypes.get_errno())}")
        self.rewind()

    def rewind(self) -> None:
        """Make :meth:`send` continue with the first frame."""
        write(self._module["position"], struct.pack("=I", 0), struct.pack("=QQII", self._gap, 0, 0, 0))

    def send(self, count: int) -> None:
        """Send the next ``count`` frames on the processor that the caller runs on. Raises :class:`BenchError`."""
        data = bytes(self._length)
        with inside(self._namespace):
            while count > 0:
                part = min(count, _MOST)
                # A signal ends the system call early. No benchmark needs the frames that remain.
                with contextlib.suppress(InterruptedError):
                    libbpf.run(self._program.fd, data, live=part, batch=min(part, BATCH))
                count -= part
