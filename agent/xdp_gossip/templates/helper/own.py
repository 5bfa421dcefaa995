# SPDX-License-Identifier: MIT
"""The helper's own directory, which only root can write: new files before they are placed, and saved state."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from typing import Any

from ...config.templates import who_else_writes
from .held import PlaceError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: For a new file, which nobody can have put there.
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(directory: str) -> tuple[int, bool]:
    """Open ``directory`` without following a symbolic link; and whether only root can write it and all above it.

    Raises PlaceError; a final one for a symbolic link on the way.
    """
    descriptor = os.open("/", DIRECTORY)
    try:
        found = os.fstat(descriptor)
        trusted = not who_else_writes(found)
        for part in directory.strip("/").split("/"):
            if not part:
                continue
            try:
                below = os.open(part, DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                # Both are ENOTDIR with O_DIRECTORY.
                final = error.errno in (errno.ENOTDIR, errno.ELOOP)
                what = "no directory, or a symbolic link: give the path that it leads to" if final else error.strerror
                raise PlaceError(
                    f"{directory}: expected directories all the way, got {part}: {what}", final=final
                ) from None
            os.close(descriptor)
            descriptor = below
            found = os.fstat(descriptor)
            trusted = trusted and not who_else_writes(found)
    except BaseException:
        os.close(descriptor)
        raise
    # A sticky bit keeps others from replacing the directory, not from creating it first.
    return descriptor, trusted and not found.st_mode & 0o022


class Own:
    """The directory ``path``; it is made when it is not there. Raises PlaceError when others can write it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> int:
        """A descriptor of the directory, which the caller closes.

        Other users can pass through the directory but list nothing.
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.makedirs(self.path, 0o711)
        except OSError as error:
            raise PlaceError(f"files_helper.state_dir: {self.path}: {error.strerror or error}") from None
        descriptor, trusted = walk(self.path)
        if not trusted:
            os.close(descriptor)
            raise PlaceError(
                f"files_helper.state_dir: {self.path}: it has to belong to root, as all above it, and be writable by"
                " nobody else"
            )
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o711:
            os.fchmod(descriptor, 0o711)
        return descriptor

    def room(self, target: str) -> int:
        """A descriptor of the directory for what belongs to the file ``target``, mode 0700."""
        own = self.open()
        try:
            name = _room(target)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=own)
            return os.open(name, DIRECTORY, dir_fd=own)
        finally:
            os.close(own)

    def note(self, target: str, name: str, value: dict[str, Any]) -> None:
        """Store ``value`` under ``name`` for the file ``target``; it is on disk when this returns."""
        room = self.room(target)
        try:
            new = f"{name}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=room)
            with open(os.open(new, CREATE, 0o600, dir_fd=room), "w", encoding="ascii") as stream:
                json.dump(value, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(new, name, src_dir_fd=room, dst_dir_fd=room)
            os.fsync(room)
        finally:
            os.close(room)

    def recall(self, target: str, name: str) -> dict[str, Any] | None:
        """The value stored last; None if there is none, or a crash has damaged it."""
        room = self.room(target)
        try:
            with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=room), encoding="ascii") as stream:
                value = json.load(stream)
        except (FileNotFoundError, ValueError):
            return None
        finally:
            os.close(room)
        return value if isinstance(value, dict) else None

    def forget(self, target: str, name: str) -> None:
        """Delete the stored value."""
        room = self.room(target)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=room)
        finally:
            os.close(room)

    def room_path(self, target: str) -> str:
        """The path of the directory for what belongs to a file."""
        return os.path.join(self.path, _room(target))


def _room(target: str) -> str:
    return hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
