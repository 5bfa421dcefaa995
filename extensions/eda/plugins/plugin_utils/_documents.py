# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: compares lists of documents and creates events. No I/O, no clock."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip

MAX_DOCUMENTS = 200 * 1000

_VERSION = re.compile(r"[0-9a-f]{16}@[0-9a-fA-F.:\[\]]{1,100}")
_ADDRESS = re.compile(r"[0-9a-fA-F.:\[\]]{1,100}")
_MAX_KEY = 512
_MAX_REASON = 1024
#: Maximum characters of each text field. Each limit is at least as high as the agent's own limit for the field.
_TEXTS = {"digest": 80, "content_type": 127, "author": 255, "comment": 1024, "published_at": 40}

Document = dict[str, t.Any]
Event = dict[str, t.Any]


def parse_documents(documents: t.Any) -> tuple[dict[str, Document], list[str]]:
    """Check the list ``documents`` in a member's answer.

    Returns the valid documents by key, and one line of text for each invalid document. Raises ``ValueError`` if
    ``documents`` is not a list or has more than ``MAX_DOCUMENTS`` entries.
    """
    if not isinstance(documents, list):
        raise ValueError(f"documents: expected a list, got {type(documents).__name__}")
    if len(documents) > MAX_DOCUMENTS:
        raise ValueError(f"documents: expected at most {MAX_DOCUMENTS}, got {len(documents)}")
    good: dict[str, Document] = {}
    problems = []
    for position, entry in enumerate(documents):
        try:
            document = parse_document(entry)
            good[document["key"]] = document
        except ValueError as exc:
            problems.append(f"document {position + 1} of the list: {exc}")
    return good, problems


def parse_document(entry: t.Any) -> Document:
    """Check the description of one document.

    Raises ``ValueError`` if a field is invalid; the message names the field and the expected value.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, got {type(entry).__name__}")
    document: Document = {"key": _text(entry, "key"), "version": _text(entry, "version")}
    if not 1 <= len(document["key"]) <= _MAX_KEY or any(_is_control(char) for char in document["key"]):
        raise ValueError("key: expected 1 to 512 characters that are no control characters")
    if not _VERSION.fullmatch(document["version"]):
        shown = clip(document["version"])
        raise ValueError(f"version: expected 16 hex digits, @ and an address, got {shown!r}")
    for field, limit in _TEXTS.items():
        document[field] = clip(_text(entry, field), limit)
    size = entry.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63:
        raise ValueError("size: expected a number of bytes")
    return dict(document, size=size, deleted=entry.get("deleted") is True)


def parse_refusal(entry: t.Any) -> Document:
    """Check what a member says about a version of a document that it refused.

    Raises ``ValueError`` if a field is invalid; the message names the field and the expected value.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"refusal: expected an object, got {type(entry).__name__}")
    checked = parse_document({name: entry.get(name) for name in ("key", "version")})
    sender = "" if entry.get("from") is None else _text(entry, "from")
    if sender and not _ADDRESS.fullmatch(sender):
        raise ValueError(f"from: expected an address and a port, got {clip(sender)!r}")
    reason = clip(_text(entry, "reason"), _MAX_REASON)
    return {"key": checked["key"], "version": checked["version"], "reason": reason, "from": sender}


def _text(entry: dict[str, t.Any], field: str) -> str:
    value = entry.get(field, "")
    if not isinstance(value, str):
        raise ValueError(f"{field}: expected text, got {type(value).__name__}")
    return value


def _is_control(char: str) -> bool:
    return ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF


class DocumentView:
    """Compares the list of documents of a member with the documents that were reported in events so far.

    The list may be older than the reported documents, because the source may have changed to a member that has not
    received all documents yet. If a reported document is missing or older in the list, an event is created in only two
    cases: the member's change feed contains the tombstone of the document, or all members have the same documents as
    this member.
    """

    def __init__(self) -> None:
        self._known: dict[str, Document] | None = None

    def compare(
        self,
        listed: t.Mapping[str, Document],
        tombstones: t.Mapping[str, Document],
        agreed: bool,
        tell_initial: bool = False,
    ) -> list[Event]:
        """Return the events for the differences between the reported documents and ``listed``.

        Afterwards the documents in ``listed`` are the reported ones.

        ``tombstones`` contains, by key, the deletions that the member's change feed has reported since the previous
        list. ``agreed``: whether all members have exactly the documents in ``listed``. Without ``tell_initial``, the
        first list causes no events.
        """
        first = self._known is None
        known = self._known = {} if self._known is None else self._known
        events = []
        for key, document in listed.items():
            held = known.get(key)
            if held is not None and not _is_news(document, held, agreed):
                continue
            known[key] = document
            if not first or tell_initial:
                events.append(_event("document_changed", document, held, first))
        for key in [key for key in known if key not in listed]:
            held, tombstone = known[key], tombstones.get(key)
            if tombstone is not None and _clock(tombstone) >= _clock(held):
                # Store the tombstone, because another member may still list the deleted document.
                known[key] = tombstone
            elif agreed:
                del known[key]
                tombstone = dict(held, deleted=True)
            else:
                continue
            if not held["deleted"]:
                events.append(_event("document_deleted", tombstone, held, False))
        return events


def _is_news(document: Document, held: Document, agreed: bool) -> bool:
    """Return whether ``document`` differs from ``held`` and is not older than ``held``.

    With ``agreed``, the result is true for every version that differs from the version of ``held``, even for an older
    version. If a version has a time in the future, because of a wrong clock, members may replace this version by a
    version with an earlier time.
    """
    if document["version"] == held["version"]:
        return False
    return agreed or _clock(document) >= _clock(held)


def _clock(document: Document) -> str:
    """Return the time in the version of ``document``, as text that sorts by time."""
    return str(document["version"])[:16]


def _event(kind: str, document: Document, held: Document | None, first: bool) -> Event:
    previous = None if held is None or held["deleted"] else held
    return {"type": kind, "document": document, "previous": previous, "initial": first}
