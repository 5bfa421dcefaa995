# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: evaluates which members have a document, and why other members do not have it. Python 3.8
or later.
"""

from __future__ import annotations

import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, number_of, text_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import BadAnswer, ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._versions import newest, older

#: Reasons why a member does not have the document. Each reason is the name of a list in a module's results.
KINDS = ("missing", "stale", "mismatched")


def check_wait(wait: str) -> str:
    """Return ``wait`` if it is none, majority, all or a whole number above 0. Otherwise raise ``ConfigError``."""
    number = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 7 else 0
    if number > 0 or wait in ("none", "majority", "all"):
        return wait
    raise ConfigError("wait: expected none, majority, all or a number of members, got %r" % clip(wait))


def enough(wait: str, confirmed: int, members: int, known: int) -> bool:
    """Return whether the option ``wait`` is satisfied if ``confirmed`` of ``members`` present members have the
    document.

    ``known`` is the number of known members, dead ones included, of which ``majority`` requires more than half.
    """
    if wait == "all":
        return confirmed >= members
    if wait == "majority":
        return confirmed > known // 2
    return confirmed >= int(wait)


def refused(result: dict[str, t.Any]) -> bool:
    """Return whether the member that ``result`` describes has the document, but failed to write the files that it
    renders from this version of the document.
    """
    applied = result.get("applied")
    if result.get("holds") is not True or not isinstance(applied, dict):
        return False
    return applied.get("state") == "failed" and applied.get("version") in (None, result.get("version"))


class Question:
    """A question to an agent: which members have a document?

    A member must have the document ``key`` with this ``version`` or ``digest``. With ``absent``, a member must not have
    the document, and ``version`` is the version of the deletion. Without ``key``, all members must have the same
    documents.
    """

    def __init__(
        self,
        key: str | None = None,
        version: str | None = None,
        digest: str | None = None,
        absent: bool = False,
        applied: bool = False,
    ) -> None:
        self.key = key
        self.version = version
        self.digest = digest
        self.absent = absent
        #: Whether members must also have written the files that they render from the document.
        self.applied = applied

    def parameters(self) -> dict[str, str | None]:
        """Return the question as query parameters for ``GET /v1/convergence``."""
        deleted = "1" if self.absent else None
        return {
            "key": self.key,
            "version": self.version,
            "digest": self.digest,
            "deleted": deleted,
            "applied": "1" if self.applied else None,
        }

    def __str__(self) -> str:
        if self.key is None:
            return "the same state"
        text = "%sdocument %r" % ("no " if self.absent else "", clip(self.key))
        return text + (" version %s" % clip(self.version) if self.version else "")


class Convergence:
    """The checked answer of an agent to a :class:`Question`, with the result of each member. Raises ``BadAnswer``."""

    def __init__(self, answer: dict[str, t.Any], applied: bool = False) -> None:
        self._applied = applied
        self.converged = answer.get("converged") is True
        self.members = number_of(answer, "members")
        self.confirmed = number_of(answer, "confirmed")
        self.digest = text_of(answer, "digest")
        #: Number of known members, and how many of them are dead or have no running agent. An older agent reports only
        #: the present members.
        self.known = number_of(answer, "known") if "known" in answer else self.members
        self.absent = {state: number_of(answer, state) if state in answer else 0 for state in ("dead", "agent_down")}
        results = answer.get("results")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise BadAnswer("convergence: expected a list of objects as results")
        if applied and not all(isinstance(result.get("applied"), dict) for result in results):
            raise BadAnswer("convergence: expected the field `applied` in each result")
        self.results: list[dict[str, t.Any]] = results

    def replace(self, results: list[dict[str, t.Any]], wait: str) -> None:
        """Replace the results of the members by ``results``, and count again how many members have the document."""
        self.results = results
        self.members = len(results)
        self.confirmed = self.members - len(self.laggards)
        self.converged = enough(wait, self.confirmed, self.members, self.known)

    def counts(self) -> dict[str, int]:
        """Return the numbers of members for a module's results."""
        return dict(self.absent, members=self.members, confirmed=self.confirmed, known=self.known)

    def describe_absent(self) -> str:
        """Return a sentence about the known members that are absent; "" if there are none."""
        absent = ["%d %s" % (count, state) for state, count in self.absent.items() if count]
        return " Of %d known members, %s." % (self.known, " and ".join(absent)) if absent else ""

    @property
    def laggards(self) -> list[dict[str, t.Any]]:
        """Return the results of the members that do not have the document. If the question has ``applied`` set, also
        return the members that have not written the files that they render from the document.
        """
        return [result for result in self.results if not self._counts(result)]

    def _counts(self, result: dict[str, t.Any]) -> bool:
        if result.get("holds") is not True or not self._applied:
            return result.get("holds") is True
        applied = result["applied"]
        done = applied.get("state") == "applied" and applied.get("version") == result.get("version")
        return bool(done or applied.get("state") == "none")

    @property
    def final(self) -> bool:
        """Return true if further waiting is useless, because every laggard has refused to write the files that it
        renders from the document.
        """
        return self._applied and all(refused(result) for result in self.laggards)

    def kinds(self, question: Question) -> dict[str, list[dict[str, t.Any]]]:
        """Return a dictionary that maps each reason to the list of laggards for which the reason holds. Each laggard is
        in exactly one list.

        A member is stale if its version is older than the version in the question. If the question has no version, a
        member is stale if its version is older than the newest version of the members that have the document. If no
        member has the document, no member is stale.
        """
        wanted = question.version or newest(result.get("version") for result in self.results if result.get("holds"))
        kinds = KINDS + (("refused", "pending") if question.applied else ())
        found: dict[str, list[dict[str, t.Any]]] = {kind: [] for kind in kinds}
        for result in self.laggards:
            if result.get("holds") is True:
                found["refused" if refused(result) else "pending"].append(result)
            elif not result.get("version") and (question.key is not None or not result.get("digest")):
                found["missing"].append(result)
            elif older(result.get("version"), wanted):
                found["stale"].append(result)
            else:
                found["mismatched"].append(result)
        return found

    def describe_laggards(self, limit: int = 10) -> str:
        """Return one line of text that describes at most ``limit`` laggards."""
        shown = []
        for result in self.laggards[:limit]:
            text = "%s (%s:%s, %s)" % (
                clip(str(result.get("name") or "?"), 80),
                clip(str(result.get("addr")), 64),
                clip(str(result.get("port")), 8),
                clip(str(result.get("state")), 16),
            )
            if result.get("version"):
                text += " has version " + clip(str(result["version"]), 80)
            reason = result.get("reason") or (refused(result) and "refused: %s" % result["applied"].get("error"))
            if reason:
                text += ": " + clip(str(reason), 160)
            elif result.get("holds") is True:
                text += ": has not applied it yet"
            shown.append(text)
        more = len(self.laggards) - len(shown)
        return "; ".join(shown) + ("; and %d more" % more if more > 0 else "") or "nobody that is known"
