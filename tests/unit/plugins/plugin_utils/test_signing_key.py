# SPDX-License-Identifier: MIT
"""Keys that sign documents on the controller: which are taken, and what is said of those that cannot sign."""

from __future__ import annotations

import base64
import os
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _signing_key
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signing_key import SigningError, SigningKey

TEXT = b"a statement\n"


def keygen(*words: str, data: bytes = b"") -> str:
    done = subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60, input=data)
    return done.stdout.decode()


def make(directory: Path, *words: str, passphrase: str = "") -> Path:
    """A new key with a comment that must appear nowhere."""
    path = directory / "key"
    keygen(*words, "-N", passphrase, "-C", "its-owner", "-f", str(path))
    return path


def refused(path: Path, **options: t.Any) -> str:
    with pytest.raises(SigningError) as caught:
        SigningKey(str(path), "named", **options).sign(TEXT)
    assert str(caught.value).startswith("sign_key named: ")
    return str(caught.value)


@pytest.mark.parametrize("words", [("-t", "ed25519"), ("-t", "ecdsa", "-b", "256"), ("-t", "ecdsa", "-b", "521")])
def test_a_signature_verifies(tmp_path, words):
    path = make(tmp_path, *words)
    key = SigningKey(str(path), "named")
    (tmp_path / "sig").write_text(key.sign(TEXT))
    told = keygen("-Y", "check-novalidate", "-n", "xdp-gossip", "-s", str(tmp_path / "sig"), data=TEXT)
    assert not told  # -q
    assert key.fingerprint == keygen("-l", "-f", str(path)).split()[1]


def test_a_passphrase_is_no_question_but_an_error(tmp_path, monkeypatch):
    """Neither a terminal nor a window asks for it."""
    path = make(tmp_path, "-t", "ed25519", passphrase="a passphrase")
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    monkeypatch.setenv("DISPLAY", ":0")
    told = refused(path)
    assert "expected a key without a passphrase" in told and "sign_with: agent" in told


def test_a_file_that_others_may_read(tmp_path):
    path = make(tmp_path, "-t", "ed25519")
    path.chmod(0o644)
    assert "permissions" in refused(path).lower()


def test_a_damaged_key_fails_and_asks_nothing(tmp_path, monkeypatch):
    """The private part is encrypted, although the head of the file denies it: ssh-keygen finds no key in it."""
    path = make(tmp_path, "-t", "ed25519", passphrase="a passphrase")
    whole = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    magic = b"openssh-key-v1\0"
    cipher = int.from_bytes(whole[15:19], "big")
    kdf = 19 + cipher + 4 + 6  # "bcrypt"
    options = int.from_bytes(whole[kdf : kdf + 4], "big")
    none = (4).to_bytes(4, "big") + b"none"
    forged = magic + none + none + bytes(4) + whole[kdf + 4 + options :]
    lines = base64.encodebytes(forged).decode()
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n%s-----END OPENSSH PRIVATE KEY-----\n" % lines)
    monkeypatch.setenv("DISPLAY", ":0")
    assert "ssh-keygen made no signature: " in refused(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "expected a private key in OpenSSH's own format"),
        ("secret text", "expected a private key in OpenSSH's own format"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "OpenSSH's own format"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "OpenSSH's own format"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n%%%%\n-----END OPENSSH PRIVATE KEY-----\n", "OpenSSH's own format"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3333\n", "OpenSSH's own format"),
        ("ssh-ed25519 AAAA comment\n", "expected a private key, got a public key"),
    ],
)
def test_a_file_that_is_no_private_key(tmp_path, content, told):
    path = tmp_path / "key"
    path.write_text(content)
    found = refused(path)
    assert told in found and "secret text" not in found


def test_a_type_that_members_do_not_verify(tmp_path):
    told = refused(make(tmp_path, "-t", "rsa", "-b", "2048"))
    assert "expected a key of type ssh-ed25519" in told and "got ssh-rsa" in told


def test_a_file_that_is_not_there_or_a_directory(tmp_path):
    assert "No such file" in refused(tmp_path / "nothing")
    assert "Is a directory" in refused(tmp_path)


def test_without_ssh_keygen(tmp_path, monkeypatch):
    path = make(tmp_path, "-t", "ed25519")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "expected OpenSSH's ssh-keygen on the controller, found none" in refused(path)


def program(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program in the place of ssh-keygen."""
    path = directory / "ssh-keygen"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (directory, os.environ["PATH"]))


def test_no_signature_in_time(tmp_path, monkeypatch):
    path = make(tmp_path, "-t", "ed25519")
    program(tmp_path, monkeypatch, "exec sleep 60\n")
    monkeypatch.setattr(_signing_key, "SECONDS", 0.2)
    assert "expected a signature within 0.2 seconds, got none" in refused(path)


def test_the_private_key_is_in_no_argument_and_no_variable(tmp_path, monkeypatch):
    path = make(tmp_path, "-t", "ed25519")
    program(tmp_path, monkeypatch, 'echo "$@" >%s/seen; env >>%s/seen\n' % (tmp_path, tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/somewhere")
    assert "ssh-keygen made no signature by this key" in refused(path)
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("-Y sign -q -n xdp-gossip -f %s\n" % path) and "SSH_AUTH_SOCK" not in seen
    assert not [line for line in path.read_text().splitlines()[1:-1] if line in seen]


def test_a_signature_by_another_key_is_not_passed_on(tmp_path, monkeypatch):
    path = make(tmp_path, "-t", "ed25519")
    (tmp_path / "other").mkdir()
    signature = SigningKey(str(make(tmp_path / "other", "-t", "ed25519")), "other").sign(TEXT)
    (tmp_path / "signature").write_text(signature)
    program(tmp_path, monkeypatch, "cat %s/signature\n" % tmp_path)
    assert "no signature by this key" in refused(path)


@pytest.fixture(name="agent")
def fixture_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    """An ssh-agent without keys."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.terminate()
        process.wait(30)


def test_ssh_agent_signs(tmp_path, agent):
    path = make(tmp_path, "-t", "ed25519")
    # ssh-keygen itself would use the private key beside the public one.
    told = refused(Path(str(path) + ".pub"), agent=True)
    assert "is the key in ssh-agent?" in told
    subprocess.run(["ssh-add", str(path)], check=True, capture_output=True, timeout=60)
    path.unlink()
    key = SigningKey(str(path) + ".pub", "named", agent=True)
    assert key.sign(TEXT).startswith("-----BEGIN SSH SIGNATURE-----\n")


def test_without_ssh_agent(tmp_path, monkeypatch):
    path = make(tmp_path, "-t", "ed25519")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "SSH_AUTH_SOCK is not set" in refused(Path(str(path) + ".pub"), agent=True)
    assert "got a private key" in refused(path, agent=True)
    (tmp_path / "text").write_text("ssh-ed25519 %%%\n")
    assert "expected a public key such as" in refused(tmp_path / "text", agent=True)
