# SPDX-License-Identifier: MIT
"""A directory that files are replaced in, reached without following a symbolic link, and held open meanwhile.

All names are used relative to the open directory, so that nobody who can write somewhere above it can lead a write
elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PlaceError(Exception):
    """The file cannot be written there; the text says why."""


class Place:
    """The directory of ``path``; use it as a context manager. ``base`` is the file's name in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory, self.base = os.path.split(path)
        self.descriptor = os.open("/", _DIRECTORY)
        try:
            for part in self.directory.strip("/").split("/"):
                if not part:
                    continue
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=self.descriptor)
                except OSError as error:
                    what = "no directory, or a symbolic link" if error.errno in (20, 40) else error.strerror
                    raise PlaceError(
                        f"{self.directory}: expected directories all the way, got {part}: {what}"
                    ) from None
                os.close(self.descriptor)
                self.descriptor = below
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    def side(self, what: str) -> str:
        """A hidden name beside the file: no pattern such as ``*.conf`` takes it up."""
        return f".{self.base}.xg-{what}"

    def status(self, name: str) -> os.stat_result | None:
        """What is there under ``name``, itself and not what it points at. Raises PlaceError for no regular file."""
        try:
            found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "another kind of file"
            raise PlaceError(f"{self.directory}/{name}: expected a regular file or nothing, got {kind}")
        return found

    def digest(self, name: str, most: int) -> bytes | None:
        """SHA-256 of a regular file of at most ``most`` bytes, else None."""
        found = self.status(name)
        if found is None or found.st_size > most:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=self.descriptor), "rb") as stream:
            return hashlib.sha256(stream.read(most + 1)).digest()

    def write(self, content: bytes, uid: int, gid: int, mode: int) -> str:
        """Write a new hidden file, on the disk when this returns; its name."""
        name = self.side(f"tmp-{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                # The owner first: a change of owner may clear bits of the mode.
                os.fchown(stream.fileno(), uid, gid)
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
        except BaseException:
            self.remove(name)
            raise
        return name

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, one that must be free."""
        os.link(source, target, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor, follow_symlinks=False)

    def mark(self, name: str) -> None:
        """Make an empty file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=self.descriptor))

    def rename(self, source: str, target: str) -> None:
        """Replace ``target`` at once."""
        os.rename(source, target, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """Put the names on the disk."""
        os.fsync(self.descriptor)

    def tidy(self) -> None:
        """Remove temporary files that a helper which was killed has left."""
        prefix = self.side("tmp-")
        for name in os.listdir(self.descriptor):
            if name.startswith(prefix):
                self.remove(name)
