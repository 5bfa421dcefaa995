# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text that a signer of documents signs, and the times of versions (docs/protocol.md, "Signed documents")."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import typing as t

#: The text of a version, as agents write it: a reading of the clock, and an address.
_VERSION = re.compile(r"([0-9a-f]{16})@(?:[0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5}", re.ASCII)
#: The first word of a statement, and the namespace of signatures.
NAMESPACE = "xdp-gossip"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
#: Microseconds since the epoch of the latest time that a statement can contain: the end of the year 9999.
LATEST = 253_402_300_799_999_999
#: Steps of a clock reading's counter (16 bits) for each microsecond of the time of a signature.
_STEPS = 64


class Part(t.NamedTuple):
    """What a statement says about one document.

    ``value``: the content; ``None`` deletes the document. ``expires``: milliseconds since the epoch; 0: never.
    ``read``: the version that the new version replaces, and versions before it; () if there is none.
    """

    key: str
    value: bytes | None
    content_type: str
    expires: int
    read: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line of a statement about this document alone."""
        after = "after %s" % (" ".join(self.read) or "nothing")
        if self.value is None:
            return "delete %s %s" % (_quoted(self.key), after)
        content = "size %d sha256 %s" % (len(self.value), hashlib.sha256(self.value).hexdigest())
        expires = "expires %s" % (time_text(self.expires * 1000) if self.expires else "never")
        return "publish %s type %s %s %s %s" % (
            _quoted(self.key),
            _quoted(self.content_type),
            content,
            expires,
            after,
        )

    @property
    def hashed(self) -> str:
        """The line of a statement about several documents."""
        return "document %s sha256 %s" % (_quoted(self.key), hashlib.sha256(self.line.encode("utf-8")).hexdigest())


def statement(cluster: str, signed_at: int, comment: str, parts: t.Iterable[Part]) -> bytes:
    """Return the text that a signer signs for ``parts``, in any order. ``signed_at``: microseconds since the epoch.

    For several documents, the text contains the hash of each document's line instead of the line.
    """
    ordered = sorted(parts, key=lambda part: part.key)
    lines = [
        "%s statement 1" % NAMESPACE,
        "cluster %s" % _quoted(cluster),
        "signed-at %s" % time_text(signed_at),
        "comment %s" % _quoted(comment),
    ]
    lines += [ordered[0].line] if len(ordered) == 1 else [part.hashed for part in ordered]
    return "".join(line + "\n" for line in lines).encode("utf-8")


def time_text(microseconds: int) -> str:
    """Return a time in microseconds since the epoch as text, as in ``2026-11-30T15:20:48.123456Z``."""
    moment = _EPOCH + datetime.timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def earliest_after(version: str) -> int:
    """Return the earliest time, in microseconds since the epoch, of a signature that replaces ``version``.

    The version of the new document is later than the version of the deletion that replaces ``version`` if the document
    expires. Raises ``ValueError`` if ``version`` is not the text of a version.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError("expected a version such as 019a3c1e5b2f0000@198.18.0.11:8000")
    reading = int(match.group(1), 16)
    milliseconds, counter = divmod(reading, 1 << 16)
    found = milliseconds * 1000 + min(counter // _STEPS, 999)
    while _reading(found) <= reading + 1:
        found += 1
    return found


def _reading(signed_at: int) -> int:
    """Return the clock reading in the version of a document that was signed at ``signed_at``."""
    milliseconds, microseconds = divmod(signed_at, 1000)
    return (milliseconds << 16) + microseconds * _STEPS


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
