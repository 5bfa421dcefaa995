# SPDX-License-Identifier: MIT
"""Signatures of OpenSSH: what ssh-keygen makes is read, and nothing that differs from it by a bit."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support.signer import Key
from xdp_gossip.core.signatures import fingerprint
from xdp_gossip.signing import keygen, sshsig, together

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


# -- many signatures ---------------------------------------------------------------------------------------


def mixed(count: int) -> list[tuple[bytes, bytes]]:
    """Signatures of three keys, of which every third is wrong in one of several ways."""
    made = []
    for number in range(count):
        signer, message = Key(number % 3), b"message %d" % number
        blob = signer.sign(message)
        wrong = [
            blob[:-1] + bytes([blob[-1] ^ 1]),
            blob[:-1],
            b"",
            signer.sign(message, "other"),
            signer.sign(b"other"),
        ]
        made.append((wrong[number // 3 % len(wrong)] if number % 3 == 0 else blob, message))
    return made


def alone(blob: bytes, message: bytes) -> bytes | str:
    try:
        return sshsig.verify(blob, message)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("processors", [1, 2, 64])
@pytest.mark.parametrize("count", [0, 1, 11, 200])
def test_signatures_verified_together_are_verified_as_alone(
    processors: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together.os, "sched_getaffinity", lambda pid: set(range(processors)))
    signatures = mixed(count)
    found = [str(each) if isinstance(each, ValueError) else each for each in together.verify_all(signatures)]
    assert found == [alone(*each) for each in signatures]
    assert count < 2 or {type(each) for each in found} == {bytes, str}


@pytest.mark.parametrize("processors", [1, 2, 64])
def test_each_signature_is_verified_once_but_what_a_thread_has_not_finished(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[bytes] = Counter()
    begun: list[int] = []
    start = together._thread.start_new_thread

    def verify(blob: bytes, message: bytes) -> bytes:
        calls[message] += 1
        return blob

    def begin(function: Callable[[], None], arguments: tuple[()]) -> int:
        begun.append(1)
        return start(function, arguments)

    monkeypatch.setattr(together, "verify", verify)
    monkeypatch.setattr(together.os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(together._thread, "start_new_thread", begin)
    signatures = [(b"%d" % number, b"%d" % number) for number in range(500)]
    assert together.verify_all(signatures) == [blob for blob, _message in signatures]
    assert len(begun) == min(processors - 1, together.MAX_THREADS)
    assert set(calls) == {message for _blob, message in signatures}
    assert sum(calls.values()) <= len(signatures) + len(begun)


def test_signatures_are_verified_without_a_thread_if_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Callable[[], None], arguments: tuple[()]) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(together.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(together._thread, "start_new_thread", refuse)
    signatures = mixed(100)
    assert [type(each) for each in together.verify_all(signatures)] == [
        ValueError if isinstance(alone(*each), str) else bytes for each in signatures
    ]


def test_a_stalled_thread_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller verifies itself what a thread has taken and does not finish."""
    caller, stalled, release = threading.get_ident(), threading.Event(), threading.Event()

    def verify(blob: bytes, message: bytes) -> bytes:
        if threading.get_ident() == caller:
            stalled.wait()
        else:
            stalled.set()
            release.wait()
        return blob

    monkeypatch.setattr(together, "verify", verify)
    monkeypatch.setattr(together.os, "sched_getaffinity", lambda pid: {0, 1})
    try:
        signatures = [(b"%d" % number, b"") for number in range(2 * together.EACH)]
        assert together.verify_all(signatures) == [blob for blob, _message in signatures]
    finally:
        release.set()
