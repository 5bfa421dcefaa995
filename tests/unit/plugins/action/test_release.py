# SPDX-License-Identifier: MIT
"""The release that the role deploys: an archive is what its checksum says, or nothing of it is read."""

from __future__ import annotations

import hashlib
import io
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.tests.unit.plugins.run_playbook import play


@pytest.fixture(name="archive")
def fixture_archive(tmp_path: Path) -> Path:
    path = tmp_path / "xdp-gossip-9.9.9.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo("WIRE")
        member.size = 1
        made.addfile(member, io.BytesIO(b"7"))
    return path


def found(tmp_path: Path, archive: Path, checksum: str, *conditions: str) -> str:
    options: dict[str, t.Any] = {"archive": str(archive), "checksum": checksum}
    tasks = [
        {"xdp_gossip.fleet.xdp_gossip_release": options, "register": "release", "ignore_errors": True},
        {"ansible.builtin.assert": {"that": list(conditions)}},
    ]
    return play(tmp_path, tasks)


def digest(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def test_the_archive_of_the_checksum(tmp_path, archive):
    for written in (digest(archive), digest(archive).upper()):
        found(
            tmp_path,
            archive,
            "sha256:" + written,
            "release is success",
            "release.release == '9.9.9-%s'" % digest(archive)[:12],
            "release.wire == '7'",
        )


def test_a_changed_byte(tmp_path, archive):
    before = digest(archive)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    found(
        tmp_path,
        archive,
        "sha256:" + before,
        "release is failed",
        "'checksum sha256:%s, got sha256:%s' in release.msg" % (before, digest(archive)),
    )


@pytest.mark.parametrize("checksum", ["0" * 64, "md5:" + "0" * 32, "sha256:123", "sha256:" + "g" * 64])
def test_a_checksum_that_is_none(tmp_path, archive, checksum):
    found(
        tmp_path,
        archive,
        checksum,
        "release is failed",
        "'expected sha256: and 64 hexadecimal digits, got %s' in release.msg" % checksum,
    )
