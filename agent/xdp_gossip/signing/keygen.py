# SPDX-License-Identifier: MIT
"""Lets ``ssh-keygen`` sign, so that every key works that OpenSSH supports: files, ssh-agent and hardware keys."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..core.signatures import NAMESPACE
from .sshsig import KEY_TYPES, parse_public_key, unarmored, verify

#: Maximum bytes of a file with a public key.
_MOST = 16 * 1024


class SigningError(Exception):
    """Raised if no signature could be made. The message says why, and names the key file."""


def public_key(path: str) -> bytes:
    """Return the public key that belongs to the private or public key file ``path``.

    Raises :class:`SigningError` if there is no such file, or if signatures of the key's type are not accepted.
    """
    own = Path(path if path.endswith(".pub") else f"{path}.pub")
    try:
        if own.is_file():
            with own.open(encoding="utf-8", errors="replace") as stream:
                line = stream.read(_MOST)
        else:
            line = _run(["ssh-keygen", "-y", "-f", path], b"", path).decode(errors="replace")
    except OSError as error:
        raise SigningError(f"{own}: expected a readable file, got {error.strerror}") from None
    try:
        return parse_public_key(line)
    except ValueError:
        wanted = ", ".join(KEY_TYPES)
        raise SigningError(f"{path}: expected a key of OpenSSH of one of the types {wanted}") from None


def sign(path: str, message: bytes) -> bytes:
    """Sign ``message`` with the key file ``path`` in the namespace of signed documents. Returns the decoded signature.

    ``path``: a private key, or a public key whose private key an ssh-agent or a hardware key holds. ``ssh-keygen`` asks
    for a passphrase on the terminal. Raises :class:`SigningError`.
    """
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", path]
    text = _run(command, message, path).decode(errors="replace")
    try:
        blob = unarmored(text)
        verify(blob, message)
    except ValueError as error:
        raise SigningError(f"{path}: ssh-keygen made no usable signature: {error}") from None
    return blob


def _run(command: list[str], given: bytes, path: str) -> bytes:
    # Without a terminal, ssh-keygen must fail instead of opening a window for the passphrase.
    environment = {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, env=environment)
    except OSError as error:
        raise SigningError(f"ssh-keygen: {error.strerror}: install the OpenSSH client to sign documents") from None
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SigningError(f"{path}: ssh-keygen could not sign: {reason or f'exit code {done.returncode}'}")
    return done.stdout
