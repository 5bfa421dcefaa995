# SPDX-License-Identifier: MIT
"""The open directory of a file that the helper replaces, and a second directory that only root can write.

The helper opens all names relative to open directories, so a user who can write to a parent directory cannot redirect a
write. docs/security.md explains in which directory the new file is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from types import TracebackType

from ...config.templates import who_else_writes
from .held import Held, PlaceError
from .own import CREATE, DIRECTORY, Own, walk

#: Maximum bytes of a suffix that the name of the new file copies from the target. No validation command needs a longer
#: suffix.
_MOST_SUFFIX = 24
#: Name of the record in the helper's own directory that stores the name and inode of the private directory.
_NOTE = "directory"


class Place:
    """The directory of the file ``path``, used as a context manager. ``base`` is the name of the file in this
    directory.

    ``own`` is the helper's own directory. Raises :class:`PlaceError` and OSError.
    """

    def __init__(self, path: str, own: Own) -> None:
        self.path = path
        self.directory, self.base = os.path.split(path)
        self._own = own
        # Name of root's private directory inside the target's directory.
        self._private = ""
        self._room: int | None = None
        with contextlib.ExitStack() as stack:
            self._open = stack
            self.descriptor, self.trusted = walk(self.directory)
            stack.callback(os.close, self.descriptor)
            self._work = self.descriptor
            if not self.trusted:
                self._room = own.room(path)
                stack.callback(os.close, self._room)
                self._room_path = own.room_path(path)
                self._work = self._room
                if _mount(self._room) != _mount(self.descriptor):
                    self._work = self._private_directory()
                    stack.callback(os.close, self._work)
            self._open = stack.pop_all()

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if self._private and not os.listdir(self._work):
                # Ignore an error: the owner of the target's directory may have replaced the private directory with
                # another file.
                with contextlib.suppress(OSError):
                    os.rmdir(self._private, dir_fd=self.descriptor)
                self._own.forget(self.path, _NOTE)

    def _private_directory(self) -> int:
        """Open root's private directory, which is a subdirectory of the target's directory.

        If the private directory that the helper has recorded no longer exists, create a new private directory.
        """
        noted = self._own.recall(self.path, _NOTE)
        if noted is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(noted["name"], DIRECTORY, dir_fd=self.descriptor)
                found = os.fstat(descriptor)
                if [found.st_dev, found.st_ino] == noted["identity"] and _private(found):
                    self._private = noted["name"]
                    return descriptor
                os.close(descriptor)
        name = f".xg-{secrets.token_hex(8)}"
        os.mkdir(name, 0o700, dir_fd=self.descriptor)
        descriptor = os.open(name, DIRECTORY, dir_fd=self.descriptor)
        try:
            found = os.fstat(descriptor)
            if not _private(found) or os.listdir(descriptor):
                raise PlaceError(f"{self.directory}: {name} was replaced by another process while it was created")
            if noted is not None:
                # Someone has moved the private directory that the record names. The private directory may have
                # contained the former file of an interrupted exchange, so mark the former file as lost.
                os.close(os.open(self.side("lost"), CREATE, 0o600, dir_fd=descriptor))
            self._own.note(self.path, _NOTE, {"name": name, "identity": [found.st_dev, found.st_ino]})
        except BaseException:
            os.close(descriptor)
            raise
        self._private = name
        return descriptor

    # -- the file and its directory --------------------------------------------------------------------------------

    def held(self) -> Held | None:
        """Open the file that is installed at the path. Return None if no file is installed there. Raises PlaceError if
        this file cannot be replaced.
        """
        found = Held.open(self.base, self.descriptor, self.path)
        if found is not None and _mount(found.descriptor) != _mount(self.descriptor):
            found.close()
            raise PlaceError(
                f"{self.path}: it is a mount point and cannot be replaced: mount its directory instead, or unmount it",
                final=True,
            )
        return found

    def check_replaceable(self, name: str) -> None:
        """Raise PlaceError unless ``name`` in the target's directory is a regular file or does not exist."""
        found = Held.open(name, self.descriptor, f"{self.directory}/{name}")
        if found is not None:
            found.close()

    def holds(self, file: Held) -> bool:
        """Whether the path still leads to ``file``."""
        with contextlib.suppress(FileNotFoundError):
            return file.is_same(os.stat(self.base, dir_fd=self.descriptor, follow_symlinks=False))
        return False

    def remove_base(self) -> None:
        """Remove the file at the path, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.base, dir_fd=self.descriptor)

    def label(self) -> bytes | None:
        """Return the SELinux label of the directory. A new file in the directory would inherit this label."""
        try:
            return os.getxattr(self.descriptor, "security.selinux")
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return None
            raise

    # -- what lies beside, where only root can write ---------------------------------------------------------------

    def side(self, what: str) -> str:
        """Return a hidden name for an auxiliary file. No pattern such as ``*.conf`` matches the name."""
        return f".{self.base}.xg-{what}"

    def has(self, name: str) -> bool:
        """Whether the private directory contains the file ``name``."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=self._work, follow_symlinks=False)
            return True
        return False

    def open_side(self, name: str) -> Held | None:
        """Open the file ``name`` in the private directory. Return None if the file does not exist."""
        return Held.open(name, self._work, f"{self.directory}/{name}")

    def write(self, content: bytes) -> tuple[str, Held]:
        """Write ``content`` to a new hidden file that only root can read. Returns the name of the new file, and the new
        file itself, which is open.

        The name of the new file has the suffix of the target, such as ``.conf``.
        """
        suffix = os.path.splitext(self.base)[1]
        suffix = suffix if len(suffix.encode()) <= _MOST_SUFFIX else ""
        name = self.side(f"tmp-{secrets.token_hex(8)}{suffix}")
        descriptor = os.open(name, CREATE, 0o600, dir_fd=self._work)
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
        except BaseException:
            os.close(descriptor)
            self.remove(name)
            raise
        return name, Held(descriptor)

    @contextlib.contextmanager
    def shown(self, name: str, file: Held, content: bytes, group: int | None) -> Iterator[str]:
        """Yield a path at which a validation command can read the new file.

        Only root can replace the file at this path.

        ``group`` is the group that may access the file; None if the command runs as root.
        """
        if self._room is None:
            yield os.path.join(self.directory, name)
            return
        if group is not None:
            os.fchown(self._room, -1, group)
            os.fchmod(self._room, 0o710)
        path = os.path.join(self._room_path, name)
        try:
            if self._work == self._room:
                yield path
                return
            # The path to the private directory leads through a directory that other users can write, so give the
            # command a copy in the helper's own directory.
            with open(os.open(name, CREATE, 0o600, dir_fd=self._room), "wb") as stream:
                stream.write(content)
                stream.flush()
                found = os.fstat(file.descriptor)
                os.fchown(stream.fileno(), found.st_uid, found.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(found.st_mode))
            yield path
        finally:
            os.fchmod(self._room, 0o700)
            if self._work != self._room:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._room)

    def keep(self, held: Held, name: str) -> None:
        """Create a link to the installed file ``held``. The link is in the private directory and has the name ``name``.

        Raises PlaceError if the path no longer leads to ``held``.
        """
        os.link(self.base, name, src_dir_fd=self.descriptor, dst_dir_fd=self._work, follow_symlinks=False)
        if not held.is_same(os.stat(name, dir_fd=self._work, follow_symlinks=False)):
            self.remove(name)
            raise PlaceError(f"{self.path}: another process replaced it at the same moment")

    def link(self, source: str, target: str) -> None:
        """Create a link ``target`` to the file ``source``, both in the private directory. ``target`` must not exist."""
        os.link(source, target, src_dir_fd=self._work, dst_dir_fd=self._work, follow_symlinks=False)

    def mark(self, name: str) -> None:
        """Create an empty file in the private directory."""
        os.close(os.open(name, CREATE, 0o600, dir_fd=self._work))

    def rename(self, source: str, target: str) -> None:
        """Atomically move the file ``source`` from the private directory to ``target`` in the target's directory."""
        os.rename(source, target, src_dir_fd=self._work, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove the file ``name`` from the private directory, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._work)

    def sync(self) -> None:
        """Flush the entries of the private directory and of the target's directory to disk."""
        os.fsync(self._work)
        if self._work != self.descriptor:
            os.fsync(self.descriptor)

    def tidy(self) -> None:
        """Remove the temporary files of an earlier helper process that was killed."""
        prefix = self.side("tmp-")
        for descriptor in {self._work, self._work if self._room is None else self._room}:
            for name in os.listdir(descriptor):
                if name.startswith(prefix):
                    os.unlink(name, dir_fd=descriptor)


def _mount(descriptor: int) -> str:
    """Return the identifier of the mount that an open file belongs to. Even two bind mounts of the same file system
    have different identifiers. rename(2) fails between two mounts.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return line
    raise PlaceError(f"/proc/self/fdinfo/{descriptor}: it names no mount")


def _private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077 and not who_else_writes(found)
