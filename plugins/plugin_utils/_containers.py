# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: program containers on the controller, and release archives that contain one.

docs/kernels.md describes the file. The agent's loader checks every byte of a container. The controller checks only what
shows, before any host is changed, that the hosts would refuse the container.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import typing as t

#: Path of the program container in a release archive.
MEMBER = "bpf/programs.xgp"

#: Magic, version of the format, zero, length of the manifest, length of the file, SHA-256.
_HEAD = struct.Struct("<8sHHIQ32s")
_MAGIC = b"XGPROGS\n"
_MAX_BYTES = 4 << 20


class ContainerError(Exception):
    """The program container cannot be used for the release. The message states the reason."""


def sources_of(content: bytes) -> str:
    """Return the digest of the sources from which a container's programs were compiled. Raises ``ContainerError``."""
    if len(content) > _MAX_BYTES or len(content) < _HEAD.size or not content.startswith(_MAGIC):
        raise ContainerError("expected a program container (xdp-gossip dataplane build), got another file")
    magic, version, zero, length, whole, digest = _HEAD.unpack_from(content)
    blank = _HEAD.pack(magic, version, zero, length, whole, bytes(32))
    if whole != len(content) or hashlib.sha256(blank + content[_HEAD.size :]).digest() != digest:
        raise ContainerError("expected the SHA-256 in the header, got another: the file was changed or is incomplete")
    try:
        sources = json.loads(content[_HEAD.size : _HEAD.size + length].decode("ascii"))["sources"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ContainerError("manifest: expected JSON with the key sources, got %r" % exc) from None
    return t.cast(str, sources)


def sources_in(archive: tarfile.TarFile) -> str:
    """Return the digest of the BPF sources in a release archive, as the agent computes it from its files."""
    digest = hashlib.sha256()
    names = [each.name for each in archive if each.isfile() and each.name.startswith("bpf/")]
    for name in sorted((each for each in names if each.endswith((".c", ".h"))), key=lambda each: each.split("/")):
        stream = archive.extractfile(name)
        content = stream.read() if stream else b""
        digest.update(("%s %d\n" % (name[len("bpf/") :], len(content))).encode())
        digest.update(content)
    return digest.hexdigest()


def carried(archive: tarfile.TarFile) -> bytes:
    """Return the program container in a release archive; b"" if the archive contains none."""
    try:
        stream = archive.extractfile(MEMBER)
    except KeyError:
        return b""
    return stream.read() if stream else b""


def with_container(content: bytes, container: bytes) -> bytes:
    """Return a release archive that differs from the archive ``content`` only in its program container.

    The same arguments always give the same bytes. Raises ``ContainerError`` if the container was built from other
    sources, or was changed.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(
        fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT
    ) as new:
        has, wants = sources_of(container), sources_in(old)
        if has != wants:
            raise ContainerError(
                "expected programs of the sources %s of this release, got those of %s: the container belongs to "
                "another release" % (wants[:12], has[:12])
            )
        members = {each.name: each for each in old}
        added = tarfile.TarInfo(MEMBER)
        model = members["VERSION"]
        added.mtime, added.mode, added.uid, added.gid = model.mtime, 0o644, model.uid, model.gid
        added.uname, added.gname, added.size = model.uname, model.gname, len(container)
        members[MEMBER] = added
        for name in sorted(members):
            data = io.BytesIO(container) if name == MEMBER else old.extractfile(members[name])
            new.addfile(members[name], data)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(raw.getvalue())
    return packed.getvalue()
