# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what of the NodeList is kept between runs, and for how long it counts.

Cache plugins forget what is older than their timeout, and with it the entity tag by which a member could say that
nothing has changed. So an entry carries its own time and is kept for longer than it counts.
"""

from __future__ import annotations

import collections.abc as c
import math
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._source import Answer

#: Seconds for which an entry is kept to be asked with, after it has ceased to count.
RETENTION = 7 * 86400

_FORMAT = 2


class Entry:
    """Answers that were true at ``stored_at`` (seconds since 1970) to the question ``asked``."""

    def __init__(self, asked: c.Mapping[str, t.Any], stored_at: float, answers: c.Sequence[Answer]) -> None:
        self.asked = dict(asked)
        self.stored_at = stored_at
        self.answers = list(answers)

    def counts(self, timeout: int, now: float) -> bool:
        """Whether it is younger than ``timeout`` seconds; 0 means forever, as in Ansible's own cache plugins.

        An entry from the future is not young: somebody's clock was wrong, or somebody wrote it.
        """
        age = now - self.stored_at
        return age >= 0 and (timeout == 0 or age < timeout)

    def encode(self) -> dict[str, t.Any]:
        """For a cache plugin. Answers are text, which no plugin makes anything else of."""
        answers = [{"endpoint": each.endpoint, "etag": each.etag, "body": each.body} for each in self.answers]
        return {"format": _FORMAT, "asked": self.asked, "stored_at": self.stored_at, "answers": answers}


def decode(held: t.Any, asked: c.Mapping[str, t.Any], at_least: int, at_most: int) -> Entry | None:
    """What a cache plugin gave back; ``None`` when it answers another question than ``asked``.

    A cache is as little to be trusted as a member: its answers are checked in the same way, and there must be
    ``at_least`` to ``at_most`` of them, of different endpoints that were asked. Raises ``ValueError``.
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
