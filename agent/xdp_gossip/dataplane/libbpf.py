# SPDX-License-Identifier: MIT
"""Pinned BPF maps and ring buffers through libbpf, by ctypes: a megabyte of memory, where BCC takes a hundred.

Needs the right to read and write the pin, and no capability where the kernel asks for none (:mod:`unprivileged`).
libbpf 0.5 to 1.x.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Flags of an update (linux/bpf.h).
ANY, NOEXIST, EXIST = 0, 1, 2
#: Copy the value under the ``struct bpf_spin_lock`` in it.
LOCK = 4

_NAMES = ("libbpf.so.1", "libbpf.so.0")
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class MapError(OSError):
    """A call on a map failed; the message names the map, the call and the reason."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}")


class LibraryMissing(Exception):
    """There is no libbpf that could be used; the message says what to install."""


class _Info(ctypes.Structure):
    """The beginning of ``struct bpf_map_info``."""

    _fields_ = [
        (name, ctypes.c_uint32) for name in ("type", "id", "key_size", "value_size", "max_entries", "map_flags")
    ]


class _BatchOptions(ctypes.Structure):
    """``struct bpf_map_batch_opts``."""

    _fields_ = [("sz", ctypes.c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """libbpf, loaded at the first call. Raises ``LibraryMissing``."""
    loaded = None
    for name in _NAMES:
        try:
            loaded = ctypes.CDLL(name, use_errno=True)
            break
        except OSError:
            continue
    if loaded is None:
        raise LibraryMissing(f"{' or '.join(_NAMES)}: not found; install libbpf1 (Debian) or libbpf (Red Hat, SUSE)")
    text, pointer, u64 = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint64
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "bpf_obj_get": (ctypes.c_int, (text,)),
        "bpf_obj_get_info_by_fd": (ctypes.c_int, (ctypes.c_int, pointer, pointer)),
        "bpf_map_lookup_elem_flags": (ctypes.c_int, (ctypes.c_int, pointer, pointer, u64)),
        "bpf_map_update_elem": (ctypes.c_int, (ctypes.c_int, pointer, pointer, u64)),
        "bpf_map_delete_elem": (ctypes.c_int, (ctypes.c_int, pointer)),
        "bpf_map_get_next_key": (ctypes.c_int, (ctypes.c_int, pointer, pointer)),
        "bpf_map_lookup_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 6)),
        "bpf_map_update_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 4)),
        "bpf_map_delete_batch": (ctypes.c_int, (ctypes.c_int, *(pointer,) * 3)),
        "ring_buffer__new": (pointer, (ctypes.c_int, _SAMPLE, pointer, pointer)),
        "ring_buffer__consume": (ctypes.c_int, (pointer,)),
        "ring_buffer__epoll_fd": (ctypes.c_int, (pointer,)),
        "ring_buffer__free": (None, (pointer,)),
        "libbpf_num_possible_cpus": (ctypes.c_int, ()),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(loaded, name)
        except AttributeError:
            raise LibraryMissing(f"{loaded._name} has no {name}: expected libbpf 0.5 or later") from None
        function.restype, function.argtypes = result, arguments
    return loaded


def processors() -> int:
    """How many values an entry of a per-CPU map has. Raises ``LibraryMissing``, ``OSError``."""
    count = int(library().libbpf_num_possible_cpus())
    if count < 1:
        raise OSError(-count, f"number of possible processors: {os.strerror(-count)}")
    return count


class Map:
    """A pinned map. Keys and values are bytes of the map's sizes. Every call raises ``MapError``.

    Sizes other than the expected are an error at once: the map would be of another layout.
    """

    def __init__(self, path: Path, key_size: int, value_size: int) -> None:
        self.name = path.name
        self._bpf = library()
        self.fd = self._bpf.bpf_obj_get(os.fsencode(path))
        if self.fd < 0:
            raise MapError(ctypes.get_errno(), str(path))
        info = _Info()
        length = ctypes.c_uint32(ctypes.sizeof(info))
        try:
            if self._bpf.bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(length)):
                raise self._error("information")
            if (info.key_size, info.value_size) != (key_size, value_size):
                found = f"{info.key_size} and {info.value_size}"
                what = f"map {self.name}: expected keys and values of {key_size} and {value_size} bytes, found {found}"
                raise MapError(errno.EPROTO, what)
        except MapError:
            self.close()
            raise
        self.id = info.id
        self.max_entries = info.max_entries
        self._value_size = value_size
        self._key_size = key_size

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lookup(self, key: bytes, flags: int = ANY, size: int = 0) -> bytes | None:
        """The value under ``key``, None when there is none. ``size``: its length if the map is per CPU."""
        value = ctypes.create_string_buffer(size or self._value_size)
        if self._bpf.bpf_map_lookup_elem_flags(self.fd, key, value, flags):
            if ctypes.get_errno() == errno.ENOENT:
                return None
            raise self._error("lookup")
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Write an entry."""
        if self._bpf.bpf_map_update_elem(self.fd, key, value, flags):
            raise self._error("update")

    def delete(self, key: bytes) -> bool:
        """Remove an entry; False when there was none."""
        if self._bpf.bpf_map_delete_elem(self.fd, key):
            if ctypes.get_errno() == errno.ENOENT:
                return False
            raise self._error("delete")
        return True

    def keys(self) -> list[bytes]:
        """All keys, one call for each: for a small map, of a kind that the kernel does not read in batches."""
        found: list[bytes] = []
        previous: bytes | None = None
        following = ctypes.create_string_buffer(self._key_size)
        # Keys that come and go meanwhile can start the walk again: it ends all the same.
        while len(found) < self.max_entries:
            if self._bpf.bpf_map_get_next_key(self.fd, previous, following):
                if ctypes.get_errno() == errno.ENOENT:
                    return found
                raise self._error("next key")
            previous = following.raw
            found.append(previous)
        return found

    def update_many(self, keys: bytes, values: bytes) -> None:
        """Write many entries with one call; ``keys`` and ``values`` each in a row."""
        count = ctypes.c_uint32(len(keys) // self._key_size)
        if count.value and self._bpf.bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None):
            raise self._error("update of many")

    def delete_many(self, keys: bytes) -> None:
        """Remove many entries with one call; all of them must be there."""
        count = ctypes.c_uint32(len(keys) // self._key_size)
        if count.value and self._bpf.bpf_map_delete_batch(self.fd, keys, ctypes.byref(count), None):
            raise self._error("removal of many")

    def batches(self, size: int = 1024, flags: int = ANY) -> Iterator[tuple[bytes, bytes]]:
        """All entries, about ``size`` in a step: keys in a row and their values in a row.

        Entries that come or go meanwhile may be left out. Ends: a walk meets each bucket of the map once, and is
        given up after so many steps as there could be entries.
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


class RingBuffer:
    """A pinned ring buffer; its descriptor ``fd`` is readable while something is in it."""

    def __init__(self, path: Path) -> None:
        """Raises ``MapError``, and ``MemoryError`` where the process may not make a callback from C."""
        self.name = path.name
        self._bpf = library()
        self.fd = self._bpf.bpf_obj_get(os.fsencode(path))
        if self.fd < 0:
            raise MapError(ctypes.get_errno(), str(path))
        self._take: Callable[[bytes], None] | None = None
        self._left = 0
        # Kept as long as the ring: C calls it. Under systemd's MemoryDenyWriteExecute this works since libffi 3.4,
        # whose trampolines are mapped from its file.
        self._callback = _SAMPLE(self._on_sample)
        self._ring = self._bpf.ring_buffer__new(self.fd, self._callback, None, None)
        if not self._ring:
            number = ctypes.get_errno()
            os.close(self.fd)
            raise MapError(number, f"ring buffer {self.name}")

    def consume(self, take: Callable[[bytes], None], most: int) -> int:
        """Hand up to ``most`` records to ``take``, which must not raise; returns how many were there."""
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
        # A negative answer ends the round; this record is consumed none the less.
        return -errno.EAGAIN if self._left <= 0 else 0

    def close(self) -> None:
        """Give memory and descriptor back. Idempotent."""
        if self._ring:
            self._bpf.ring_buffer__free(self._ring)
            self._ring = None
            os.close(self.fd)
