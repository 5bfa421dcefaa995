# SPDX-License-Identifier: MIT
"""Manages the loader's directory: its lock, its bpffs and the pins in that.

The pins keep programs, links and maps alive after the loader has ended.
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

#: The maps are pinned under their own names.
LINK_PREFIX, PROGRAM_PREFIX = "link_", "prog_"
#: No dot: bpffs takes none in names.
FRESH_SUFFIX = "_new"

LOCK_WAIT = 120.0
_MNT_DETACH = 2
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8


def mount_point(directory: Path) -> Path:
    """Mount point of the bpffs."""
    return directory / "bpf"


def pin_directory(directory: Path, layout: int | None = None) -> Path:
    """Directory of the pins of a layout (default: this version's)."""
    return mount_point(directory) / f"v{layout or headers.constants()['XG_LAYOUT']}"


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold the lock that keeps every other loader out. Creates the directory; raises ``LoaderError`` after two minutes.

    ``down`` removes the lock together with the directory while others wait for it, so a loader that gets a lock checks
    that it still is the one with that name.
    """
    end = time.monotonic() + LOCK_WAIT
    path = directory / "lock"
    while True:
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            descriptor = -1  # removed in between
        except OSError as error:
            raise LoaderError(f"{path}: {error.strerror}", "run it as root") from None
        try:
            if descriptor >= 0 and _locked(descriptor, path):
                # A umask must not keep the agent out.
                os.chmod(directory, 0o755)
                yield
                return
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if time.monotonic() > end:
            raise LoaderError(f"{path}: held by another loader for {LOCK_WAIT:.0f} s", "wait for it, or end it")
        time.sleep(0.05)


def offer_request(directory: Path, uid: int) -> None:
    """Create the directory where the agent's user asks the loader to look again. Raises ``LoaderError``.

    It belongs to root's group, which may remove its entries: the loader's root has no other right to a user's
    directory.
    """
    path = Request(directory).directory
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o775)
            os.chmod(path, 0o775)  # a umask
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
    """Whether a bpffs is mounted at ``path``, and nothing on top of it."""
    return _mounts(path)[-1:] == ["bpf"]


def uncover(directory: Path, layout: int) -> None:
    """Unmount whatever is mounted over our bpffs. The programs below it keep running but cannot be reached.

    Raises ``LoaderError``.
    """
    while len(_mounts(mount_point(directory))) > 1 and not pin_directory(directory, layout).is_dir():
        unmount(mount_point(directory))


def _mounts(path: Path) -> list[str]:
    """Kinds of the file systems that are mounted at ``path``, the one that is seen last."""
    wanted = str(path).replace("\\", "\\134").replace(" ", "\\040")
    kinds = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            before, _, after = line.partition(" - ")
            if before.split(" ")[4] == wanted:
                kinds.append(after.split(" ")[0])
    return kinds


def mount(path: Path) -> None:
    """Mount a bpffs that everybody may walk through. Raises ``LoaderError``."""
    path.mkdir(mode=0o755, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(b"bpffs", str(path).encode(), b"bpf", ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC), b"mode=0755")
    if result:
        number = ctypes.get_errno()
        remedy = "the kernel needs CONFIG_BPF_SYSCALL, the loader CAP_SYS_ADMIN (a container may forbid mounts)"
        raise LoaderError(f"{path}: mounting a bpffs: {os.strerror(number)}", remedy)


def unmount(path: Path) -> None:
    """Unmount the bpffs even while a process uses it. Raises ``LoaderError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (0, _MNT_DETACH):
        if not libc.umount2(str(path).encode(), flags):
            return
        if ctypes.get_errno() != errno.EBUSY:
            break
    raise LoaderError(f"{path}: unmounting: {os.strerror(ctypes.get_errno())}")


def replace(descriptor: int, path: Path) -> None:
    """Pin something under a name that may be taken, in one step."""
    fresh = path.with_name(path.name + FRESH_SUFFIX)
    fresh.unlink(missing_ok=True)
    libbpf.pin(descriptor, str(fresh))
    os.chmod(fresh, 0o600)
    os.replace(fresh, path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Context manager: a descriptor of what is pinned at ``path``, closed at the end. Raises ``OSError``."""
    descriptor = libbpf.get(str(path))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_link(path: Path) -> None:
    """Detach what a pinned link holds, then remove the pin.

    Removing the pin alone detaches as well, but some moments later, and the hook stays occupied until then.
    """
    # It may be gone, or half gone.
    with contextlib.suppress(OSError), opened(path) as link:
        libbpf.link_detach(link)
    path.unlink(missing_ok=True)


def remove_pins(mounted_at: Path, *, links_only: bool = False) -> None:
    """Remove the pins of every layout, or only those of the links, which detaches the programs."""
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
    """Names in the bpffs that are neither ours nor the kernel's."""
    return [name for name in os.listdir(mounted_at) if name not in ("maps.debug", "progs.debug")]
