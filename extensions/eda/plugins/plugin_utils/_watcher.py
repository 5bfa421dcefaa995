# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: reads the nodes and documents of a fleet from one member, and puts events into a queue.

The source uses the change feed of a member only to learn when to read the member's lists. The source compares the nodes
and documents in the lists with the events that the source has reported, and creates an event for each difference. A gap
in the feed, a restart of the agent or a change to another member therefore loses no event.
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
from ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._zones import ZoneView
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError, Endpoint, Settings

#: Minimum seconds between two reads of the lists. A read finds all changes since the previous read.
_BREATH = 0.2
#: Seconds between two reads of the lists while members have different documents. The first value applies before the
#: "convergence_lost" event, the second value after it. The feed does not report convergence, so the source has to poll.
_LOOK_AGAIN, _LOOK_LATER = 0.25, 2.0
#: First and longest pause, in seconds, after all members failed to answer.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: Maximum number of stored warnings about members' lists. A stored warning is not logged a second time.
_MAX_COMPLAINTS = 1000

_log = logging.getLogger("xdp_gossip.fleet.membership")


class _Bell:
    """Waits for changes in a member's change feed with one request at a time; an asynchronous context manager."""

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

    async def wait(self, revision: int, seconds: float) -> Feed:
        """Wait for a change, at most ``seconds``. Returns the answer of the feed, which is empty without a change.

        The first call returns changes after ``revision`` of the feed; later calls return changes after the previous
        answer. Raises ``MemberFailed``.
        """
        if self._request is None:
            # Continue after the feed's last answer. A request that continues after the revision of the newest NodeList
            # would miss the tombstones of documents that were deleted between the feed's last answer and that revision.
            since = revision if self._revision is None else self._revision
            feed = self._member.changes(since, self._options.poll, self._options.prefix)
            self._request = asyncio.ensure_future(feed)
        # Do not cancel the request after ``seconds``. The agent would still serve a cancelled request, and the agent
        # limits the number of waiting requests.
        await asyncio.wait({self._request}, timeout=seconds)
        if not self._request.done():
            return Feed(revision, {})
        answer, self._request = self._request.result(), None
        self._revision, self.has_rung = answer.revision, True
        return answer


class Watcher:
    """One event source, which puts the events of a fleet into a queue."""

    def __init__(self, queue: asyncio.Queue[t.Any], options: Options) -> None:
        self._queue = queue
        self._options = options
        self._settings = options.settings()
        self._nodes = NodeView()
        # A rulebook that does not want events about zones gets those about all nodes.
        self._zones = ZoneView() if "zone_lost" in options.events else None
        self._documents = DocumentView()
        self._agreement = Agreement(options.settle)
        self._cluster: str | None = None
        self._heard = _now()
        self._told_silence = False
        self._complaints: set[str] = set()

    async def run(self) -> t.NoReturn:
        """Put events into the queue until the task is cancelled."""
        endpoints: list[Endpoint] = list(self._settings.endpoints)
        pauses = 0
        while True:
            failures = []
            for place, endpoint in enumerate(endpoints, 1):
                reason, served = await self._follow(endpoint)
                _log.warning("%s: %s", endpoint.url, reason)
                if served:
                    # Try all other endpoints next, without a pause, and this endpoint last.
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
        """Read the connection options again, because the token or a certificate may have been replaced."""
        try:
            return self._options.settings()
        except ConfigError as exc:
            _log.error("%s", exc)
            return self._settings

    async def _follow(self, endpoint: Endpoint) -> tuple[str, bool]:
        """Report changes in the fleet according to the member at ``endpoint``, until this member fails to answer.

        Returns the reason for the failure, and whether the member's change feed has answered at least once.
        """
        bell: _Bell | None = None
        try:
            async with Member(endpoint, self._settings) as member, _Bell(member, self._options) as bell:
                nodes, finding = await self._look(member, {})
                _log.info("%s: following the fleet from here, %d nodes", endpoint.url, len(nodes.nodes))
                while True:
                    feed = await bell.wait(nodes.revision, self._patience(finding))
                    for refusal in feed.refusals:
                        about = {"cluster": nodes.cluster, "endpoint": endpoint.url}
                        await self._tell({"type": "document_refused", "refusal": refusal, **about})
                    await asyncio.sleep(max(0.0, self._heard + _BREATH - _now()))
                    nodes, finding = await self._look(member, feed.tombstones)
        except (MemberFailed, ConfigError) as exc:
            return str(exc), bell is not None and bell.has_rung

    async def _look(self, member: Member, tombstones: dict[str, Document]) -> tuple[NodeList, Finding]:
        """Read the member's lists, and put an event for each difference into the queue."""
        nodes = await member.nodes()
        self._check(nodes)
        # First ask which members have the same documents, then read the documents. If the digest of the documents
        # equals the digest in the answer to the first request, all members have exactly these documents.
        finding = await member.agreement()
        documents = await member.documents(self._options.prefix)
        agreed = finding.converged and finding.digest == documents.digest
        self._complain(member.endpoint, nodes.problems + documents.problems)

        now, tell = _now(), self._options.initial
        events = [{"type": "fleet_reachable"}] if self._told_silence else []
        self._heard, self._told_silence = now, False
        changes = self._nodes.compare(nodes.nodes, now, tell)
        events += changes if self._zones is None else self._zones.sift(changes, nodes.nodes, now)
        events += self._documents.compare(documents.documents, tombstones, agreed, tell)
        events += self._agreement.observe(finding, now, tell)
        for event in events:
            await self._tell(dict(event, cluster=nodes.cluster, endpoint=member.endpoint.url))
        return nodes, finding

    def _check(self, nodes: NodeList) -> None:
        """Raise ``MemberFailed`` if the member belongs to another cluster, has left the fleet or is isolated.

        Without this check, the NodeList of a member that has left or belongs to another cluster would cause join or
        dead events for all nodes.
        """
        if self._cluster is None:
            self._cluster = nodes.cluster
        if nodes.cluster != self._cluster:
            raise MemberFailed(f"expected a member of cluster {self._cluster!r}, got one of {nodes.cluster!r}")
        if any(node["local"] and node["state"] == "left" for node in nodes.nodes):
            raise MemberFailed("it has left the fleet")
        if nodes.isolated:
            raise MemberFailed("it is isolated: no other member answers it")

    def _complain(self, endpoint: Endpoint, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
                self._complaints.add(problem)
                _log.warning("%s: left out: %s", endpoint.url, problem)

    def _patience(self, finding: Finding) -> float:
        """Return the seconds after which to read the lists again even if the feed reports no change."""
        zones_due = None if self._zones is None else self._zones.due()
        due = [when - _now() for when in (self._nodes.due(), zones_due, self._agreement.due()) if when is not None]
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
            await asyncio.sleep(0)  # put() on a queue without a limit does not let other tasks run


def _now() -> float:
    return time.monotonic()
