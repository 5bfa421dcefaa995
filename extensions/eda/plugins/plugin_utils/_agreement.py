# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: tracks whether all members have the same documents. No I/O, no clock."""

from __future__ import annotations

import typing as t

#: An event lists at most this many of the members whose documents differ.
MAX_LAGGARDS = 20


class Finding:
    """A member's answer to the question which other members have the same documents as this member, after validation.

    Raises ``ValueError`` if the answer is malformed.
    """

    def __init__(self, answer: t.Mapping[str, t.Any]) -> None:
        results = answer.get("results")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise ValueError("results: expected a list of objects")
        self.digest = _text(answer, "digest", 64)
        self.converged = answer.get("converged") is True
        self.members = len(results)
        behind = [result for result in results if result.get("holds") is not True]
        self.confirmed = self.members - len(behind)
        self.laggards = [
            {name: _text(result, name, limit) for name, limit in (("addr", 64), ("name", 255), ("reason", 200))}
            for result in behind[:MAX_LAGGARDS]
        ]

    def told(self) -> dict[str, t.Any]:
        """Return those fields of the answer that an event contains."""
        return {name: getattr(self, name) for name in ("digest", "members", "confirmed", "laggards")}


def _text(entry: t.Mapping[str, t.Any], name: str, limit: int) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"{name}: expected text of at most {limit} characters")
    return value


class Agreement:
    """Creates events when the members of a fleet agree and when they differ.

    One event follows when all members have the same documents after a change, and another event when members have had
    different documents for a while.
    """

    def __init__(self, settle: float) -> None:
        """``settle``: seconds for which members may have different documents before an event reports the difference.

        Every publish causes a difference between members for a short time.
        """
        self._settle = settle
        self._told: str | None = None  # documents digest in the last event; "" if the last event was convergence_lost
        self._since: float | None = None

    def observe(self, finding: Finding, now: float, tell_initial: bool = False) -> list[dict[str, t.Any]]:
        """Return a list of at most one event for the answer ``finding``.

        ``now``: monotonic time in seconds at which the answer was received. With ``tell_initial``, the first answer
        also causes an event.
        """
        first = self._told is None
        if finding.converged:
            self._since = None
            if self._told == finding.digest:
                return []
            self._told = finding.digest
            return [] if first and not tell_initial else [_event("convergence_reached", finding, first)]
        if self._since is None:
            self._since = now
        if self._told == "" or now - self._since < self._settle:
            return []
        self._told = ""
        return [] if first and not tell_initial else [_event("convergence_lost", finding, first)]

    def due(self) -> float | None:
        """Return when ``observe`` reports the current difference between members as an event.

        The result is a monotonic time in seconds, or ``None`` if no event is pending.
        """
        return None if self._since is None or self._told == "" else self._since + self._settle


def _event(kind: str, finding: Finding, first: bool) -> dict[str, t.Any]:
    return {"type": kind, "convergence": finding.told(), "initial": first}
