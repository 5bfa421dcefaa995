# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: computes the fingerprint of a cluster key. Python 3.8 or later, standard library only.

A secret is either a generated key, ``xgk1_`` and 32 bytes in base64url, or a passphrase, which scrypt stretches. HKDF
(RFC 5869) derives the fingerprint, 8 bytes. Its first byte is the key's id, which each packet contains. Source: the
section "Keys" of docs/wire.md. The fingerprint is public: each node shows the fingerprints of its keys in its record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata

#: Beginning of a generated key, and the number of characters after it.
GENERATED = "xgk1_"
CHARACTERS = 43
_SALT = b"xdp-gossip/2 "
_INFO = b"key fingerprint"
#: OpenSSL's default limit is 32 MiB, slightly less than scrypt needs here.
_MEMORY = 64 << 20


def decoded(secret: str) -> bytes:
    """Return the 32 bytes of a generated key. Raises ``ValueError``, whose text does not contain the secret."""
    text = secret[len(GENERATED) :]
    try:
        key = base64.b64decode(text.encode("ascii") + b"=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    # With other bits at the end of the last character, one key would have several texts.
    text = text if base64.urlsafe_b64encode(key).rstrip(b"=") == text.encode("utf-8") else ""
    if not secret.startswith(GENERATED) or len(text) != CHARACTERS or len(key) != 32:
        raise ValueError("expected %s and %d characters of base64url" % (GENERATED, CHARACTERS))
    return key


def fingerprint(cluster: str, secret: str) -> str:
    """Return the fingerprint of ``secret`` in the cluster ``cluster``: 16 hex digits.

    For a passphrase the computation takes 32 MiB of memory and some 0.3 seconds. Raises ``ValueError`` for text that
    begins like a generated key and is none, and for a passphrase that agents refuse.
    """
    salt = _SALT + cluster.encode("utf-8")
    if secret.startswith(GENERATED):
        key = decoded(secret)
    else:
        if not secret.isprintable() or secret != secret.strip() or secret != unicodedata.normalize("NFC", secret):
            raise ValueError(
                "expected a passphrase of printable characters in Unicode's normal form C, without spaces around it"
            )
        key = hashlib.scrypt(secret.encode("utf-8"), salt=salt, n=1 << 15, r=8, p=3, maxmem=_MEMORY, dklen=32)
    extracted = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(extracted, _INFO + b"\x01", hashlib.sha256).hexdigest()[:16]
