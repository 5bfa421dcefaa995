# SPDX-License-Identifier: MIT
"""Distributions' roots and kernels: fetched from this machine's own Debian mirror, unpacked below ``.cache/kernels``.

Nothing of them is installed on this machine. What was fetched is kept under a name that says what is in it, so that a
changed list of packages makes a new root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kernels"
#: What compiles, what the agent needs, and what the tests look with.
PACKAGES = (
    *("bpftool", "busybox-static", "ethtool", "iproute2", "kmod", "libbpf1", "linux-libc-dev", "python3-bpfcc"),
    *("python3-aiohttp", "python3-cryptography", "python3-jinja2", "python3-msgpack", "python3-nacl"),
    "python3-prometheus-client",
    *("python3-yaml", "wireguard-tools"),
)

_FETCH_SECONDS = 900.0


class Unavailable(Exception):
    """This machine cannot fetch or run what was asked for; the message says what is missing."""


@dataclass(frozen=True)
class Distribution:
    """A suite of Debian. ``compiler`` names its BCC and LLVM, "" where its kernel alone is of interest."""

    suite: str
    kernel: str
    compiler: str = ""


BOOKWORM = Distribution("bookworm", "6.1", "BCC 0.26, LLVM 14")
TRIXIE = Distribution("trixie", "6.12", "BCC 0.31, LLVM 19")
BACKPORTS = Distribution("bookworm-backports", "backports")
BULLSEYE = Distribution("bullseye", "5.10")
ALL = (BOOKWORM, TRIXIE, BACKPORTS, BULLSEYE)


def root(distribution: Distribution) -> Path:
    """A directory with the distribution's userland. Raises ``Unavailable``."""
    digest = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    path = CACHE / f"root-{distribution.suite}-{digest}"
    with _made_once(path) as fresh:
        if fresh:
            words = ("--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}", distribution.suite)
            _run("mmdebstrap", *words, str(fresh), _mirror())
            for name in ("share", "product"):
                (fresh / name).mkdir()
    return path


def kernel(distribution: Distribution) -> Path:
    """A directory with the distribution's newest kernel: ``boot/vmlinuz-*`` and its modules. Raises ``Unavailable``."""
    package = "linux-image-amd64"
    sources = _sources(distribution.suite)
    # Another set of sources may have another kernel.
    digest = hashlib.sha256(sources.encode()).hexdigest()[:12]
    path = CACHE / f"kernel-{distribution.suite}-{digest}"
    state = CACHE / f"apt-{distribution.suite}"
    state.mkdir(parents=True, exist_ok=True)
    with _made_once(path) as fresh:
        if fresh:
            options = _apt_options(state, sources)
            _run("apt-get", *options, "-qq", "update")
            depends = _run("apt-cache", *options, "depends", "--important", package)
            image = next((line.split()[-1] for line in depends.splitlines() if " linux-image-" in line), "")
            if not image:
                raise Unavailable(f"{distribution.suite}: expected {package} to depend on an image, got {depends!r}")
            _run("apt-get", *options, "-qq", "download", image, directory=state)
            (archive,) = state.glob("linux-image-*.deb")
            _run("dpkg-deb", "-x", str(archive), str(fresh))
            archive.unlink()
            modules = fresh / "lib" / "modules"
            if not modules.exists():  # since trixie /lib is a link, which a package does not carry
                modules.parent.mkdir(exist_ok=True)
                modules.symlink_to("../usr/lib/modules")
            _run("depmod", "-b", str(fresh), release(fresh))
    return path


def release(unpacked: Path) -> str:
    """What ``uname -r`` will say of an unpacked kernel."""
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    return image.name.removeprefix("vmlinuz-")


def missing() -> str:
    """What this machine lacks for all of this, "" when nothing."""
    if os.geteuid() != 0:
        return "needs root"
    tools = ("mmdebstrap", "qemu-system-x86_64", "busybox", "cpio", "depmod", "dpkg-deb")
    lacking = [name for name in tools if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")]
    return f"needs {', '.join(lacking)}" if lacking else ""


def _mirror(fixes: bool = False) -> str:
    """The mirror that this machine installs from. Raises ``Unavailable``.

    ``fixes``: the one of security fixes, "" where the machine has none.
    """
    wanted = "$(CREATED_BY) $(COMPONENT) $(CODENAME) $(REPO_URI)"
    for line in _run("apt-get", "indextargets", "--format", wanted).splitlines():
        made_by, component, codename, uri = (*line.split(), "", "", "", "")[:4]
        kind = codename.endswith("-security") if fixes else "-" not in codename
        if made_by == "Packages" and component == "main" and kind and "debian" in uri:
            return uri
    if fixes:
        return ""
    raise Unavailable("apt: expected a Debian mirror among this machine's sources, found none")


def _sources(suite: str) -> str:
    """The sources.list of a suite: with its security fixes, as an updated host has them. Raises ``Unavailable``."""
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    lines = [f"deb [signed-by={keys}] {_mirror()} {suite} main"]
    # Backports have no fixes of their own.
    if "-" not in suite and (fixes := _mirror(fixes=True)):
        lines.append(f"deb [signed-by={keys}] {fixes} {suite}-security main")
    return "\n".join(lines) + "\n"


def _apt_options(state: Path, sources: str) -> list[str]:
    """apt on other sources, without touching what this machine knows of its own."""
    (state / "sources.list").write_text(sources)
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state,
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


@contextlib.contextmanager
def _made_once(path: Path) -> Iterator[Path | None]:
    """A directory to fill, which gets the name ``path`` when all went well; None when it is there already."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        fresh = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=CACHE))
        try:
            fresh.chmod(0o755)
            yield fresh
            fresh.rename(path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _run(*words: str, directory: Path | None = None) -> str:
    """The output of a command. Raises ``Unavailable`` with what it said when it fails."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            cwd=directory,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{words[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Unavailable(f"{' '.join(words)}: status {done.returncode}: {' / '.join(said)}")
    return done.stdout
