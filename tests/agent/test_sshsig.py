# SPDX-License-Identifier: MIT
"""Signatures of OpenSSH: what ssh-keygen makes is read, and nothing that differs from it by a bit."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signer import Key
from xdp_gossip.core.signatures import fingerprint
from xdp_gossip.signing import keygen, sshsig

KINDS = {"ed25519": [], "ecdsa": ["-b", "256"], "ecdsa-384": ["-b", "384"], "ecdsa-521": ["-b", "521"]}
MESSAGE = b'xdp-gossip statement 1\ncluster "production"\n'


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.fixture(scope="module", params=KINDS)
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / request.param
    command = ["ssh-keygen", "-q", "-t", request.param.split("-")[0], *KINDS[request.param], "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def test_what_ssh_keygen_signs_is_read(key: Path) -> None:
    blob = keygen.sign(str(key), MESSAGE)
    line = Path(f"{key}.pub").read_text()
    assert sshsig.verify(blob, MESSAGE) == sshsig.parse_public_key(line) == keygen.public_key(str(key))
    assert keygen.public_key(f"{key}.pub") == keygen.public_key(str(key))
    told = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True, text=True).stdout
    assert fingerprint(sshsig.parse_public_key(line)) == told.split()[1]
    for other in (MESSAGE + b"\n", b"", MESSAGE[:-1]):
        with pytest.raises(ValueError, match="does not match the text and the public key"):
            sshsig.verify(blob, other)
    assert sshsig.unarmored(sshsig.armored(blob)) == sshsig.unarmored(base64.b64encode(blob).decode()) == blob


def test_the_public_key_of_a_private_key_alone(key: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.write_bytes(key.read_bytes())
    alone.chmod(0o600)
    assert keygen.public_key(str(alone)) == keygen.public_key(str(key))


def test_no_bit_of_a_signature_can_be_changed() -> None:
    blob = Key(1).sign(MESSAGE)
    for position in range(8 * len(blob)):
        changed = bytearray(blob)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"."):
            sshsig.verify(bytes(changed), MESSAGE)
    for length in range(len(blob)):
        with pytest.raises(ValueError, match=r"."):
            sshsig.verify(blob[:length], MESSAGE)
    with pytest.raises(ValueError, match="expected the end"):
        sshsig.verify(blob + b"\0", MESSAGE)


@given(st.binary(max_size=600))
def test_any_bytes_are_refused(data: bytes) -> None:
    for blob in (data, b"SSHSIG" + data, b"SSHSIG\0\0\0\1" + data):
        with pytest.raises(ValueError, match=r"."):
            sshsig.verify(blob, MESSAGE)


@given(st.text(max_size=300))
def test_any_text_is_no_signature_and_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        sshsig.unarmored(text)
    with pytest.raises(ValueError, match="expected"):
        sshsig.parse_public_key(text)
    with pytest.raises(ValueError, match="expected"):
        sshsig.parse_public_key(f"ssh-ed25519 {text}")


class Hardware:
    """A hardware key as FIDO and OpenSSH describe it (PROTOCOL.u2f)."""

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes(32))
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.kind = b"sk-ssh-ed25519@openssh.com"
        self.public = string(self.kind) + string(raw) + string(b"ssh:")

    def sign(self, message: bytes, flags: int = 1, counter: int = 7) -> bytes:
        own = string(b"xdp-gossip") + string(b"") + string(b"sha512")
        signed = b"SSHSIG" + own + string(hashlib.sha512(message).digest())
        more = bytes([flags]) + counter.to_bytes(4, "big")
        raw = self._private.sign(hashlib.sha256(b"ssh:").digest() + more + hashlib.sha256(signed).digest())
        signature = string(self.kind) + string(raw) + more
        return b"SSHSIG" + (1).to_bytes(4, "big") + string(self.public) + own + string(signature)


def test_a_hardware_key_has_to_be_touched() -> None:
    hardware = Hardware()
    assert sshsig.verify(hardware.sign(MESSAGE), MESSAGE) == hardware.public
    assert sshsig.verify(hardware.sign(MESSAGE, flags=5), MESSAGE) == hardware.public
    with pytest.raises(ValueError, match="did not touch it"):
        sshsig.verify(hardware.sign(MESSAGE, flags=0), MESSAGE)
    changed = bytearray(hardware.sign(MESSAGE))
    changed[-1] ^= 1  # the counter
    with pytest.raises(ValueError, match="does not match"):
        sshsig.verify(bytes(changed), MESSAGE)
    line = f"sk-ssh-ed25519@openssh.com {base64.b64encode(hardware.public).decode()}"
    assert sshsig.parse_public_key(line) == hardware.public


def test_what_makes_no_signature_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(keygen.SigningError, match="could not sign"):
        keygen.sign(str(tmp_path / "none"), MESSAGE)
    with pytest.raises(keygen.SigningError, match="could not sign"):
        keygen.public_key(str(tmp_path / "none"))
    (tmp_path / "bad.pub").write_text("ssh-rsa AAAA\n")
    with pytest.raises(keygen.SigningError, match="of one of the types ssh-ed25519"):
        keygen.public_key(str(tmp_path / "bad"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(keygen.SigningError, match="install the OpenSSH client"):
        keygen.sign(str(tmp_path / "none"), MESSAGE)
