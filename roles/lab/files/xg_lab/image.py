# SPDX-License-Identifier: GPL-3.0-or-later
"""The base image: one Debian tree in the cache that all hosts share as the lower layer of their overlay."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from .config import Config
from .sources import package_sources
from .system import NOT_FOUND, WITH_US, LabError, locked, mounts, remove_tree, run, unmount_under

IMAGE_VERSION = 1
"""Raise when the way the image is made changes other than through the tables below."""

NEEDED_BYTES = 2 * 1024**3

FILES = {
    "etc/hostname": "localhost\n",
    "etc/fstab": "",
    # Empty, not missing: systemd then makes a new one at each host's first boot without calling it a first boot.
    "etc/machine-id": "",
    "etc/apt/sources.list": "# The hosts of the lab have no way to a package mirror.\n",
    "etc/ssh/sshd_config.d/lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "UseDNS no\n"
        "MaxStartups 100:30:200\n"
    ),
    # A key cut short by a power cut is made anew; the stock unit checks the configuration before a key exists.
    "etc/systemd/system/ssh.service.d/lab.conf": (
        "[Service]\n"
        "ExecStartPre=\n"
        "ExecStartPre=/bin/sh -c 'k=/etc/ssh/ssh_host_ed25519_key; "
        'test -s $k.pub || { rm -f $k $k.pub; ssh-keygen -q -t ed25519 -N "" -f $k; }\'\n'
        "ExecStartPre=/usr/sbin/sshd -t\n"
    ),
    # The journal is what a test looks at after it cut the power.
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
    # Modules are the machine's. kmod of Debian 13 fails in a container.
    "systemd-modules-load.service",
)


def image_path(config: Config) -> Path:
    """Return where the image for these settings is, or will be: a change of any ingredient changes the name."""
    recipe = [
        IMAGE_VERSION,
        config.suite,
        platform.machine(),
        config.packages,
        FILES,
        ENABLED,
        DISABLED,
        MASKED,
    ]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    return Path(config.cache_dir) / f"image-{config.suite}-{key}"


def build(config: Config) -> bool:
    """Make the image unless it is there; return whether it was made.

    It is built aside and renamed when complete and on disk, so an interrupted build is never used.
    Raises LabError with the end of the log when a step fails.
    """
    target = image_path(config)
    if target.is_dir():
        return False
    cache = Path(config.cache_dir)
    with locked(cache / ".lock", config.image_timeout):
        if target.is_dir():
            return False
        for stale in cache.glob("build-*"):
            remove_tree(stale)
        free = shutil.disk_usage(cache).free
        if free < NEEDED_BYTES:
            raise LabError(f"{cache}: {free >> 20} MiB free, expected {NEEDED_BYTES >> 20} MiB for the base image")
        work = cache / f"build-{os.getpid()}"
        _bootstrap(config, work, cache / "build.log")
        _customise(work)
        run(["sync", "--file-system", str(work)], timeout=120)
        work.rename(target)
    return True


def _bootstrap(config: Config, work: Path, log: Path) -> None:
    # apt's resolver, unlike debootstrap's, knows virtual packages, which python3-cryptography depends on.
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
    command += [config.suite, str(work), *package_sources(config.suite, config.mirror)]
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
            raise LabError(f"base image: not complete after {config.image_timeout:g} s, see {log}") from error
        finally:
            unmount_under(work)
    if done.returncode == NOT_FOUND:
        raise LabError("mmdebstrap: program not found; the role installs it on Debian, is this Debian?")
    if done.returncode != 0:
        tail = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:])
        raise LabError(f"base image: mmdebstrap ended with status {done.returncode}; the end of {log}:\n{tail}")


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
    """Delete everything the lab keeps in its cache; LabError while a host of any lab still runs on an image."""
    cache = Path(config.cache_dir)
    if not cache.is_dir():
        return False
    users = [entry for entry in mounts() if entry.kind == "overlay" and f"lowerdir={cache}/" in entry.options]
    if users:
        raise LabError(f"{cache}: an image is in use at {users[0].point}; remove that lab first")
    with locked(cache / ".lock", 30):
        for pattern in ("image-*", "build-*"):
            for path in cache.glob(pattern):
                if path.is_dir():
                    remove_tree(path)
        for name in ("build.log", ".lock"):
            (cache / name).unlink(missing_ok=True)
    if not any(cache.iterdir()):
        cache.rmdir()
    return True
