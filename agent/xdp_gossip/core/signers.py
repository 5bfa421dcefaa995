# SPDX-License-Identifier: MIT
"""The rules of signed documents: who may sign which keys, and which documents a member refuses.

The longest prefix of a key that any signer has decides: only the signers with this prefix may sign the document. A key
without such a prefix needs no signature.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Callable, Union

from .signatures import (
    MAX_SIGNED_AT,
    StatementError,
    fingerprint,
    has_signed_form,
    origin_of,
    public_key_of,
    signed_at,
    statement_of,
)
from .types import Document, Version

#: Verifies a signature: takes the signature (``Signature.blob``) and the signed text, and returns the public key of the
#: signer. Raises ``ValueError`` if the signature is malformed or wrong.
Verify = Callable[[bytes, bytes], bytes]
#: Verifies several signatures: takes the arguments of several calls of a ``Verify``, and returns what each call would
#: return or raise.
VerifyAll = Callable[[Sequence[tuple[bytes, bytes]]], Sequence[Union[bytes, ValueError]]]


@dataclass(frozen=True)
class Signer:
    """A signer of documents.

    ``public_key``: the key as in the second field of a line of OpenSSH, decoded. ``prefixes``: prefixes of the keys
    that the signer may sign. ``valid_before``: time in microseconds since the epoch; signatures of this time or later
    are refused. After this time the signer counts as withdrawn.
    """

    name: str
    public_key: bytes
    prefixes: tuple[str, ...]
    valid_before: int = MAX_SIGNED_AT + 1


@dataclass(frozen=True)
class SignedBy:
    """Who signed a document.

    ``signer``: name of the signer; "" if the configuration has no signer with this key and a prefix of the document.
    ``fingerprint``: the fingerprint of the public key as OpenSSH prints it. ``withdrawn``: the
    signer may not sign any more.
    """

    signer: str
    fingerprint: str
    withdrawn: bool


class Refused(Exception):
    """Raised for a document that this member does not accept.

    ``kind``: ``unsigned`` if the document lacks the signature that its prefix requires, otherwise ``signature``.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


#: The public key of a document's signer, or the reason why the signature is wrong; None if nobody has verified the
#: signature.
Verified = Union[bytes, Refused, None]


def _nobody(blob: bytes, message: bytes) -> bytes:
    raise ValueError("this program verifies no signatures")


class Signers:
    """The signers of a cluster, by prefix.

    ``cluster``: name of the cluster, which is part of each statement. ``verify_all``: verifies several signatures in
    less time than several calls of ``verify``; None if there is no such function.
    """

    def __init__(
        self,
        cluster: str = "",
        signers: Iterable[Signer] = (),
        verify: Verify = _nobody,
        verify_all: VerifyAll | None = None,
    ) -> None:
        self._cluster = cluster
        self._verify = verify
        self._verify_all = verify_all or self._one_by_one
        self._all = tuple(signers)
        signers = self._all
        by_prefix: dict[str, list[Signer]] = {}
        for signer in signers:
            for prefix in signer.prefixes:
                by_prefix.setdefault(prefix, []).append(signer)
        self._by_prefix: Mapping[str, list[Signer]] = MappingProxyType(by_prefix)
        self._lengths = sorted({len(prefix) for prefix in by_prefix}, reverse=True)

    @functools.cached_property
    def digest(self) -> int:
        """64-bit digest of all signers, in whatever order they are listed; 0 if there are none."""
        digest = hashlib.blake2b(digest_size=8, person=b"xg-signers")
        for signer in sorted(self._all, key=lambda signer: signer.name):
            prefixes = [prefix.encode() for prefix in sorted(signer.prefixes)]
            for part in (signer.name.encode(), signer.public_key, b"%d" % signer.valid_before, *prefixes):
                digest.update(len(part).to_bytes(4, "big") + part)
        return (int.from_bytes(digest.digest(), "big") or 1) if self._all else 0

    def among(self, signers: Iterable[Signer]) -> Signers:
        """The rules of the same cluster with other signers."""
        return Signers(self._cluster, signers, self._verify, self._verify_all)

    def prefix_of(self, key: str) -> str | None:
        """The prefix that decides who may sign ``key``; None if the document needs no signature."""
        for length in self._lengths:
            start = key[:length]
            if len(start) == length and start in self._by_prefix:
                return start
        return None

    def signers_of(self, key: str) -> list[Signer]:
        """The signers that may sign ``key``; [] if the document needs no signature."""
        prefix = self.prefix_of(key)
        return [] if prefix is None else self._by_prefix[prefix]

    def may_accept(self, key: str, version: Version) -> bool:
        """Whether a document with this key and version may have the required signature, as far as both show."""
        return signed_at(version) is not None or (not has_signed_form(version) and self.prefix_of(key) is None)

    def excludes(self, key: str, version: Version) -> bool:
        """Whether :meth:`check` refuses each document with this key and version, whatever else the document says."""
        when, signers = signed_at(version), self.signers_of(key)
        if when is None or not signers:
            return not self.may_accept(key, version)
        origin = (version.origin.packed, version.origin.port)
        return all(when >= each.valid_before or origin_of(each.public_key) != origin for each in signers)

    def verify(self, documents: Sequence[Document]) -> list[Verified]:
        """Verify the signatures of ``documents`` together, which takes less time than one after the other.

        The method verifies a signature over several documents once. It checks no rules. Each item of the result belongs
        to one document, and is an argument of :meth:`check`.
        """
        found: list[Verified] = [None] * len(documents)
        asked: dict[tuple[bytes, bytes], list[int]] = {}
        for number, document in enumerate(documents):
            if document.signature is None or signed_at(document.version) is None:
                continue
            try:
                statement = self.statement_of(document)
            except StatementError as error:
                found[number] = _contradiction(error)
                continue
            asked.setdefault((document.signature.blob, statement), []).append(number)
        for numbers, outcome in zip(asked.values(), self._verify_all(list(asked)) if asked else ()):
            for number in numbers:
                found[number] = _judged(documents[number], outcome)
        return found

    def _one_by_one(self, signatures: Sequence[tuple[bytes, bytes]]) -> list[bytes | ValueError]:
        found: list[bytes | ValueError] = []
        for blob, statement in signatures:
            try:
                found.append(self._verify(blob, statement))
            except ValueError as error:
                found.append(error)
        return found

    def check(self, document: Document, latest: int | None = None, verified: Verified = None) -> None:
        """Check the signature of ``document``.

        ``latest``: time in microseconds since the epoch; signatures of a later time are refused. None: any time is
        allowed. ``verified``: what :meth:`verify` returned for the document, or the public key of its signer if the
        signature was verified before; None: verify the signature now. Raises :class:`Refused`.
        """
        signers = self.signers_of(document.key)
        if document.signature is None:
            if signers:
                names = " or ".join(signer.name for signer in signers)
                raise Refused("unsigned", f"expected a signature of {names}, got none")
            if has_signed_form(document.version):
                raise Refused("signature", "its version is one of a signed document, and it has no signature")
            return
        when = signed_at(document.version)
        if when is None:
            raise Refused("signature", "it has a signature, and its version is not one of a signed document")
        public_key = verified if verified is not None else self.verify([document])[0]
        if isinstance(public_key, Refused):
            raise public_key
        assert public_key is not None
        if latest is not None and when > latest:
            raise Refused("signature", "it was signed at a time that has not come yet")
        if not signers:
            return
        signer = next((signer for signer in signers if signer.public_key == public_key), None)
        if signer is None:
            names = " or ".join(signer.name for signer in signers)
            raise Refused("signature", f"expected a signature of {names}, got one by {fingerprint(public_key)}")
        if when >= signer.valid_before:
            raise Refused("signature", f"signer {signer.name} was withdrawn before the time of the signature")

    def authentic(self, documents: Sequence[Document]) -> list[Document]:
        """Return those of ``documents`` that nobody signed, or whose signature is right, whoever made it.

        For documents that a program did not check when it read them: no other one may be shown as signed.
        """
        return [
            document
            for document, verified in zip(documents, self.verify(documents))
            if (not has_signed_form(document.version) if document.signature is None else isinstance(verified, bytes))
        ]

    def statement_of(self, document: Document) -> bytes:
        """The statement that the signer of ``document`` signed.

        Raises ``StatementError`` if a field of the document contradicts the statement.
        """
        return statement_of(self._cluster, document)

    def signed_by(self, document: Document, now: int) -> SignedBy | None:
        """Who signed ``document``, which :meth:`check` has accepted; None if nobody did.

        ``now``: microseconds since the epoch.
        """
        if document.signature is None:
            return None
        public_key = public_key_of(document.signature.blob)
        signer = next((item for item in self.signers_of(document.key) if item.public_key == public_key), None)
        if signer is None:
            return SignedBy("", fingerprint(public_key), False)
        return SignedBy(signer.name, fingerprint(public_key), now >= signer.valid_before)


def _contradiction(error: StatementError) -> Refused:
    return Refused("signature", f"the signature is not for this document: {error}")


def _judged(document: Document, outcome: bytes | ValueError) -> bytes | Refused:
    """Judge what the verification of the signature of ``document`` has found."""
    if isinstance(outcome, ValueError):
        return Refused("signature", f"the signature is wrong: {outcome}")
    origin = document.version.origin
    if (origin.packed, origin.port) != origin_of(outcome):
        return Refused("signature", "its version belongs to another key")
    return outcome
