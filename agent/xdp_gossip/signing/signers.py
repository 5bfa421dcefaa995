# SPDX-License-Identifier: MIT
"""Checks the signers that a configuration names."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from ..core.shown import shown
from ..core.signatures import MAX_SIGNED_AT
from ..core.signers import Signer
from ..core.types import MAX_KEY, is_key_prefix
from .sshsig import parse_public_key

#: Maximum number of signers, of prefixes of one signer, and maximum bytes of a signer's name.
MAX_SIGNERS, MAX_PREFIXES, MAX_SIGNER_NAME = 256, 256, 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def make_signer(name: str, public_key: str, prefixes: Sequence[str], until: datetime.datetime | None) -> Signer:
    """Build a signer.

    ``public_key``: a line as in a file ``*.pub`` of OpenSSH. ``until``: signatures of this time or later are refused;
    None: the signer is valid forever. Raises ``ValueError`` for a wrong value, and says what was expected.
    """
    if not _NAME.fullmatch(name):
        wanted = "1 to 64 letters, digits, '.', '_', '@' or '-', the first a letter or digit"
        raise ValueError(f"name: expected {wanted}, got {shown(name)}")
    try:
        key = parse_public_key(public_key)
    except ValueError as error:
        raise ValueError(f"public_key: {error}") from None
    if not 1 <= len(prefixes) <= MAX_PREFIXES:
        raise ValueError(f"prefixes: expected 1 to {MAX_PREFIXES} prefixes of keys, got {len(prefixes)}")
    for prefix in prefixes:
        if len(prefix.encode("utf-8", "surrogatepass")) > MAX_KEY:
            raise ValueError(f"prefixes: expected at most {MAX_KEY} bytes, got {shown(prefix)}")
        if prefix and not is_key_prefix(prefix):
            # Such a prefix protects no document, and nobody would notice: "/app/" for "app/".
            raise ValueError(f"prefixes: expected the beginning of document keys, such as app/, got {shown(prefix)}")
    return Signer(
        name, key, tuple(dict.fromkeys(prefixes)), MAX_SIGNED_AT + 1 if until is None else microseconds(until)
    )


def check_signers(where: str, signers: Sequence[Signer]) -> None:
    """Raise ``ValueError`` if two signers have one name or one key, or if there are too many signers."""
    if len(signers) > MAX_SIGNERS:
        raise ValueError(f"{where}: expected at most {MAX_SIGNERS} signers, got {len(signers)}")
    names: set[str] = set()
    keys: dict[bytes, str] = {}
    for signer in signers:
        if signer.name in names:
            raise ValueError(f"{where}: expected each name once, got {signer.name} twice")
        if signer.public_key in keys:
            raise ValueError(
                f"{where}: expected each key once, got that of {keys[signer.public_key]} and {signer.name}"
            )
        names.add(signer.name)
        keys[signer.public_key] = signer.name


def microseconds(when: datetime.datetime) -> int:
    """The time in microseconds since the epoch. Raises ``ValueError`` for a time without a time zone or before 1970."""
    if when.tzinfo is None:
        raise ValueError("valid_before: expected a time with a time zone, such as 2027-01-31T12:00:00Z")
    found = (when - _EPOCH) // datetime.timedelta(microseconds=1)
    if found < 0:
        raise ValueError(f"valid_before: expected a time after 1970, got {when.isoformat()}")
    return found
