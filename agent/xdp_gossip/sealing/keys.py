# SPDX-License-Identifier: MIT
"""The key pair with which a host opens sealed documents, and files of public keys.

A private key is a file of mode 0600 with the line ``xdp-gossip-x25519-private BASE64``. A public key is a line
``xdp-gossip-x25519 BASE64 NAME``, as in OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from nacl.bindings import crypto_scalarmult_base

from ..core.sealed import MAX_RECIPIENTS
from ..core.shown import shown

#: Bytes of a private and of a public key of X25519 (RFC 7748).
KEY_BYTES = 32
#: Name of the file with the private key, in the state directory.
FILE = "sealing.key"
PUBLIC = "xdp-gossip-x25519"
_PRIVATE = "xdp-gossip-x25519-private"
#: Maximum bytes of a file with a key, and of a file of public keys.
_MOST = 4096
_MOST_PUBLIC = MAX_RECIPIENTS * 512


class PublicKey(NamedTuple):
    """A public key of 32 bytes, and the name of the host that has the private key."""

    name: str
    raw: bytes


class KeyFileError(Exception):
    """Raised if a key file cannot be used. The message names the file and the remedy."""


def public_of(private_key: bytes) -> bytes:
    """The public key of a private key of 32 bytes.

    libsodium computes it, because an agent without sealed documents must not load OpenSSL.
    """
    public: bytes = crypto_scalarmult_base(private_key)
    return public


def load_or_make(directory: Path) -> bytes:
    """Return the private key in ``directory``; the first call makes it. Raises :class:`KeyFileError`."""
    path = directory / FILE
    try:
        return load(path)
    except FileNotFoundError:
        pass
    key = os.urandom(KEY_BYTES)
    line = f"{_PRIVATE} {base64.b64encode(key).decode()}\n".encode()
    new = path.with_name(f"{FILE}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(new, path)
        _sync(directory)
    except OSError as error:
        raise KeyFileError(f"{error.filename or path}: {error.strerror or error}") from None
    return key


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> bytes:
    """Read a private key. Raises :class:`KeyFileError`, and ``FileNotFoundError`` if there is no file."""
    try:
        # O_NONBLOCK: the open of a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            with os.fdopen(descriptor, "rb") as stream:
                raw = stream.read(_MOST)
        else:
            os.close(descriptor)  # Python does not close that of a directory, which it refuses to open
            raw = b""
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or error}") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        found = f"{stat.S_IMODE(mode):04o}"
        raise KeyFileError(f"{path}: expected mode 0600, got {found}: others may have read the key; chmod 0600 it")
    words = raw.decode("ascii", "replace").split()
    key = _decoded(words[1]) if len(words) == 2 and words[0] == _PRIVATE else None
    if key is None:
        text = f"{path}: expected a line '{_PRIVATE} BASE64', got another content: restore it from a backup, or move it"
        raise KeyFileError(f"{text} away, start the agent, and seal again what was sealed for this host")
    return key


def _decoded(word: str) -> bytes | None:
    try:
        raw = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_BYTES else None


def public_line(raw: bytes, name: str) -> str:
    """A public key as one line of text."""
    return f"{PUBLIC} {base64.b64encode(raw).decode()} {name}".rstrip()


def parse_public_line(line: str) -> PublicKey:
    """Parse a line that :func:`public_line` returned. Raises ``ValueError``."""
    words = line.split(None, 2)
    raw = _decoded(words[1]) if len(words) >= 2 and words[0] == PUBLIC else None
    if raw is None:
        # The line may be that of a private key, so no more of it is shown.
        raise ValueError(f"expected a line '{PUBLIC} BASE64 NAME', got one of {shown(words[0] if words else '')}")
    return PublicKey(words[2].strip() if len(words) == 3 else "", raw)


def read_recipients(path: str) -> list[PublicKey]:
    """Read a file of public keys, one a line. Empty lines and lines that begin with # are skipped.

    Raises :class:`KeyFileError` that names the line.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_MOST_PUBLIC + 1)
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: expected a file of public keys in UTF-8") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or error}") from None
    if len(text) > _MOST_PUBLIC:
        raise KeyFileError(f"{path}: expected at most {_MOST_PUBLIC} bytes of public keys")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(parse_public_line(line))
        except ValueError as error:
            raise KeyFileError(f"{path}: line {number}: {error}") from None
    if not 1 <= len(found) <= MAX_RECIPIENTS:
        raise KeyFileError(f"{path}: expected 1 to {MAX_RECIPIENTS} public keys, got {len(found)}")
    return found
