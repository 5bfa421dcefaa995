# SPDX-License-Identifier: MIT
"""Manages the loader's directory: its lock, its bpffs and the pins in the bpffs.

The pins keep programs, links and maps alive after the loader has exited.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .. import headers, libbpf
from ..asking import Request
from .errors import LoaderError

#: Prefixes of the names of pinned links and of pinned programs. Maps are pinned under their own names.
LINK_PREFIX, PROGRAM_PREFIX = "link_", "prog_"
#: Suffix of a new pin's name, until the new pin replaces the old pin. The suffix contains no dot, because bpffs allows
#: no dots in names.
FRESH_SUFFIX = "_new"

LOCK_WAIT = 120.0
_MNT_DETACH = 2
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8


def mount_point(directory: Path) -> Path:
    """The mount point of the loader's bpffs."""
    return directory / "bpf"


def pin_directory(directory: Path, layout: int | None = None) -> Path:
    """Return the directory that contains the pins of one layout of the maps (default: the layout of this version)."""
    return mount_point(directory) / f"v{layout or headers.constants()['XG_LAYOUT']}"


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the loader's lock during the ``with`` block. Creates the directory if it is missing.

    Raises ``LoaderError`` if the lock is not free within two minutes.

    ``down`` removes the lock file together with the directory while other loaders may wait for the lock. So a loader
    that gets the lock checks that the path still leads to the file that the loader has locked.
    """
    end = time.monotonic() + LOCK_WAIT
    path = directory / "lock"
    while True:
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            descriptor = -1  # another loader removed the directory between the two calls
        except OSError as error:
            raise LoaderError(f"{path}: {error.strerror}", "run it as root") from None
        try:
            if descriptor >= 0 and _locked(descriptor, path):
                # The umask must not exclude the agent from the directory.
                os.chmod(directory, 0o755)
                yield
                return
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if time.monotonic() > end:
            raise LoaderError(
                f"{path}: held by another loader for {LOCK_WAIT:.0f} s",
                "wait until the other loader has finished, or end it",
            )
        time.sleep(0.05)


def offer_request(directory: Path, uid: int) -> None:
    """Create the directory in which the agent can place requests for the loader. Raises ``LoaderError``.

    The directory's group is root, with permission to remove entries, because the loader runs as root without the
    capability to bypass the permissions of a user's directory.
    """
    path = Request(directory).directory
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o775)
            os.chmod(path, 0o775)  # independent of the umask
        if path.lstat().st_uid != uid:
            os.chown(path, uid, 0, follow_symlinks=False)
    except OSError as error:
        remedy = "the loader needs CAP_CHOWN" if error.errno in (errno.EPERM, errno.EACCES) else f"df {directory}"
        raise LoaderError(f"{path}: {error.strerror}", remedy) from None


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def is_bpffs(path: Path) -> bool:
    """Whether a bpffs is mounted at ``path`` and not covered by another mount."""
    return _mounts(path)[-1:] == ["bpf"]


def uncover(directory: Path, layout: int) -> None:
    """Unmount everything that is mounted over the loader's bpffs.

    While another file system is mounted over the bpffs, the pinned programs keep running.

    Raises ``LoaderError``.
    """
    while len(_mounts(mount_point(directory))) > 1 and not pin_directory(directory, layout).is_dir():
        unmount(mount_point(directory))


def _mounts(path: Path) -> list[str]:
    """The types of the file systems that are mounted at ``path``; the visible file system is last."""
    wanted = str(path).replace("\\", "\\134").replace(" ", "\\040")
    kinds = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            before, _, after = line.partition(" - ")
            if before.split(" ")[4] == wanted:
                kinds.append(after.split(" ")[0])
    return kinds


def mount(path: Path) -> None:
    """Mount a bpffs that all users may traverse. Raises ``LoaderError``."""
    path.mkdir(mode=0o755, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(b"bpffs", str(path).encode(), b"bpf", ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC), b"mode=0755")
    if result:
        number = ctypes.get_errno()
        remedy = "the kernel needs CONFIG_BPF_SYSCALL, the loader CAP_SYS_ADMIN (a container may forbid mounts)"
        raise LoaderError(f"{path}: mounting a bpffs: {os.strerror(number)}", remedy)


def unmount(path: Path) -> None:
    """Unmount the bpffs, even while a process uses it. Raises ``LoaderError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (0, _MNT_DETACH):
        if not libc.umount2(str(path).encode(), flags):
            return
        if ctypes.get_errno() != errno.EBUSY:
            break
    raise LoaderError(f"{path}: unmounting: {os.strerror(ctypes.get_errno())}")


def replace(descriptor: int, path: Path) -> None:
    """Pin an object at ``path``, replacing an existing pin atomically."""
    fresh = path.with_name(path.name + FRESH_SUFFIX)
    fresh.unlink(missing_ok=True)
    libbpf.pin(descriptor, str(fresh))
    os.chmod(fresh, 0o600)
    os.replace(fresh, path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open the object that is pinned at ``path`` for the duration of the ``with`` block. Raises ``OSError``."""
    descriptor = libbpf.get(str(path))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_link(path: Path) -> None:
    """Detach the program of a pinned link, then remove the pin.

    Removing the pin also detaches the program, but a little later, and until then the hook stays occupied.
    """
    # The link, or its interface, may no longer exist.
    with contextlib.suppress(OSError), opened(path) as link:
        libbpf.link_detach(link)
    path.unlink(missing_ok=True)


def remove_pins(mounted_at: Path, *, links_only: bool = False) -> None:
    """Remove the pins of every layout. With ``links_only``, remove only the pins of links; this detaches programs."""
    if not is_bpffs(mounted_at):
        return
    directories = [path for path in mounted_at.iterdir() if path.name[:1] == "v" and path.name[1:].isdigit()]
    for directory in directories:
        for name in os.listdir(directory):
            if name.startswith(LINK_PREFIX):
                remove_link(directory / name)
            elif not links_only:
                (directory / name).unlink(missing_ok=True)
        if not links_only:
            directory.rmdir()


def strangers(mounted_at: Path) -> list[str]:
    """Names in the bpffs that belong neither to the loader nor to the kernel."""
    return [name for name in os.listdir(mounted_at) if name not in ("maps.debug", "progs.debug")]
