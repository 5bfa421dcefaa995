# SPDX-License-Identifier: MIT
"""BPF maps and ring buffers: functions on descriptors, and classes for pinned maps.

Access to a pinned map needs permission to read and write the pin. Access needs no capability where the kernel allows
unprivileged use (``dataplane/unprivileged.py``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .binding import SAMPLE, check, get, information, library, processors

#: Flags of a map update (linux/bpf.h).
ANY, NOEXIST, EXIST = 0, 1, 2
#: Flag: lock the value's own ``struct bpf_spin_lock`` during the access.
LOCK = 4

#: Map types (enum bpf_map_type).
ARRAY, HASH, LRU_HASH, PERCPU_ARRAY, LPM_TRIE, RINGBUF = 2, 1, 9, 6, 11, 27


class MapError(OSError):
    """A call on a map failed. The message names the map, the call and the reason."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}")


class _MapInfo(ctypes.Structure):
    """The first fields of ``struct bpf_map_info``, padded to the size of the whole structure."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("_rest", ctypes.c_uint8 * 236),
    )


class _BatchOptions(ctypes.Structure):
    """``struct bpf_map_batch_opts``."""

    _fields_ = [("sz", ctypes.c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


@dataclass(frozen=True)
class MapInfo:
    """The properties of a map. A map can replace another map if all their properties except ``id`` are equal."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int


def map_info(descriptor: int) -> MapInfo:
    """Ask the kernel for the properties of the map with this descriptor."""
    info = _MapInfo()
    information(descriptor, info, "map")
    return MapInfo(info.id, info.type, info.key_size, info.value_size, info.max_entries)


def lookup(descriptor: int, key: bytes, size: int, flags: int = ANY) -> bytes:
    """Return the value of the entry ``key`` in a map whose values are ``size`` bytes long."""
    value = ctypes.create_string_buffer(size)
    check(library().bpf_map_lookup_elem_flags(descriptor, key, value, flags), "map entry")
    return value.raw


def lookup_per_cpu(descriptor: int, index: int) -> int:
    """Return one entry of a per-CPU array: the sum of the 64-bit values of all CPUs."""
    values = lookup(descriptor, index.to_bytes(4, sys.byteorder), 8 * processors())
    return sum(struct.unpack(f"={len(values) // 8}Q", values))


def update(descriptor: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Write one entry of a map."""
    check(library().bpf_map_update_elem(descriptor, key, value, flags), "map entry")


def delete(descriptor: int, key: bytes) -> None:
    """Remove one entry of a map, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        check(library().bpf_map_delete_elem(descriptor, key), "map entry")


def keys(descriptor: int, size: int, most: int) -> list[bytes]:
    """Return at most ``most`` keys of a map whose keys are ``size`` bytes long. Makes one system call per key.

    If entries are added or removed during the iteration, keys may be missing or appear twice, and the iteration may
    start again. The iteration always ends.
    """
    found: list[bytes] = []
    key, following = None, ctypes.create_string_buffer(size)
    with contextlib.suppress(FileNotFoundError):
        while len(found) < most:
            check(library().bpf_map_get_next_key(descriptor, key, following), "next key")
            key = following.raw
            found.append(key)
    return found


def _open(path: Path) -> int:
    """Open the object pinned at ``path`` and return its descriptor. Raises ``LibraryMissing``, ``MapError``."""
    library()
    try:
        return get(os.fspath(path))
    except OSError as error:
        raise MapError(error.errno or errno.EIO, str(path)) from None


class Map:
    """A pinned map. Keys and values are byte strings whose lengths the map defines. Every call raises ``MapError``.

    It is an error to open a map whose key or value size differs from the expected size, because such a map has another
    layout.
    """

    def __init__(self, path: Path, key_size: int, value_size: int) -> None:
        self.name = path.name
        self.fd = _open(path)
        try:
            info = map_info(self.fd)
            if (info.key_size, info.value_size) != (key_size, value_size):
                found = f"{info.key_size} and {info.value_size}"
                what = f"map {self.name}: expected keys and values of {key_size} and {value_size} bytes, found {found}"
                raise MapError(errno.EPROTO, what)
        except MapError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._failed("information", error) from None
        self.id = info.id
        self.max_entries = info.max_entries
        self._bpf = library()
        self._value_size = value_size
        self._key_size = key_size

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lookup(self, key: bytes, flags: int = ANY, size: int = 0) -> bytes | None:
        """Return the value of the entry ``key``; None if the map has no such entry.

        ``size``: for a per-CPU map, the total bytes of the values of all CPUs.
        """
        try:
            return lookup(self.fd, key, size or self._value_size, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("lookup", error) from None

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Write the entry ``key``. Raises ``MapError``."""
        try:
            update(self.fd, key, value, flags)
        except OSError as error:
            raise self._failed("update", error) from None

    def delete(self, key: bytes) -> None:
        """Remove the entry ``key``, if it exists."""
        try:
            delete(self.fd, key)
        except OSError as error:
            raise self._failed("delete", error) from None

    def keys(self) -> list[bytes]:
        """All keys of the map, with one system call per key.

        This method is for small maps of a type that the kernel cannot read in batches.
        """
        try:
            return keys(self.fd, self._key_size, self.max_entries)
        except OSError as error:
            raise self._failed("next key", error) from None

    def update_many(self, keys: bytes, values: bytes) -> None:
        """Write many entries with one system call.

        ``keys`` contains all keys in a row, ``values`` all values in the same order.
        """
        count = ctypes.c_uint32(len(keys) // self._key_size)
        if count.value and self._bpf.bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None):
            raise self._error("update of many")

    def delete_many(self, keys: bytes) -> None:
        """Remove many entries with one system call. All keys must exist in the map."""
        count = ctypes.c_uint32(len(keys) // self._key_size)
        if count.value and self._bpf.bpf_map_delete_batch(self.fd, keys, ctypes.byref(count), None):
            raise self._error("removal of many")

    def batches(self, size: int = 1024, flags: int = ANY) -> Iterator[tuple[bytes, bytes]]:
        """Yield all entries, about ``size`` per step, as concatenated keys and concatenated values.

        Entries that are added or removed during the iteration may be left out. The iteration always ends: it visits
        each bucket of the map once, and stops after as many steps as the map can have entries.
        """
        keys = ctypes.create_string_buffer(size * self._key_size)
        values = ctypes.create_string_buffer(size * self._value_size)
        position = ctypes.create_string_buffer(max(8, self._key_size))
        options = _BatchOptions(ctypes.sizeof(_BatchOptions), flags, 0)
        count = ctypes.c_uint32()
        before = None
        for _ in range(self.max_entries + 1):
            count.value = size
            result = self._bpf.bpf_map_lookup_batch(
                self.fd, before, position, keys, values, ctypes.byref(count), ctypes.byref(options)
            )
            number = ctypes.get_errno() if result else 0
            if number not in (0, errno.ENOENT):
                raise self._error("walk")
            if count.value:
                yield (
                    ctypes.string_at(keys, count.value * self._key_size),
                    ctypes.string_at(values, count.value * self._value_size),
                )
            if number:
                return
            before = position

    def _error(self, what: str) -> MapError:
        return MapError(ctypes.get_errno(), f"map {self.name}, {what}")

    def _failed(self, what: str, error: OSError) -> MapError:
        return MapError(error.errno or errno.EIO, f"map {self.name}, {what}")


class RingBuffer:
    """A pinned ring buffer. The descriptor ``fd`` is readable while the ring buffer contains records."""

    def __init__(self, path: Path) -> None:
        """Open the ring buffer.

        Raises ``MapError``, and ``MemoryError`` if the process is not allowed to create a callback for C code.
        """
        self.name = path.name
        self._bpf = library()
        self.fd = _open(path)
        self._take: Callable[[bytes], None] | None = None
        self._left = 0
        # Keep a reference, so that Python does not free the callback while C code can call it. Under systemd's
        # MemoryDenyWriteExecute, creating a callback needs libffi 3.4 or later: this version maps the executable code
        # of a callback from the library file.
        self._callback = SAMPLE(self._on_sample)
        self._ring = self._bpf.ring_buffer__new(self.fd, self._callback, None, None)
        if not self._ring:
            number = ctypes.get_errno()
            os.close(self.fd)
            raise MapError(number, f"ring buffer {self.name}")

    def consume(self, take: Callable[[bytes], None], most: int) -> int:
        """Pass up to ``most`` records to ``take``, which must not raise.

        Returns the number of records that were passed.
        """
        self._take, self._left = take, most
        result = self._bpf.ring_buffer__consume(self._ring)
        taken = most - self._left
        if result < 0 and self._left:
            raise MapError(-result, f"ring buffer {self.name}, consume")
        return taken

    def _on_sample(self, _context: object, data: int, size: int) -> int:
        self._left -= 1
        assert self._take is not None
        self._take(ctypes.string_at(data, size))
        # A negative return value stops libbpf's loop; the current record is consumed nevertheless.
        return -errno.EAGAIN if self._left <= 0 else 0

    def close(self) -> None:
        """Free the memory and close the descriptor. Idempotent."""
        if self._ring:
            self._bpf.ring_buffer__free(self._ring)
            self._ring = None
            os.close(self.fd)
