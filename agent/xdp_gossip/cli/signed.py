# SPDX-License-Identifier: MIT
"""Signs documents for the commands ``publish``, ``delete`` and ``rollback``."""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.shown import shown
from ..core.signatures import (
    MAX_ANCESTORS,
    Part,
    batch_line,
    fingerprint,
    part_begin,
    signed_at,
    statement,
    statement_begin,
    text_of_time,
    time_after,
)
from ..core.types import Version, Write
from .common import USAGE, CommandError
from .parser import path, some_text

if TYPE_CHECKING:
    from ..api.client import Client

#: Number of attempts if other versions of the document are published meanwhile.
_ATTEMPTS = 5
#: Maximum seconds by which the time of a signature may be ahead of this host's clock. A member that claims a version of
#: a later time may lie: after a signature of that time, nothing could be signed for the document until then.
_AHEAD = 86_400
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Draft:
    """A document to sign. ``expires_in``: seconds until the document expires; None if it never expires."""

    key: str
    value: bytes
    content_type: str
    deleted: bool = False
    comment: str = ""
    expires_in: float | None = None


def add_signing(parser: argparse.ArgumentParser) -> None:
    """Add the options with which a command signs what it writes."""
    text = "sign with this private key of OpenSSH, or with the ssh-agent or hardware key of this public key"
    parser.add_argument("--sign-key", metavar="FILE", type=path, help=text)
    text = "name of the cluster for which a signature or a sealed document is valid"
    parser.add_argument("--cluster", metavar="NAME", type=some_text, help=text)


def check_signing(args: argparse.Namespace) -> bool:
    """Whether the command has to sign what it writes. Raises :class:`CommandError` for options that do not fit."""
    if args.sign_key is None:
        if args.cluster is not None and getattr(args, "sealed_for", None) is None:
            raise CommandError("--cluster: expected together with --sign-key or --sealed-for", USAGE)
        return False
    if args.cluster is None:
        raise CommandError("--sign-key: expected --cluster NAME, the cluster for which the signature is valid", USAGE)
    if getattr(args, "author", None) is not None:
        raise CommandError("--author: expected none with --sign-key: the signer is the author", USAGE)
    return True


async def write_signed(
    client: Client,
    args: argparse.Namespace,
    draft: Draft,
    *,
    if_version: str | None = None,
    if_absent: bool = False,
    unless_isolated: bool = False,
) -> dict[str, Any]:
    """Sign ``draft`` and publish it. Returns the answer of the API for the document.

    If the same signer has signed the same content before, nothing is signed or published. Raises :class:`CommandError`
    if no signature can be made, and the errors of the client.
    """
    from ..api.client import ApiError
    from ..signing import keygen

    try:
        own = fingerprint(keygen.public_key(args.sign_key))
        held, read = await _present(client, draft.key)
        if if_version is None and not if_absent and _alike(held, draft, own):
            return _unchanged(held, draft.key)
        for attempt in range(_ATTEMPTS):
            signed_at, entry = _entry(draft, read)
            blob = keygen.sign(args.sign_key, _statement(args.cluster, signed_at, draft, read))
            try:
                answer = await client.publish_signed(
                    [{**entry, "if_version": if_version, "if_absent": if_absent}],
                    comment=draft.comment,
                    signed_at=text_of_time(signed_at),
                    signature=base64.b64encode(blob).decode(),
                    unless_isolated=unless_isolated,
                )
            except ApiError as error:
                if error.code != "signature_outdated" or attempt == _ATTEMPTS - 1:
                    raise
                read = _lineage(error.details)
            else:
                written: dict[str, Any] = answer["documents"][0]
                return written
    except keygen.SigningError as error:
        raise CommandError(f"--sign-key: {error}", USAGE) from None
    raise AssertionError("the loop returns or raises")


def check_former(args: argparse.Namespace, former: Mapping[str, Any], value: bytes) -> None:
    """Check that the user's own key has signed the version ``args.to`` with this content and type.

    ``former``: what a member says of the version; ``value``: its content. The member may lie: without this check, it
    would get a signature for any content. Raises :class:`CommandError`.
    """
    from ..signing import keygen, sshsig

    try:
        own = keygen.public_key(args.sign_key)
    except keygen.SigningError as error:
        raise CommandError(f"--sign-key: {error}", USAGE) from None
    given = former.get("signature")
    why = "nobody has signed it"
    if isinstance(given, Mapping):
        try:
            text = str(given.get("statement")).encode()
            signed = sshsig.verify(sshsig.unarmored(str(given.get("armored"))), text)
            why = _no_statement_of(args, former, value, text.decode()) if signed == own else "another key has signed it"
        except (ValueError, TypeError) as error:
            why = f"its signature is wrong: {error}"
    if why:
        text_ = f"rollback: version {args.to} of {shown(args.key)}: expected one that this key has signed, but {why}"
        raise CommandError(f"{text_}; read it, check it, and sign it with publish --sign-key", code="not_signed")


def _no_statement_of(args: argparse.Namespace, former: Mapping[str, Any], value: bytes, text: str) -> str:
    """Why ``text``, which the key has signed, is not about the version ``args.to`` with this content; "" if it is."""
    when = signed_at(Version.parse(args.to))
    if when is None or not text.startswith(statement_begin(args.cluster, when)):
        return "the key has signed another version, or one of another cluster"
    kind, digest = str(former["content_type"]), _sha256(value)
    lines = text.split("\n")
    if any(line.startswith(part_begin(args.key, kind, len(value), digest)) for line in lines):
        return ""
    expires = former.get("expires")
    read = tuple(Version.parse(version) for version in (former.get("lineage") or [""])[1:])
    part = Part(args.key, False, kind, len(value), digest, _milliseconds(str(expires)) if expires else 0, read)
    return "" if batch_line(part.key, part.hash) in lines else "the key has signed another content"


def _milliseconds(text: str) -> int:
    when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (when - _EPOCH) // datetime.timedelta(milliseconds=1)


async def _present(client: Client, key: str) -> tuple[dict[str, Any] | None, tuple[Version, ...]]:
    """The document on the member, and its version or that of its deletion, followed by earlier ones."""
    from ..api.client import ApiError

    try:
        held = await client.document(key)
    except ApiError as error:
        if error.code != "document_not_found":
            raise
        return None, _lineage(error.details)
    return held, _lineage(held)


def _lineage(answer: Mapping[str, Any]) -> tuple[Version, ...]:
    try:
        return tuple(Version.parse(text) for text in answer.get("lineage") or ())[: MAX_ANCESTORS + 1]
    except (ValueError, TypeError) as error:
        raise CommandError(f"the member told a version that is none: {error}") from None


def _alike(held: dict[str, Any] | None, draft: Draft, own: str) -> bool:
    if held is None or draft.deleted:
        return draft.deleted and held is None
    by = held.get("signed_by") or {}
    same = (held["content_type"], base64.b64decode(held["value_base64"])) == (draft.content_type, draft.value)
    return same and by.get("key") == own and not by.get("withdrawn") and not held["expires"] and not draft.expires_in


def _unchanged(held: dict[str, Any] | None, key: str) -> dict[str, Any]:
    if held is None:
        return {"key": key, "version": None, "changed": False, "previous_version": None}
    return {**held, "changed": False, "previous_version": held["version"]}


def _entry(draft: Draft, read: tuple[Version, ...]) -> tuple[int, dict[str, Any]]:
    """The time of the signature, and the document as the API reads it."""
    clock = time.time_ns() // 1000
    signed_at = time_after(read[0] if read else None, clock)
    if signed_at > clock + _AHEAD * 1_000_000:
        text = (
            f"document {shown(draft.key)}: the member has the version {read[0]}, which is more than {_AHEAD} s ahead of"
        )
        raise CommandError(f"{text} this host's clock: correct the clock, or ask another member")
    entry: dict[str, Any] = {"key": draft.key, "read": [str(version) for version in read]}
    if draft.deleted:
        return signed_at, {**entry, "delete": True}
    if draft.expires_in is not None:
        entry["expires"] = text_of_time(_expires(signed_at, draft.expires_in) * 1000)
    value = base64.b64encode(draft.value).decode()
    return signed_at, {**entry, "value_base64": value, "content_type": draft.content_type}


def _expires(signed_at: int, seconds: float) -> int:
    """The time of expiry in milliseconds since the epoch."""
    return signed_at // 1000 + int(seconds * 1000)


def _statement(cluster: str, signed_at: int, draft: Draft, read: tuple[Version, ...]) -> bytes:
    content = ("", 0, b"") if draft.deleted else (draft.content_type, len(draft.value), _sha256(draft.value))
    expires = 0 if draft.deleted or draft.expires_in is None else _expires(signed_at, draft.expires_in)
    part = Part(draft.key, draft.deleted, *content, expires, read)
    return statement(cluster, signed_at, draft.comment, [part])


def _sha256(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def suffix_type(key: str, name: str | None) -> str:
    """The content type of a new document ``key`` whose value comes from the file ``name``."""
    return Write(key, suffix=os.path.splitext(name or "")[1]).type_over(None)
