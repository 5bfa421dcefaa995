# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: write several documents, all or nothing. Python 3.8 or later."""

from __future__ import annotations

import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._change import Change, Conflict
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError

#: What the agent takes at once.
MAX_DOCUMENTS = 64
MAX_KEY_BYTES = 4096

#: How often the fleet is looked at again because somebody else wrote meanwhile.
_ROUNDS = 5


class NotTogether(Exception):
    """These cannot be written as one; nothing was. ``str()`` says why."""


class Conflicts(Exception):
    """Nothing was written: each of ``conflicts`` has another version than the one expected."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(str(conflict) for conflict in conflicts))


def conflicts_of(changes: t.Sequence[Change]) -> list[Conflict]:
    """Every conflict among ``changes``."""
    found = []
    for change in changes:
        try:
            change.check()
        except Conflict as exc:
            found.append(exc)
    return found


def write_together(fleet: Fleet, changes: t.Sequence[Change]) -> None:
    """Write what is planned of ``changes`` with one request.

    Raises ``NotTogether``, ``Conflicts``, and ``ClientError`` as ``Change.apply`` does.
    """
    for _round in range(_ROUNDS):
        planned = [change for change in changes if change.planned]
        if len(planned) < 2:
            for change in planned:
                change.apply()
            return
        author, comment = _said_of_all(planned)
        try:
            answers = fleet.write_many([change.entry() for change in planned], author, comment)
        except Unreachable as exc:
            for change in planned:
                change.unanswered(exc)
            raise
        except ApiError as exc:
            if exc.code != "version_mismatch":
                raise
            for change in planned:
                change.look_again()
            conflicts = conflicts_of(planned)
            if conflicts:
                raise Conflicts(conflicts) from None
            continue
        for change, answer in zip(planned, answers):
            change.done(answer)
        return
    raise ClientError("nothing was written: others wrote the same documents each time they had been compared")


def _said_of_all(changes: t.Sequence[Change]) -> tuple[str | None, str | None]:
    said = {(change.wish.author, change.wish.comment) for change in changes}
    if len(said) > 1:
        raise NotTogether("documents that are written at once have one author and one comment, these differ")
    if len(changes) > MAX_DOCUMENTS:
        raise NotTogether("at most %d documents can be written at once, these are %d" % (MAX_DOCUMENTS, len(changes)))
    size = sum(len(change.wish.key.encode("utf-8")) for change in changes)
    if size > MAX_KEY_BYTES:
        raise NotTogether(
            "names of documents written at once may have %d bytes together, these have %d" % (MAX_KEY_BYTES, size)
        )
    return said.pop()
