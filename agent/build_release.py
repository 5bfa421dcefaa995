#!/usr/bin/python3 -I
# SPDX-License-Identifier: MIT
"""Build the release archive that the role ``agent`` installs: ``xdp-gossip-<version>.tar.gz``.

Deterministic: the same tree gives the same bytes, whoever builds it and whenever, so that the archive's
SHA-256 names a release and "is it installed?" is a look at a directory name. Standard library only.
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

#: 2020-01-01, for every member: a date before 1980 upsets some tools, any real one would change the bytes.
MTIME = 1_577_836_800

#: What goes in, as (directory in the checkout, directory in the archive). A missing optional one is left out.
REQUIRED = (("agent/xdp_gossip", "agent/xdp_gossip"), ("agent/bin", "bin"), ("bpf", "bpf"))
OPTIONAL = (("agent/systemd", "systemd"), ("LICENSES", "LICENSES"))

#: What makes the manual page and the completion of shells out of the command line's parser, for ``share``.
GENERATOR = "agent/xdp_gossip/cli/manual.py"

_SKIP_DIRECTORIES = frozenset({"__pycache__", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_SKIP_SUFFIXES = (".pyc", ".pyo", ".swp", ".orig", ".rej", "~")


class BuildError(Exception):
    """The checkout cannot be made into a release; the text says why."""


def read_version(root: Path) -> str:
    """The version that ``agent/xdp_gossip/__init__.py`` states. Raises :class:`BuildError`."""
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
    """The wire version that ``agent/xdp_gossip/wire/native.py`` states. Raises :class:`BuildError`."""
    path = root / "agent" / "xdp_gossip" / "wire" / "native.py"
    try:
        found = re.search(r"^WIRE_VERSION = ([0-9]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise BuildError(f"{path}: expected a readable file, got {error.strerror}") from None
    if not found:
        raise BuildError(f"{path}: expected a line such as WIRE_VERSION = 2, got none")
    return found[1]


def tree(source: Path) -> Iterator[Path]:
    """Every file under ``source`` that belongs into a release, in no particular order.

    Raises :class:`BuildError` for a symbolic link: one that leaves the tree would break on the target.
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


def collect(root: Path, version: str) -> dict[str, tuple[bytes, bool]]:
    """Archive name -> (content, executable). Raises :class:`BuildError` when a required part is missing."""
    members = {
        "VERSION": (f"{version}\n".encode(), False),
        # Which members hear each other: the role compares it with the one of the host.
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
            # Only the owner's bit counts: the umask of a checkout must not change the bytes.
            members[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    if (root / GENERATOR).is_file():
        members.update(generated(root))
    return members


def generated(root: Path) -> dict[str, tuple[bytes, bool]]:
    """What :data:`GENERATOR` makes, as archive name -> (content, executable). Raises :class:`BuildError`."""
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
    """The bytes of the ``.tar.gz``: directories and files in sorted order, owner root, one fixed date."""
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
    # An empty name and mtime 0 keep the gzip header the same everywhere.
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(raw.getvalue())
    return packed.getvalue()


def build(root: Path, output: Path) -> dict[str, str]:
    """Write the archive into ``output`` (made when missing, replaced atomically) and describe it.

    Returns ``path``, ``version``, ``sha256`` (hex) and ``release`` (``<version>-<first 12 hex>``).
    Raises :class:`BuildError` or ``OSError``.
    """
    version = read_version(root)
    content = archive(collect(root, version))
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
    """Command line; 0 when built, 1 when it cannot be."""
    parser = argparse.ArgumentParser(description="Build the xdp-gossip release archive (same tree, same bytes).")
    parser.add_argument("--output", type=Path, default=Path("."), help="directory to put the archive in (default: .)")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout to build from"
    )
    options = parser.parse_args(arguments)
    try:
        result = build(options.root, options.output)
    except (BuildError, OSError) as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
