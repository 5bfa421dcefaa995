# SPDX-License-Identifier: MIT
"""The release that the role deploys: an archive has its checksum and its signer, or nothing of it is read."""

from __future__ import annotations

import hashlib
import io
import subprocess
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


def found(tmp_path: Path, archive: Path, checksum: str, *conditions: str, **more: t.Any) -> str:
    options: dict[str, t.Any] = {"archive": str(archive), "checksum": checksum, **more}
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


def test_an_archive_without_a_container(tmp_path, archive):
    found(tmp_path, archive, "", "release is success", "release.container == ''")
    found(
        tmp_path,
        archive,
        "",
        "release is failed",
        "'expected a program container with the checksum' in release.msg and 'got none' in release.msg",
        container_checksum="sha256:" + "0" * 64,
    )


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), (b"x", "expected a program container")])
def test_a_container_that_cannot_be_used(tmp_path, archive, content, told):
    path = tmp_path / "programs.xgp"
    if content is not None:
        path.write_bytes(content)
    found(
        tmp_path,
        archive,
        "",
        "release is failed",
        "'%s: %s' in release.msg" % (path, told),
        "'xdp_gossip_agent_dataplane_container' in release.msg",
        container=str(path),
    )


@pytest.fixture(name="signed")
def fixture_signed(tmp_path: Path, archive: Path) -> dict[str, str]:
    """The options that name the signature of the archive, and its signer."""
    key = tmp_path / "key"
    for words in (
        ["-t", "ed25519", "-N", "", "-f", str(key)],
        ["-Y", "sign", "-f", str(key), "-n", "xdp-gossip-release", str(archive)],
    ):
        subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60)
    signers = tmp_path / "allowed_signers"
    signers.write_text("a@example.org " + (tmp_path / "key.pub").read_text())
    return {"signature": str(archive) + ".sig", "signers": str(signers)}


@pytest.mark.parametrize("as_content", [False, True])
def test_a_signed_archive(tmp_path, archive, signed, as_content):
    if as_content:
        signed["signers"] = Path(signed["signers"]).read_text()
    checksum = "sha256:" + digest(archive)
    conditions = ("release is success", "release is not changed", "release.signer == 'a@example.org'")
    found(tmp_path, archive, checksum, *conditions, "release.wire == '7'", **signed)


def test_an_archive_that_nobody_signed_has_no_signer(tmp_path, archive):
    found(tmp_path, archive, "", "release is success", "release.signer == ''")


def test_a_changed_archive_is_refused_before_it_is_read(tmp_path, archive, signed):
    # Whoever opened it would complain of something else.
    archive.write_bytes(b"no archive at all")
    message = "'the archive was changed, or the signature belongs to another release' in release.msg"
    found(tmp_path, archive, "", "release is failed", "'%s: expected' in release.msg" % archive, message, **signed)


@pytest.mark.parametrize(("given", "missing"), [("signature", "signers"), ("signers", "signature")])
def test_one_of_signature_and_signers_alone_is_refused(tmp_path, archive, signed, given, missing):
    del signed[missing]
    message = "'set xdp_gossip_agent_release_%s' in release.msg" % missing
    found(tmp_path, archive, "", "release is failed", message, **signed)


def test_check_mode_verifies_as_well(tmp_path, archive, signed):
    before = sorted(path.name for path in archive.parent.iterdir())
    options = {"archive": str(archive), **signed}
    book = [
        {"xdp_gossip.fleet.xdp_gossip_release": options, "register": "release", "check_mode": True},
        {"ansible.builtin.assert": {"that": ["release.signer == 'a@example.org'", "release is not changed"]}},
    ]
    play(tmp_path, book)
    archive.write_bytes(archive.read_bytes() + b"x")
    book[0]["ignore_errors"] = True
    book[1]["ansible.builtin.assert"]["that"] = ["release is failed"]
    play(tmp_path, book)
    made = {"home", "async", "hosts", "play.yml"}
    assert sorted(path.name for path in archive.parent.iterdir() if path.name not in made) == before
