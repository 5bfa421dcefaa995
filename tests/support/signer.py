# SPDX-License-Identifier: MIT
"""A signer for the tests: makes keys and signatures of OpenSSH without ssh-keygen, and signed documents."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from xdp_gossip.core.documents.signing import signed_documents
from xdp_gossip.core.signatures import NAMESPACE, part_of, statement
from xdp_gossip.core.signers import Signer, Signers
from xdp_gossip.core.types import Document, Signed, Version, Write
from xdp_gossip.signing.sshsig import verify

CLUSTER = "default"
#: Microseconds since the epoch: the time of the first signature in the tests.
START = 1_700_000_000_000_000


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class Key:
    """A key pair. The same ``number`` gives the same key."""

    def __init__(self, number: int) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"%d" % number).digest())
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = _string(b"ssh-ed25519") + _string(raw)
        self.line = f"ssh-ed25519 {base64.b64encode(self.public).decode()} key{number}"

    def sign(self, message: bytes, namespace: str = NAMESPACE) -> bytes:
        head = b"SSHSIG"
        own = _string(namespace.encode()) + _string(b"") + _string(b"sha512")
        signed = head + own + _string(hashlib.sha512(message).digest())
        signature = _string(b"ssh-ed25519") + _string(self._private.sign(signed))
        return head + (1).to_bytes(4, "big") + _string(self.public) + own + _string(signature)

    def signer(self, name: str, *prefixes: str, valid_before: int = 0) -> Signer:
        found = Signer(name, self.public, prefixes)
        return replace(found, valid_before=valid_before) if valid_before else found


@dataclass(frozen=True)
class Draft:
    """A document to sign. ``expires``: milliseconds since the epoch."""

    key: str
    value: bytes = b""
    read: tuple[Version, ...] = ()
    content_type: str = "raw"
    deleted: bool = False
    expires: int = 0


def writes(key: Key, signed_at: int, *drafts: Draft, cluster: str = CLUSTER, comment: str = "") -> list[Write]:
    """The writes of one signed publish."""

    def made(blob: bytes) -> list[Write]:
        return [
            Write(
                draft.key,
                draft.value,
                draft.content_type,
                deleted=draft.deleted,
                expires=draft.expires,
                signed=Signed(signed_at, draft.read, blob),
            )
            for draft in drafts
        ]

    blank = signed_documents(made(key.sign(b"")), comment)
    parts = sorted(map(part_of, blank), key=lambda part: part.key)
    return made(key.sign(statement(cluster, signed_at, comment, parts)))


def documents(key: Key, signed_at: int, *drafts: Draft, cluster: str = CLUSTER, comment: str = "") -> list[Document]:
    """The documents of one signed publish."""
    return signed_documents(writes(key, signed_at, *drafts, cluster=cluster, comment=comment), comment)


def rules(*signers: Signer) -> Signers:
    """The rules of the cluster with these signers."""
    return Signers(CLUSTER, signers, verify)
