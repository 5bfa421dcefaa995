# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: follows a fleet through whichever member answers, and puts what changed into a queue.

The change feed of a member only says when to look. What is told follows from comparing what the member lists with what
was told before, so a gap in the feed, a restart of the agent or another member in its place loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._agreement import Agreement, Finding
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._documents import Document, DocumentView
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._events import withhold_templates
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._member import (
    Feed,
    Member,
    MemberFailed,
    NodeList,
)
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._nodes import NodeView
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._options import Options
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError, Endpoint, Settings

#: Seconds between two looks, at least: what changes meanwhile is told together.
_BREATH = 0.2
#: Seconds between two looks while the members do not agree, because nothing in the feed says when they do: just after
#: a publish, and when it lasts.
_LOOK_AGAIN, _LOOK_LATER = 0.25, 2.0
#: Seconds of the first pause when no member answered, and of the longest.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: Complaints about what members list that are kept, in order not to repeat them.
_MAX_COMPLAINTS = 1000

_log = logging.getLogger("xdp_gossip.fleet.membership")


class _Bell:
    """One request at a time to a member's change feed; an asynchronous context manager."""

    def __init__(self, member: Member, options: Options) -> None:
        self._member = member
        self._options = options
        self._revision: int | None = None
        self._request: asyncio.Future[Feed] | None = None
        self.has_rung = False

    async def __aenter__(self) -> _Bell:
        return self

    async def __aexit__(self, *dummy: t.Any) -> None:
        if self._request is not None:
            self._request.cancel()
            await asyncio.gather(self._request, return_exceptions=True)

    async def wait(self, revision: int, seconds: float) -> dict[str, Document]:
        """Wait for a change, but no longer than ``seconds``; returns the tombstones among what changed.

        ``revision`` is where the feed begins, the first time. Raises ``MemberFailed``.
        """
        if self._request is None:
            # On from the last answer, not from the newest NodeList: what lies between the two may be missing in the
            # documents that were read then.
            since = revision if self._revision is None else self._revision
            feed = self._member.changes(since, self._options.poll, self._options.prefix)
            self._request = asyncio.ensure_future(feed)
        # Not cancelled when the time is up: the agent would go on to serve it, and only so many may wait there.
        await asyncio.wait({self._request}, timeout=seconds)
        if not self._request.done():
            return {}
        answer, self._request = self._request.result(), None
        self._revision, self.has_rung = answer.revision, True
        return answer.tombstones


class Watcher:
    """One event source."""

    def __init__(self, queue: asyncio.Queue[t.Any], options: Options) -> None:
        self._queue = queue
        self._options = options
        self._settings = options.settings()
        self._nodes = NodeView()
        self._documents = DocumentView()
        self._agreement = Agreement(options.settle)
        self._cluster: str | None = None
        self._heard = _now()
        self._told_silence = False
        self._complaints: set[str] = set()

    async def run(self) -> t.NoReturn:
        """Follow the fleet until cancelled."""
        endpoints: list[Endpoint] = list(self._settings.endpoints)
        pauses = 0
        while True:
            failures = []
            for place, endpoint in enumerate(endpoints, 1):
                reason, served = await self._follow(endpoint)
                _log.warning("%s: %s", endpoint.url, reason)
                if served:
                    # The others get their turn at once, this one only after them.
                    endpoints = endpoints[place:] + endpoints[:place]
                    pauses = 0
                    break
                failures.append({"endpoint": endpoint.url, "reason": reason})
            else:
                await self._tell_silence(failures)
                await asyncio.sleep(min(_PAUSE * 2 ** min(pauses, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1.0))
                pauses += 1
            self._settings = self._read_settings()

    def _read_settings(self) -> Settings:
        """The connection options again: the token or a certificate may have been replaced."""
        try:
            return self._options.settings()
        except ConfigError as exc:
            _log.error("%s", exc)
            return self._settings

    async def _follow(self, endpoint: Endpoint) -> tuple[str, bool]:
        """Stay with one member as long as it answers; why it does not any more, and whether its feed ever did."""
        bell: _Bell | None = None
        try:
            async with Member(endpoint, self._settings) as member, _Bell(member, self._options) as bell:
                nodes, finding = await self._look(member, {})
                _log.info("%s: following the fleet from here, %d nodes", endpoint.url, len(nodes.nodes))
                while True:
                    tombstones = await bell.wait(nodes.revision, self._patience(finding))
                    await asyncio.sleep(max(0.0, self._heard + _BREATH - _now()))
                    nodes, finding = await self._look(member, tombstones)
        except (MemberFailed, ConfigError) as exc:
            return str(exc), bell is not None and bell.has_rung

    async def _look(self, member: Member, tombstones: dict[str, Document]) -> tuple[NodeList, Finding]:
        """Read what the member lists, and tell what is new in it."""
        nodes = await member.nodes()
        self._check(nodes)
        # Before the documents: when these have the digest that all agreed on, they are what all hold.
        finding = await member.agreement()
        documents = await member.documents(self._options.prefix)
        agreed = finding.converged and finding.digest == documents.digest
        self._complain(member.endpoint, nodes.problems + documents.problems)

        now, tell = _now(), self._options.initial
        events = [{"type": "fleet_reachable"}] if self._told_silence else []
        self._heard, self._told_silence = now, False
        events += self._nodes.compare(nodes.nodes, now, tell)
        events += self._documents.compare(documents.documents, tombstones, agreed, tell)
        events += self._agreement.observe(finding, now, tell)
        for event in events:
            await self._tell(dict(event, cluster=nodes.cluster, endpoint=member.endpoint.url))
        return nodes, finding

    def _check(self, nodes: NodeList) -> None:
        """Refuse what would make a whole fleet seem to come or go. Raises ``MemberFailed``."""
        if self._cluster is None:
            self._cluster = nodes.cluster
        if nodes.cluster != self._cluster:
            raise MemberFailed(f"expected a member of cluster {self._cluster!r}, got one of {nodes.cluster!r}")
        if any(node["local"] and node["state"] == "left" for node in nodes.nodes):
            raise MemberFailed("it has left the fleet")

    def _complain(self, endpoint: Endpoint, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
                self._complaints.add(problem)
                _log.warning("%s: left out: %s", endpoint.url, problem)

    def _patience(self, finding: Finding) -> float:
        """Seconds until the next look at the latest."""
        due = [when - _now() for when in (self._nodes.due(), self._agreement.due()) if when is not None]
        if not finding.converged:
            due.append(_LOOK_LATER if self._agreement.due() is None else _LOOK_AGAIN)
        return max(0.0, min(due, default=2 * self._options.poll))

    async def _tell_silence(self, failures: list[dict[str, str]]) -> None:
        if self._told_silence or _now() - self._heard < self._options.settle:
            return
        self._told_silence = True
        _log.error("no member of the fleet answers: %s", "; ".join(" ".join(pair.values()) for pair in failures))
        await self._tell({"type": "fleet_unreachable", "attempts": failures, "cluster": self._cluster or ""})

    async def _tell(self, event: dict[str, t.Any]) -> None:
        event = {"initial": False, "endpoint": "", **event}
        if self._options.wants(event):
            await self._queue.put(withhold_templates(event))
            await asyncio.sleep(0)  # a queue without a limit would never let the rules run


def _now() -> float:
    return time.monotonic()
