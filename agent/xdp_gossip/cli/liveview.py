# SPDX-License-Identifier: MIT
"""Fetches the data that ``top`` shows. The cost of a refresh does not grow with the number of nodes and documents."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterable
from typing import Any

from ..api.client import ApiError, Client
from . import tables

#: Number of documents that are shown, newest first.
DOCUMENTS = 8
#: Number of nodes that are requested, which is more than a terminal has lines.
_NODES = 200
#: Width of a publish's progress bar, in characters.
_BAR = 30
#: Minimum number of seconds between two requests for the document list. A new request is needed after one of the newest
#: documents was deleted.
_REST = 5.0
_NOBODY: dict[str, Any] = {"members": 0, "confirmed": 0, "results": []}


class Publish:
    """The most recently published version: how many members have stored it, how many have applied it, and how long that
    took.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.began = time.monotonic()
        self.members = self.held = self.applied = 0
        self.renders = False
        self.refused: list[str] = []
        self.took: float | None = None

    def note(self, found: dict[str, Any]) -> None:
        """Store the result of a convergence request: which members have stored and applied the version."""
        results = found["results"]
        self.members = found["members"]
        self.held = sum(bool(result["holds"]) for result in results)
        states = [_applied(result) for result in results]
        self.renders = any(state != "none" for state in states)
        self.applied = found["confirmed"]
        self.refused = [
            f"{result['name'] or tables.address(result)}: {result['reason']}"
            for result, state in zip(results, states)
            if result["holds"] and state == "failed"
        ]
        settled = self.applied + states.count("failed") >= self.members or not self.renders
        if self.took is None and self.held == self.members and settled:
            self.took = time.monotonic() - self.began

    def lines(self) -> list[str]:
        """Return the lines to display about the publish: progress bars, time taken, and members that could not apply
        the version.
        """
        document = self.document
        what = "deleted" if document["deleted"] else "published"
        seconds = self.took if self.took is not None else time.monotonic() - self.began
        lines = [f"{document['key']} {what}: {bar(self.held, self.members)} hold it"]
        if self.renders:
            lines.append(f"{'':{len(document['key']) + len(what) + 2}} {bar(self.applied, self.members)} applied it")
        lines[-1] += f", after {seconds:.1f} s" if self.took is not None else f", {seconds:.0f} s"
        return lines + [f"refused by {text}" for text in self.refused[:4]]


def bar(count: int, of: int) -> str:
    filled = _BAR * count // of if of else 0
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {count} of {of}"


def _applied(result: dict[str, Any]) -> str:
    return str(result.get("applied", {}).get("state", "none"))


async def holders(client: Client, document: dict[str, Any]) -> dict[str, Any]:
    """Ask which members have stored and applied the version ``document``.

    If the version is a deletion, ask only which members have stored the deletion.
    """
    deleted = document["deleted"]
    try:
        return await client.convergence(
            document["key"], version=document["version"], deleted=deleted, applied=not deleted
        )
    except ApiError:  # the pekonode wire does not support convergence requests
        return _NOBODY


class View:
    """The data that the last refresh fetched from the agent."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        #: Nodes with problems first, then the local node, then other nodes; limited to the number that a terminal can
        #: show.
        self.nodes: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.held: dict[str, dict[str, Any]] = {}
        self.publish: Publish | None = None
        #: The error message if the agent does not answer; otherwise "".
        self.away = ""
        self._newest: dict[str, dict[str, Any]] = {}
        self._read_at: float | None = None
        self._stale = True
        self._before: tuple[Any, ...] = ()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The newest documents, at most ``DOCUMENTS`` of them."""
        return _newest(self._newest.values())

    async def look(self, client: Client, *, whole: bool = False) -> None:
        """Fetch all data from the agent; with ``whole``, fetch all nodes.

        Convergence is requested again only for documents whose result may have changed.
        """
        self.status, self.files, self.nodes = await asyncio.gather(
            client.status(), client.rendered(), _all_nodes(client) if whole else _some_nodes(client)
        )
        now = time.monotonic()
        if self._stale and (self._read_at is None or now - self._read_at >= _REST):
            self._stale, self._read_at = False, now
            found = [document async for document in client.each_document()]
            self._newest = {one["key"]: one for one in _newest(found)}
        shown = (self.status["digest"], [node["digest"] for node in self.nodes], [one["key"] for one in self.documents])
        asked = [one for one in self.documents if shown != self._before or self._open(one)]
        answers = await asyncio.gather(*(holders(client, one) for one in asked))
        self._before = shown
        self.held.update({one["key"]: found for one, found in zip(asked, answers)})
        self.held = {one["key"]: self.held.get(one["key"], _NOBODY) for one in self.documents}

    def _open(self, document: dict[str, Any]) -> bool:
        found = self.held.get(document["key"], _NOBODY)
        return bool(found["confirmed"] < found["members"])

    def note(self, changes: list[dict[str, Any]]) -> None:
        """Apply document changes to the list of the newest documents, so that the list need not be requested again."""
        for document in changes:
            if document["deleted"]:
                self._stale |= self._newest.pop(document["key"], None) is not None
            else:
                self._newest[document["key"]] = document
        self._newest = {one["key"]: one for one in self.documents}

    def missed(self) -> None:
        """Mark the document list as stale, because changes were missed. The next refresh requests the list again."""
        self._stale, self._read_at = True, None

    def rows(self) -> list[list[Any]]:
        """Return the newest documents as table rows."""
        rows = []
        for one in self.documents:
            found = self.held.get(one["key"], _NOBODY)
            results = found["results"]
            held = f"{sum(bool(result['holds']) for result in results)} of {found['members']}"
            states = [state for state in map(_applied, results) if state != "none"]
            applied = f"{states.count('applied')} of {len(states)}" if states else ""
            if refused := states.count("failed"):
                applied += f", {refused} refused"
            rows.append([one["key"], f"{one['size']} B", one["published_at"], tables.author(one), held, applied])
        return rows


def _newest(documents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return heapq.nlargest(DOCUMENTS, documents, key=lambda document: str(document["version"]))


async def _all_nodes(client: Client) -> list[dict[str, Any]]:
    return [node async for node in client.each_node("all")]


async def _some_nodes(client: Client) -> list[dict[str, Any]]:
    """Fetch a limited number of nodes: nodes with problems, the local node, then other alive nodes."""
    suspect, agent_down, dead, local, others = await asyncio.gather(
        client.nodes("suspect", limit=_NODES),
        client.nodes("agent_down", limit=_NODES),
        client.nodes("dead", limit=_NODES),
        client.node(),
        client.nodes("alive", limit=_NODES),
    )
    fine = [node for node in others["nodes"] if not node["local"]]
    return [*suspect["nodes"], *agent_down["nodes"], *dead["nodes"], local, *fine]
