#!/usr/bin/python3 -I
# SPDX-License-Identifier: MIT
"""Build the release archive that the role ``agent`` installs: ``xdp-gossip-<version>.tar.gz``.

Builds are reproducible: the same checkout always gives the same archive, byte by byte. A release is therefore
identified by the SHA-256 of its archive, which is part of the name of the directory where the release is installed.
This script uses only the standard library.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: Modification time of every archive member: 2020-01-01. Real times would make builds differ, and some tools reject
#: dates before 1980.
MTIME = 1_577_836_800

#: Directories that the archive contains, as (path in the checkout, path in the archive). If a directory of ``REQUIRED``
#: is missing, the build fails. If a directory of ``OPTIONAL`` is missing, the archive does not contain it.
REQUIRED = (("agent/xdp_gossip", "agent/xdp_gossip"), ("agent/bin", "bin"), ("bpf", "bpf"))
OPTIONAL = (("agent/systemd", "systemd"), ("LICENSES", "LICENSES"))

#: Path of the program container in the archive. A checkout contains no program container: ``--container`` names it.
CONTAINER = "bpf/programs.xgp"
#: Prints why a program container does not fit the checkout; nothing if it fits. Arguments: directories, container.
_CHECK = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.environ["XDP_GOSSIP_BPF"] = sys.argv[2]
from xdp_gossip.dataplane.loader import container, stock
with open(sys.argv[3], "rb") as stream:
    content = stream.read(container.MAX_BYTES + 1)
try:
    print(stock.misfit(container.parse(content)))
except container.ContainerError as error:
    print(error)
"""

#: Script that generates the manual page and the shell completions from the command line's parser. The archive contains
#: the generated files in ``share``.
GENERATOR = "agent/xdp_gossip/cli/manual.py"

_SKIP_DIRECTORIES = frozenset({"__pycache__", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_SKIP_SUFFIXES = (".pyc", ".pyo", ".swp", ".orig", ".rej", ".xgp", "~")


class BuildError(Exception):
    """Raised if no release can be built from the checkout. The message states the reason."""


def read_version(root: Path) -> str:
    """Return the version from ``agent/xdp_gossip/__init__.py``. Raises :class:`BuildError`."""
    path = root / "agent" / "xdp_gossip" / "__init__.py"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{path}: expected a readable file, got {error.strerror}") from None
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"$', text, re.MULTILINE)
    if not found:
        raise BuildError(f'{path}: expected a line such as __version__ = "1.2.3", got none')
    return found[1]


def read_wire_version(root: Path) -> str:
    """Return the wire version from ``agent/xdp_gossip/wire/native.py``. Raises :class:`BuildError`."""
    path = root / "agent" / "xdp_gossip" / "wire" / "native.py"
    try:
        found = re.search(r"^WIRE_VERSION = ([0-9]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise BuildError(f"{path}: expected a readable file, got {error.strerror}") from None
    if not found:
        raise BuildError(f"{path}: expected a line such as WIRE_VERSION = 2, got none")
    return found[1]


def tree(source: Path) -> Iterator[Path]:
    """Yield every file under ``source`` that a release contains, in no particular order.

    Raises :class:`BuildError` for a symbolic link, because its target may not exist where the release is installed.
    """
    for directory, names, files in os.walk(source):
        names[:] = [name for name in names if name not in _SKIP_DIRECTORIES]
        for name in (*names, *files):
            path = Path(directory, name)
            if path.is_symlink():
                raise BuildError(f"{path}: expected a file or directory, got a symbolic link")
        for name in files:
            if not name.endswith(_SKIP_SUFFIXES):
                yield Path(directory, name)


def collect(root: Path, version: str, container: Path | None = None) -> dict[str, tuple[bytes, bool]]:
    """Return all files of the release: path in the archive -> (content, whether executable).

    ``container`` is a program container to include. Raises :class:`BuildError` if a required directory is missing, or
    if the container does not fit the checkout.
    """
    members = {
        "VERSION": (f"{version}\n".encode(), False),
        # Members with different wire versions cannot communicate, so the role compares this file with the same file of
        # the installed release.
        "WIRE": (f"{read_wire_version(root)}\n".encode(), False),
    }
    for source, target in (*REQUIRED, *OPTIONAL):
        directory = root / source
        if not directory.is_dir():
            if (source, target) in REQUIRED:
                raise BuildError(f"{directory}: expected a directory, found none")
            continue
        for path in tree(directory):
            name = f"{target}/{path.relative_to(directory).as_posix()}"
            # Only the owner's execute bit counts, because the other bits depend on the umask of the checkout.
            members[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    if (root / GENERATOR).is_file():
        members.update(generated(root))
    if container is not None:
        members[CONTAINER] = (checked(root, container), False)
    return members


def checked(root: Path, container: Path) -> bytes:
    """Return the bytes of a program container. Raises :class:`BuildError` if it does not fit the checkout."""
    arguments = [str((root / "agent").resolve()), str((root / "bpf").resolve()), str(container.resolve())]
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", _CHECK, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildError(f"{container}: expected a program container, got {last}")
    if done.stdout.strip():
        raise BuildError(f"{container}: {done.stdout.strip()}")
    return container.read_bytes()


def generated(root: Path) -> dict[str, tuple[bytes, bool]]:
    """Run :data:`GENERATOR` and return its output files: path in the archive -> (content, whether executable).

    Raises :class:`BuildError`.
    """
    code = "import sys; sys.path.insert(0, sys.argv[1]); from xdp_gossip.cli import manual; manual.main(sys.argv[2:])"
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-I", "-B", "-c", code, str((root / "agent").resolve()), directory]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BuildError(f"{root / GENERATOR}: expected the manual page, got {last}")
        made = {path.relative_to(directory).as_posix(): path.read_bytes() for path in tree(Path(directory))}
    return {f"share/{name}": (content, False) for name, content in made.items()}


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime = MTIME
    info.mode = mode
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def archive(members: dict[str, tuple[bytes, bool]]) -> bytes:
    """Return a ``.tar.gz`` of ``members``, sorted by path. Each member is owned by root and dated :data:`MTIME`."""
    directories = {str(parent) for name in members for parent in Path(name).parents if str(parent) != "."}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(directories | set(members)):
            if name in directories:
                info = _entry(name, 0o755)
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            content, executable = members[name]
            info = _entry(name, 0o755 if executable else 0o644)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    packed = io.BytesIO()
    # With an empty name and mtime 0, every build writes the same gzip header.
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(raw.getvalue())
    return packed.getvalue()


def build(root: Path, output: Path, container: Path | None = None) -> dict[str, str]:
    """Build a release from the checkout ``root`` and write its archive into the directory ``output``.

    ``container`` is a program container to include, so that hosts need no compiler.

    Creates ``output`` if it is missing, and replaces an existing archive atomically.

    Returns ``path``, ``version``, ``sha256`` (hex) and ``release`` (``<version>-<first 12 hex>``).
    Raises :class:`BuildError` or ``OSError``.
    """
    version = read_version(root)
    content = archive(collect(root, version, container))
    sha256 = hashlib.sha256(content).hexdigest()
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"xdp-gossip-{version}.tar.gz"
    partial = output / f".{path.name}.{os.getpid()}"
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return {
        "path": str(path.resolve()),
        "version": version,
        "sha256": sha256,
        "release": f"{version}-{sha256[:12]}",
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if the archive was built, otherwise 1."""
    parser = argparse.ArgumentParser(description="Build the xdp-gossip release archive (same tree, same bytes).")
    parser.add_argument("--output", type=Path, default=Path("."), help="directory to put the archive in (default: .)")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout to build from"
    )
    parser.add_argument("--container", type=Path, help="program container to include (xdp-gossip dataplane build)")
    options = parser.parse_args(arguments)
    try:
        result = build(options.root, options.output, options.container)
    except (BuildError, OSError) as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
