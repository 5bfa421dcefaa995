# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: encodes NodeLists for Ansible's cache plugins and decides how long the NodeLists are
valid.

A cache plugin deletes each entry that is older than the plugin's timeout, and so also deletes the entity tags for
conditional requests. Each entry therefore contains the time at which it was stored, and the cache plugin's timeout is
longer than the time for which the entry is valid.
"""

from __future__ import annotations

import collections.abc as c
import math
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer

#: Seconds for which the cache still stores an entry after it has expired, because its entity tags allow conditional
#: requests.
RETENTION = 7 * 86400

_FORMAT = 2


class Entry:
    """A cache entry, which contains the request ``asked``, the ``answers`` of members to this request, and
    ``stored_at``, the time of the answers (seconds since 1970).
    """

    def __init__(self, asked: c.Mapping[str, t.Any], stored_at: float, answers: c.Sequence[Answer]) -> None:
        self.asked = dict(asked)
        self.stored_at = stored_at
        self.answers = list(answers)

    def counts(self, timeout: int, now: float) -> bool:
        """Return whether the entry is younger than ``timeout`` seconds; with ``timeout`` 0, an entry is valid forever,
        as in Ansible's cache plugins.

        An entry whose time is in the future is not valid, because a clock was wrong or another program wrote the entry.
        """
        age = now - self.stored_at
        return age >= 0 and (timeout == 0 or age < timeout)

    def encode(self) -> dict[str, t.Any]:
        """Return the entry as data for a cache plugin. The answers in the data are text, which cache plugins store
        without change.
        """
        answers = [{"endpoint": each.endpoint, "etag": each.etag, "body": each.body} for each in self.answers]
        return {"format": _FORMAT, "asked": self.asked, "stored_at": self.stored_at, "answers": answers}


def decode(held: t.Any, asked: c.Mapping[str, t.Any], at_least: int, at_most: int) -> Entry | None:
    """Decode the entry ``held`` that a cache plugin returned; ``None`` if its request differs from ``asked``.

    The function checks the answers in an entry in the same way as the answers of members. The entry must contain
    ``at_least`` to ``at_most`` answers, each from a different endpoint in ``asked``. Raises ``ValueError`` if the entry
    is malformed, contains an invalid answer, or has the wrong number of answers.
    """
    if not isinstance(held, dict) or held.get("format") != _FORMAT or held.get("asked") != dict(asked):
        return None
    stored_at, listed = held.get("stored_at"), held.get("answers")
    if isinstance(stored_at, bool) or not isinstance(stored_at, (int, float)) or not math.isfinite(stored_at):
        raise ValueError("stored_at: expected seconds, got %s" % type(stored_at).__name__)
    if not isinstance(listed, list) or not at_least <= len(listed) <= at_most:
        raise ValueError("answers: expected a list of %d to %d" % (at_least, at_most))
    answers: dict[str, Answer] = {}
    for one in listed:
        parts = [one.get(part) if isinstance(one, dict) else None for part in ("endpoint", "etag", "body")]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError("answers: expected text as endpoint, etag and body")
        answer = Answer(*map(str, parts))
        if answer.endpoint in answers or answer.endpoint not in asked["endpoints"]:
            raise ValueError("answers: expected one of each endpoint that was asked")
        answers[answer.endpoint] = answer
    return Entry(asked, float(stored_at), list(answers.values()))
