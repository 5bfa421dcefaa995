# SPDX-License-Identifier: MIT
"""Appends audit records to a file, one JSON object a line, and rotates the file.

A thread writes the file, so that a slow or full disk delays no request. A record that cannot be written is counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import stat
import threading
from typing import Any

from ..common.quiet import Quiet

_log = logging.getLogger("xdp_gossip.api")

#: Maximum bytes of one file, and number of former files that are kept: FILE.1 is the newest of them.
MAX_BYTES = 8 * 1024 * 1024
KEPT = 4
#: Maximum number of records that wait for the disk.
_QUEUE = 4096
#: Seconds within which the waiting records are written when the agent ends.
_CLOSE_SECONDS = 2.0
LOST = "audit_lost"


class AuditFile:
    """The file ``path``; "" for no file. ``counters`` receives the number of records that could not be written."""

    def __init__(self, counters: dict[str, int]) -> None:
        self.path = ""
        self._counters = counters
        self._quiet = Quiet(_log)
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        counters.setdefault(LOST, 0)

    def add(self, record: dict[str, Any]) -> None:
        """Append ``record`` to the file soon. Never blocks."""
        if not self.path:
            return
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        try:
            self._waiting.put_nowait((self.path, line))
        except queue.Full:
            self._lose(1, f"{self.path}: more than {_QUEUE} records wait for the disk")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait at most two seconds until the waiting records are written. Idempotent."""
        thread, self._thread, self.path = self._thread, None, ""
        if thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
            thread.join(_CLOSE_SECONDS)

    def _lose(self, number: int, why: str) -> None:
        self._counters[LOST] += number
        self._quiet(LOST, f"audit: a record was not written: {why}")

    def _run(self) -> None:
        while True:
            entry = self._waiting.get()
            if entry is None:
                return
            try:
                append(*entry)
            except OSError as error:
                self._lose(1, f"{entry[0]}: {error.strerror or error}")


def append(path: str, line: bytes, most: int = MAX_BYTES) -> None:
    """Append ``line`` to the file ``path``, and rotate the file first if it would exceed ``most`` bytes.

    Raises ``OSError`` if the line cannot be written completely; the file then does not contain a part of it.
    """
    descriptor = _opened(path)
    try:
        size = os.fstat(descriptor).st_size
        if size and size + len(line) > most:
            _rotate(path)
            os.close(descriptor)
            descriptor = -1
            descriptor = _opened(path)
            size = 0
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # the host lost its power while a line was written
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, size)  # a full disk takes the beginning of the line only
            raise OSError(f"wrote {written} of {len(line)} bytes")
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _opened(path: str) -> int:
    """Open a file that only its owner may read, and that is no link, no FIFO and no device."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError("expected a regular file")
        if stat.S_IMODE(mode) != 0o600:
            os.fchmod(descriptor, 0o600)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _rotate(path: str) -> None:
    for number in range(KEPT, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path if number == 1 else f"{path}.{number - 1}", f"{path}.{number}")


def files_of(path: str) -> list[str]:
    """Return the paths of the file and of its former files, the oldest first, whether or not they exist."""
    return [*(f"{path}.{number}" for number in range(KEPT, 0, -1)), path]
