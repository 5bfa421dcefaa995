# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the base images: Debian file systems in the cache that hosts use as the lower layer of their overlays.

All hosts with the same Debian release use the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .config import Config
from .sources import package_sources
from .system import NOT_FOUND, WITH_US, LabError, locked, mounts, remove_tree, run, unmount_under

IMAGE_VERSION = 1
"""Version of the build. Increase it after a change to the build that the constants below do not contain."""

NEEDED_BYTES = 2 * 1024**3

FILES = {
    "etc/hostname": "localhost\n",
    "etc/fstab": "",
    # If the file is empty, systemd creates an id at each host's first boot. If the file did not exist, systemd would
    # also run its first-boot setup.
    "etc/machine-id": "",
    "etc/apt/sources.list": "# The hosts of the lab have no way to a package mirror.\n",
    "etc/ssh/sshd_config.d/lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "UseDNS no\n"
        "MaxStartups 100:30:200\n"
    ),
    # Create the host key at the first boot, and create the key again if a power cut has truncated its file. Debian's
    # ssh unit would check the configuration before the host key exists.
    "etc/systemd/system/ssh.service.d/lab.conf": (
        "[Service]\n"
        "ExecStartPre=\n"
        "ExecStartPre=/bin/sh -c 'k=/etc/ssh/ssh_host_ed25519_key; "
        'test -s $k.pub || { rm -f $k $k.pub; ssh-keygen -q -t ed25519 -N "" -f $k; }\'\n'
        "ExecStartPre=/usr/sbin/sshd -t\n"
    ),
    # Keep the journal on disk, because tests read it after a power cut.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
}
ENABLED = ("systemd-networkd.service", "ssh.service")
DISABLED = ("nginx.service", "nftables.service")
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    # Containers use the kernel modules of the machine. If lab_extra_packages brings kmod, kmod of Debian 13 fails in a
    # container; the image of Debian 13 itself contains no kmod.
    "systemd-modules-load.service",
)


def image_paths(config: Config) -> list[Path]:
    """Return the paths of the images that the wanted hosts use, each image once."""
    return [image_path(config, suite) for suite in config.wanted_suites()]


def image_path(config: Config, suite: str) -> Path:
    """Return the path of the image of the Debian release `suite` for these settings.

    The name depends on every setting that affects the content of the image.
    """
    recipe = [
        IMAGE_VERSION,
        suite,
        platform.machine(),
        config.packages,
        FILES,
        ENABLED,
        DISABLED,
        MASKED,
    ]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    return Path(config.cache_dir) / f"image-{suite}-{key}"


def build(config: Config) -> list[Path]:
    """Build the images that do not exist, at the same time. Return the paths of the images that the function built.

    The function builds an image in a temporary directory, syncs it to disk and then renames the directory, so no host
    uses an incomplete image. Raises LabError with the end of the logs if a step fails. An image whose steps succeed
    stays in the cache even if another image fails.
    """
    if not _missing(config):
        return []
    cache = Path(config.cache_dir)
    with locked(cache / ".lock", config.image_timeout):
        missing = _missing(config)
        if not missing:
            return []
        for stale in cache.glob("build-*.tmp"):
            remove_tree(stale)
        free, needed = shutil.disk_usage(cache).free, NEEDED_BYTES * len(missing)
        if free < needed:
            raise LabError(f"{cache}: {free >> 20} MiB free, expected {needed >> 20} MiB for the base images")
        with ThreadPoolExecutor(len(missing)) as pool:
            futures = [pool.submit(_build, config, suite) for suite in missing]
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, LabError):
                raise error
        if errors:
            raise LabError("\n".join(map(str, errors)))
        return [future.result() for future in futures]


def _missing(config: Config) -> list[str]:
    """Return the Debian releases of the wanted hosts whose image does not exist."""
    return [suite for suite in config.wanted_suites() if not image_path(config, suite).is_dir()]


def _build(config: Config, suite: str) -> Path:
    cache, target = Path(config.cache_dir), image_path(config, suite)
    work = cache / f"build-{suite}-{os.getpid()}.tmp"
    _bootstrap(config, suite, work, cache / f"build-{suite}.log")
    _customise(work)
    run(["sync", "--file-system", str(work)], timeout=120)
    work.rename(target)
    return target


def _bootstrap(config: Config, suite: str, work: Path, log: Path) -> None:
    # Use mmdebstrap, because python3-cryptography depends on virtual packages, which debootstrap cannot resolve.
    command = [
        *WITH_US,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(config.packages)}",
    ]
    command += ["--dpkgopt=force-unsafe-io"]
    for folder in ("man", "doc", "locale", "info"):
        command.append(f"--dpkgopt=path-exclude=/usr/share/{folder}/*")
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    command += [suite, str(work), *package_sources(suite, config.mirror)]
    with log.open("w", encoding="utf-8") as stream:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                timeout=config.image_timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"base image of {suite}: not complete after {config.image_timeout:g} s, see {log}"
            ) from error
        finally:
            unmount_under(work)
    if done.returncode == NOT_FOUND:
        raise LabError("mmdebstrap: program not found; the role installs it on Debian, is this Debian?")
    if done.returncode != 0:
        tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:])
        raise LabError(
            f"base image of {suite}: mmdebstrap ended with status {done.returncode}; the end of {log}:\n{tail}"
        )


def _customise(root: Path) -> None:
    for pattern in (
        "etc/ssh/ssh_host_*",
        "etc/apt/sources.list.d/*",
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/resolv.conf",
        "var/cache/apt/*.bin",
    ):
        for path in root.glob(pattern):
            path.unlink()
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    systemctl = ["systemctl", f"--root={root}"]
    run([*systemctl, "enable", *ENABLED])
    run([*systemctl, "mask", *MASKED])
    run([*systemctl, "set-default", "multi-user.target"])
    present = [unit for unit in DISABLED if (root / "lib/systemd/system" / unit).exists()]
    if present:
        run([*systemctl, "disable", *present])


def purge(config: Config) -> bool:
    """Delete the cached images; return whether the cache existed. Raises LabError if a host still uses an image."""
    cache = Path(config.cache_dir)
    if not cache.is_dir():
        return False
    users = [entry for entry in mounts() if entry.kind == "overlay" and f"lowerdir={cache}/" in entry.options]
    if users:
        raise LabError(f"{cache}: a lab uses an image of this cache at {users[0].point}; remove that lab first")
    with locked(cache / ".lock", 30):
        for pattern in ("image-*", "build-*"):
            for path in cache.glob(pattern):
                if path.is_dir():
                    remove_tree(path)
                else:
                    path.unlink()
        (cache / ".lock").unlink(missing_ok=True)
    if not any(cache.iterdir()):
        cache.rmdir()
    return True
