# SPDX-License-Identifier: MIT
"""Signatures of releases, made and verified by ssh-keygen: who signed what, and what is said if it does not verify."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _signatures
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signatures import SignatureError, verify

CONTENT = b"the archive \0\xff" * 1000


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60)


def public(directory: Path, name: str) -> str:
    return " ".join((directory / (name + ".pub")).read_text().split()[:2])


@pytest.fixture(name="keys", scope="session")
def fixture_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keys: one is the maintainer's, the other one anybody's."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("maintainer", "other"):
        keygen("-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name))
    return directory


class Release:
    """An archive in a directory, with signatures and signers."""

    def __init__(self, directory: Path, keys: Path) -> None:
        self.directory, self.keys = directory, keys
        self.archive = directory / "xdp-gossip-9.9.9.tar.gz"
        self.archive.write_bytes(CONTENT)
        self.signature = directory / "xdp-gossip-9.9.9.tar.gz.sig"
        self.sign()
        self.signers = directory / "allowed_signers"
        self.allow("a@example.org")

    def sign(self, key: str = "maintainer", namespace: str = "xdp-gossip-release") -> None:
        self.signature.unlink(missing_ok=True)
        keygen("-Y", "sign", "-f", str(self.keys / key), "-n", namespace, str(self.archive))

    def allow(self, *before: str, key: str = "maintainer") -> None:
        self.signers.write_text("".join("%s %s\n" % (words, public(self.keys, key)) for words in before))

    def verify(self, content: bytes = CONTENT, signers: str = "") -> str:
        return verify(str(self.archive), content, str(self.signature), signers or str(self.signers))

    def refused(self, **options: t.Any) -> str:
        with pytest.raises(SignatureError) as caught:
            self.verify(**options)
        return str(caught.value)


@pytest.fixture(name="release")
def fixture_release(tmp_path: Path, keys: Path) -> Release:
    return Release(tmp_path, keys)


def test_a_signature_by_a_signer(release: Release) -> None:
    assert release.verify() == "a@example.org"


def test_the_signers_as_content(release: Release) -> None:
    text = release.signers.read_text()
    for content in (
        text,
        text.rstrip("\n"),
        "# comment\n\n" + text,
        "b@example.org " + public(release.keys, "other") + "\n" + text,
    ):
        assert release.verify(signers=content) == "a@example.org"


def test_a_key_for_this_namespace_only(release: Release) -> None:
    release.allow('a@example.org namespaces="xdp-gossip-release"')
    assert release.verify() == "a@example.org"


def test_a_key_with_several_principals(release: Release) -> None:
    release.allow("a@example.org,b@example.org")
    assert release.verify() == "a@example.org"
    # ssh-keygen names the first one, too, as which nobody may sign.
    release.allow("!*@example.com,a@example.org")
    assert release.verify() == "a@example.org"


@pytest.mark.parametrize("place", [0, len(CONTENT) // 2, len(CONTENT) - 1])
def test_a_changed_byte(release: Release, place: int) -> None:
    content = bytearray(CONTENT)
    content[place] ^= 1
    said = release.refused(content=bytes(content))
    assert said.startswith("%s: expected the archive that a@example.org signed in " % release.archive)
    assert said.endswith("the archive was changed, or the signature belongs to another release; download both again")


def test_an_unknown_signer(release: Release) -> None:
    release.sign("other")
    said = release.refused()
    assert said.startswith(
        "%s: expected a signature by one of the keys in %s, got" % (release.signature, release.signers)
    )
    assert "No principal matched" in said and "xdp_gossip_agent_release_signers" in said


def test_an_expired_key(release: Release) -> None:
    release.allow('a@example.org valid-before="20200101"')
    assert "key has expired" in release.refused()


def test_another_namespace(release: Release) -> None:
    for namespace in ("file", "git", "xdp-gossip-release2"):
        release.sign(namespace=namespace)
        said = release.refused()
        assert "expected a signature in the namespace xdp-gossip-release, got one in another namespace" in said
        assert said.endswith("with ssh-keygen -Y sign -n xdp-gossip-release")


def test_a_key_for_another_namespace(release: Release) -> None:
    release.allow('a@example.org namespaces="git"')
    said = release.refused()
    assert said.startswith("%s: expected a key that may sign in the namespace xdp-gossip-release" % release.signers)


@pytest.mark.parametrize(
    "content", ["", "no signature\n", "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_a_file_that_is_no_signature(release: Release, content: str) -> None:
    release.signature.write_text(content)
    said = release.refused()
    assert said.startswith("%s: expected " % release.signature)
    assert "expected an OpenSSH signature of %s, got another content" % release.archive in said


def test_files_that_are_not_there(release: Release) -> None:
    for signers in (str(release.directory / "none"), str(release.directory), "ssh-ed25519"):
        assert "expected an allowed_signers file, or its content" in release.refused(signers=signers)
    release.signers.write_text("")
    assert "expected a signature by one of the keys" in release.refused()
    release.signature.unlink()
    assert release.refused().startswith(
        "%s: expected the signature of %s, found none" % (release.signature, release.archive)
    )


def test_no_ssh_keygen(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(release.directory))
    said = release.refused()
    assert said.startswith("ssh-keygen: expected OpenSSH's ssh-keygen on the controller")
    assert "install openssh-client" in said


def test_an_ssh_keygen_that_hangs(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    program = release.directory / "ssh-keygen"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % release.directory)
    monkeypatch.setattr(_signatures, "SECONDS", 0.3)
    assert "within 0.3 seconds, got none" in release.refused()


def test_an_ssh_keygen_that_cannot_verify(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    program = release.directory / "ssh-keygen"
    program.write_text("#!/bin/sh\n[ $2 = verify ] || { echo a@example.org; exit 0; }\necho Unknown >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % release.directory)
    assert release.refused().endswith("got none that ssh-keygen verifies: Unknown")
