# SPDX-License-Identifier: MIT
"""Program containers on the controller: what a host would refuse is refused before any host is changed."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _containers
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._containers import ContainerError

HEAD = struct.Struct("<8sHHIQ32s")
SOURCES = {"bpf/a.h": b"one", "bpf/a/b.c": b"two"}


def container(sources: str, more: bytes = b"code") -> bytes:
    manifest = json.dumps({"sources": sources}).encode()
    fields = (b"XGPROGS\n", 1, 0, len(manifest), HEAD.size + len(manifest) + len(more))
    digest = hashlib.sha256(HEAD.pack(*fields, bytes(32)) + manifest + more).digest()
    return HEAD.pack(*fields, digest) + manifest + more


def archive(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.USTAR_FORMAT) as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), 1577836800, "root"
            made.addfile(member, io.BytesIO(content))
    return raw.getvalue()


RELEASE = archive({"VERSION": b"9.9.9", "WIRE": b"7", **SOURCES})


def digest(release: bytes = RELEASE) -> str:
    with tarfile.open(fileobj=io.BytesIO(release)) as opened:
        return _containers.sources_in(opened)


def test_the_archive_gets_the_container_and_loses_nothing():
    given = container(digest())
    made = _containers.with_container(RELEASE, given)
    assert made == _containers.with_container(RELEASE, given)
    with tarfile.open(fileobj=io.BytesIO(made)) as opened:
        assert _containers.carried(opened) == given
        assert (
            sorted(opened.getnames()) == opened.getnames() == sorted(["VERSION", "WIRE", "bpf/programs.xgp", *SOURCES])
        )
        assert opened.getmember("bpf/programs.xgp").mode == 0o644
        assert opened.extractfile("VERSION").read() == b"9.9.9"
    assert digest(made) == digest()
    # Another container takes the place of the first.
    other = container(digest(), b"other code")
    with tarfile.open(fileobj=io.BytesIO(_containers.with_container(made, other))) as opened:
        assert _containers.carried(opened) == other and opened.getnames().count("bpf/programs.xgp") == 1


def test_the_digest_depends_on_every_source():
    for changed in ({**SOURCES, "bpf/a.h": b"1"}, {**SOURCES, "bpf/c.h": b""}, {"bpf/a.h": b"one"}):
        assert digest(archive({"VERSION": b"9.9.9", **changed})) != digest()
    assert digest(archive({"VERSION": b"1", **dict(reversed(SOURCES.items())), "bpf/README": b"x"})) == digest()


def test_a_changed_byte_is_refused():
    given = container(digest())
    for at in range(len(given)):
        changed = bytearray(given)
        changed[at] ^= 1
        with pytest.raises(ContainerError):
            _containers.sources_of(bytes(changed))


@pytest.mark.parametrize("content", [b"", b"XGPROGS\n", b"x" * 200, bytes(5 << 20)])
def test_another_file_is_refused(content):
    with pytest.raises(ContainerError, match="expected a program container"):
        _containers.sources_of(content)


def test_a_container_of_another_release_is_refused():
    with pytest.raises(ContainerError, match="belongs to another release"):
        _containers.with_container(RELEASE, container("ab" * 32))
