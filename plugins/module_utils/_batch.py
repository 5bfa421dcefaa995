# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: writes several documents in one request, all or none. Python 3.8 or later."""

from __future__ import annotations

import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._change import Change, Conflict
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError

#: The agent's limits for one request: the number of documents, and the total bytes of all document names.
MAX_DOCUMENTS = 64
MAX_KEY_BYTES = 4096

#: Number of further attempts if other publishers have written the documents since the module read them.
_ROUNDS = 5


class NotTogether(Exception):
    """Raised if the documents cannot be written in one request and nothing was written; ``str()`` says why."""


class Conflicts(Exception):
    """Raised if the versions of some documents differ from the expected versions, so that no document was written.
    ``conflicts`` lists these documents.
    """

    def __init__(self, conflicts: list[Conflict]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(str(conflict) for conflict in conflicts))


class Outdated(ClientError):
    """Raised if the documents changed after the controller signed them, so that it has to sign again."""


def conflicts_of(changes: t.Sequence[Change]) -> list[Conflict]:
    """Return a conflict for each change whose document does not have the expected version."""
    found = []
    for change in changes:
        try:
            change.check()
        except Conflict as exc:
            found.append(exc)
    return found


def write_together(fleet: Fleet, changes: t.Sequence[Change]) -> None:
    """Write all planned ``changes`` with one request.

    Raises ``NotTogether`` or ``Conflicts`` if nothing was written. Raises ``ClientError`` if any other error prevented
    the write, or if the outcome is unknown.
    """
    for _round in range(_ROUNDS):
        planned = [change for change in changes if change.planned]
        if len(planned) < 2:
            for change in planned:
                change.apply()
            return
        author, comment = _said_of_all(planned)
        entries = [change.entry() for change in planned]
        if _write(fleet, planned, entries, {"author": author, "comment": comment}) is None:
            return
    raise ClientError("nothing was written: others changed the documents after every comparison")


def _said_of_all(changes: t.Sequence[Change]) -> tuple[str | None, str | None]:
    said = {(change.wish.author, change.wish.comment) for change in changes}
    if len(said) > 1:
        raise NotTogether("all documents in one request must have the same author and comment")
    if len(changes) > MAX_DOCUMENTS:
        raise NotTogether("at most %d documents can be written at once, these are %d" % (MAX_DOCUMENTS, len(changes)))
    size = sum(len(change.wish.key.encode("utf-8")) for change in changes)
    if size > MAX_KEY_BYTES:
        raise NotTogether(
            "names of documents written at once may have %d bytes together, these have %d" % (MAX_KEY_BYTES, size)
        )
    return said.pop()


def write_signed(fleet: Fleet, changes: t.Sequence[Change], signing: t.Mapping[str, t.Any]) -> None:
    """Write the documents that the controller signed with one request, even those that others have written since.

    ``signing`` has the keys ``signed_at`` and ``signature``, and ``documents``: by name of the document, the
    versions ``read`` and the time of expiry ``expires`` as the controller signed them.

    Raises ``Outdated`` or ``Conflicts`` if nothing was written. Raises ``ClientError`` if any other error prevented
    the write, or if the outcome is unknown.
    """
    documents = signing["documents"]
    unsigned = [change.wish.key for change in changes if change.planned and change.wish.key not in documents]
    if unsigned:
        raise Outdated("document %r was changed after the documents were signed" % clip(unsigned[0]))
    signed = [change for change in changes if change.wish.key in documents]
    said = {"comment": signed[0].wish.comment, "signed_at": signing["signed_at"], "signature": signing["signature"]}
    entries = [change.signed_entry(documents[change.wish.key]) for change in signed]
    refused = _write(fleet, signed, entries, said)
    if refused is not None:
        raise Outdated(str(refused))


def _write(
    fleet: Fleet, changes: t.Sequence[Change], entries: list[dict[str, t.Any]], said: dict[str, t.Any]
) -> ApiError | None:
    """Write ``entries``, one of each change, with one request. ``said`` are the fields that all entries share.

    Returns the refusal if others have written the documents since they were read, and every wish permits the versions
    that are there now: then the caller may write again. Raises ``Conflicts`` if a wish does not permit them. Raises
    ``ClientError`` if any other error prevented the write, or if the outcome is unknown.
    """
    try:
        answers = fleet.write_many(entries, said)
    except Unreachable as exc:
        for change in changes:
            change.unanswered(exc)
        raise
    except ApiError as exc:
        if exc.code != "version_mismatch":
            raise
        for change in changes:
            change.look_again()
        conflicts = conflicts_of(changes)
        if conflicts:
            raise Conflicts(conflicts) from None
        return exc
    for change, answer in zip(changes, answers):
        change.done(answer)
    return None
