# SPDX-License-Identifier: MIT
"""Keeps rendered files in step with documents and nodes, and records the outcome of each."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.reader import read_text
from ..config.templates import ServiceConfig, TemplateConfig
from ..core.applied import Applied, TroubledFile, TroubledFiles
from ..node import shapes
from . import drift
from .helper_client import HelperUnreachable, hand_over
from .lanes import Lanes
from .reads import Reads
from .services import Together

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

_log = logging.getLogger("xdp_gossip.templates")

#: Bytes of a template file.
MAX_SOURCE = 1 << 20
#: Seconds until what could not be tried (no helper, a full disk) is tried again, first and at most.
_RETRY, _RETRY_MOST = 2.0, 60.0
_POLL = 30.0
#: Seconds after which a file that is still pending counts as in trouble: what it waits for may never come.
_LONG_PENDING = 60.0
#: Requests to the helper at one time: fewer than it takes (``helper.server.MAX_CONNECTIONS``).
HANDED_OVER = 6
#: Renderings in a row that were overtaken by changes; the next one is made from the state of one moment.
_OVERTAKEN = 2
#: Seconds between two looks whether this node has caught up with the cluster.
_LOOK_EVERY = 0.2


class Rendered:
    """One template: what it read, its last outcome, and whether there is anything to do."""

    def __init__(self, config: TemplateConfig) -> None:
        self.config = config
        self.reads = Reads()
        self.complete = False  # the last rendering went to its end: what it read is all that it reads
        self.state = "pending"
        self.error = "not rendered yet"
        self.output = ""  # what a command said; for this host only, never in an answer to the fleet or in the log
        self.digest: str | None = None
        self.since_ms = self.now_ms()
        self.changed: str | None = None
        self.due = asyncio.Event()
        self.refused: bytes | None = None  # digest of content that was refused: not tried again
        self.working = True
        self.drift = ""  # how the file in place was changed by hand
        self.drifts = 0
        self.pace = drift.Pace()
        self.repair = False  # put right also what is to be left as it was changed: somebody asked for it
        self.tries = False  # what failed could not be tried, and is tried again
        self.anew = True  # to be rendered although nothing that it read has changed
        self.overtaken = 0  # renderings in a row during which something changed
        self.renderings = 0

    @staticmethod
    def now_ms() -> int:
        """The present time in milliseconds since 1970."""
        return int(time.time() * 1000)

    @classmethod
    def now(cls) -> str:
        """The present time as text."""
        return shapes.published_at(cls.now_ms())

    def settle(self, state: str, error: str = "", output: str = "") -> None:
        """Record the outcome of a rendering."""
        self.output = output
        if (state, error) != (self.state, self.error):
            self.since_ms = self.now_ms()
            if state == "applied":
                _log.info("template %s: %s is in place", self.config.name, self.config.path)
            else:
                level = logging.ERROR if state == "failed" else logging.WARNING
                _log.log(level, "template %s: %s: %s", self.config.name, state, error)
        self.state, self.error = state, error

    def is_busy(self) -> bool:
        """Whether the template is being rendered, or is about to be."""
        return self.working or self.due.is_set()

    def wants_repair(self) -> bool:
        """Whether the helper should replace a file that was changed by hand."""
        return self.repair and self.config.drift == "report"

    def renew(self) -> None:
        """Render the template again although none of its input has changed."""
        self.anew = True
        self.due.set()

    def drifted(self, text: str) -> None:
        """Record how the file was changed by hand, as the helper reports it; "" if it was not."""
        before, self.drift = self.drift, text
        if text == before:
            return
        if text and not before:
            self.drifts += 1
        if self.refused is not None:
            return  # what was in place before is not known here any more
        if not text:
            if self.state != "applied":
                self.renew()  # somebody else put it right
        elif self.config.drift == "report":
            self.settle("failed", text)
        elif not before:
            loop = asyncio.get_running_loop()
            delay = self.pace.delay(loop.time())
            self.settle("pending", f"{text}; to be put right in {delay:g} s")
            loop.call_later(delay, self.renew)

    def waits(self, why: str) -> None:
        """Record that the template cannot be rendered for the first time yet; not worth a log line each time."""
        if self.state == "pending":
            self.error = why

    def trouble(self) -> TroubledFile | None:
        """What other members are told when they ask for files in trouble; None when all is well."""
        state = "drifted" if self.drift else self.state
        if state == "applied" or (state == "pending" and self.now_ms() - self.since_ms < _LONG_PENDING * 1000):
            return None
        return TroubledFile(self.config.name, self.config.path, state, self.since_ms, self.error or self.drift)

    def json(self) -> dict[str, Any]:
        """One entry of GET /v1/rendered."""
        return {
            "name": self.config.name,
            "path": self.config.path,
            "state": self.state,
            "documents": dict(self.reads.documents),
            "digest": self.digest,
            "error": self.error,
            "output": self.output,
            "drift": self.drift,
            "drifts": self.drifts,
            "since": shapes.published_at(self.since_ms),
            "changed": self.changed,
            "renderings": self.renderings,
        }


class Rendering:
    """All templates of this agent. Make it inside the event loop."""

    def __init__(self, node_list: AsyncNodeList, templates: Sequence[TemplateConfig], socket: str) -> None:
        self._node_list = node_list
        self._socket = socket
        self._lanes = Lanes(node_list)
        # Made here, as before Python 3.10 they belong to the loop that they are made in.
        self._caught_up = asyncio.Event()
        self._places = asyncio.Semaphore(HANDED_OVER)
        self._groups: dict[object, asyncio.Lock] = {}
        self._rendered = [Rendered(config) for config in templates]
        self._services = self._together()
        self._tasks: list[asyncio.Task[None]] = []

    def _together(self) -> dict[str, Together]:
        members: dict[ServiceConfig, list[Rendered]] = {}
        for rendered in self._rendered:
            if rendered.config.service is not None:
                members.setdefault(rendered.config.service, []).append(rendered)
        return {
            service.name: Together(service, found, self._socket, self._places, self._took)
            for service, found in members.items()
        }

    def start(self) -> list[asyncio.Task[None]]:
        """Start rendering; the tasks run until :meth:`close`."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow()),
            loop.create_task(drift.follow(self._socket, self._drifted)),
            *(loop.create_task(self._keep(rendered)) for rendered in self._rendered),
        ]
        return self._tasks

    async def close(self) -> None:
        """Stop rendering. The helper still carries out a request that it has received."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lanes.close()

    def again(self) -> None:
        """Render everything again, including what was refused or changed by hand.

        A reload of the configuration calls this.
        """
        for rendered in self._rendered:
            rendered.refused = None
            rendered.repair = True
            rendered.renew()

    def outcomes(self) -> list[dict[str, Any]]:
        """The templates of GET /v1/rendered."""
        return [rendered.json() for rendered in self._rendered]

    def troubled(self) -> TroubledFiles:
        """The files that differ from what the documents say, in the order of the configuration."""
        found = [file for rendered in self._rendered if (file := rendered.trouble()) is not None]
        return TroubledFiles(len(self._rendered), len(found), tuple(found))

    def applied(self, key: str) -> Applied:
        """The outcome of the document ``key`` on this host: the worst of the templates that use it."""
        held = self._node_list.document(key)
        version = held.version if held else None
        worst = Applied("none")
        rank = ("none", "applied", "pending", "failed")
        for rendered in self._rendered:
            if rendered.complete and not rendered.reads.uses(key):
                continue
            read = rendered.reads.documents.get(key)
            if not rendered.reads.uses(key) or read != (str(version) if version else None):
                found = Applied("pending", None, f"{rendered.config.name}: {rendered.error or 'to be rendered'}")
            elif rendered.working:
                # What came of an earlier rendering says nothing about this one.
                found = Applied("pending", None, f"{rendered.config.name}: at work")
            elif rendered.drift:
                state = "failed" if rendered.config.drift == "report" else "pending"
                found = Applied(state, version, f"{rendered.config.name}: {rendered.error}")
            elif rendered.state == "failed" and rendered.tries:
                found = Applied("pending", version, f"{rendered.config.name}: {rendered.error}")
            elif rendered.state == "failed":
                found = Applied("failed", version, f"refused by {rendered.config.name}: {rendered.error}")
            elif rendered.state == "applied":
                found = Applied("applied", version)
            else:
                found = Applied("pending", version, f"{rendered.config.name}: {rendered.error or 'at work'}")
            if rank.index(found.state) > rank.index(worst.state):
                worst = found
        return worst

    def _drifted(self, found: dict[str, str]) -> None:
        for rendered in self._rendered:
            rendered.drifted(found.get(rendered.config.name, ""))

    async def _catch_up(self) -> None:
        """Wait until this node knows what the cluster knows: before that, what it holds may be old or missing."""
        told = False
        while (why := self._node_list.catching_up) != "":
            for rendered in self._rendered:
                rendered.waits(f"this node has not caught up with the cluster: {why}")
            if not told:
                told = True
                _log.info("templates wait until this node has caught up with the cluster: %s", why)
            await asyncio.sleep(_LOOK_EVERY)
        for rendered in self._rendered:
            rendered.waits("not rendered yet")
        self._caught_up.set()

    async def _follow(self) -> None:
        """Mark the templates whose input changed."""
        await self._catch_up()
        revision = self._node_list.revision
        for rendered in self._rendered:
            rendered.due.set()
        while True:
            found = await self._node_list.changes(revision, _POLL)
            revision = found.revision
            if not found.gap and not found.changes:
                continue
            keys = {change.document.key for change in found.changes if change.document is not None}
            nodes = any(change.kind == "node" for change in found.changes)
            for rendered in self._rendered:
                reads = rendered.reads
                uses_nodes = nodes and (reads.nodes is not None or reads.node is not None)
                if found.gap or uses_nodes or any(reads.uses(key) for key in keys):
                    rendered.due.set()

    async def _keep(self, rendered: Rendered) -> None:
        retry = _RETRY
        await self._caught_up.wait()
        while True:
            await rendered.due.wait()
            rendered.working = True
            # A burst: what comes in this time is rendered together.
            await asyncio.sleep(rendered.config.wait)
            rendered.due.clear()
            if not rendered.anew and rendered.reads.still_true(self._node_list):
                rendered.working = False  # a node was heard again, say, and is what it was
                continue
            rendered.anew = False
            could = await self._render(rendered)
            # What changed meanwhile is still to be rendered.
            rendered.working, rendered.tries = rendered.due.is_set(), not could
            if could:
                retry = _RETRY
            else:
                asyncio.get_running_loop().call_later(retry, rendered.renew)
                retry = min(2 * retry, _RETRY_MOST)

    async def _render(self, rendered: Rendered) -> bool:
        """Render a template and hand it over. Returns False if this could not be attempted."""
        config = rendered.config
        together = self._services[config.service.name] if config.service is not None else None
        source, why = await asyncio.get_running_loop().run_in_executor(None, read_text, config.source, MAX_SOURCE)
        if source is None:
            if together is not None:
                together.without(rendered)
            rendered.settle("failed", f"source: expected a readable template, got {why}")
            return False
        frozen = rendered.overtaken >= _OVERTAKEN
        rendered.renderings += 1
        made = await self._lanes.render(config.name, source, frozen)
        made.reads.close()
        rendered.reads, rendered.complete = made.reads, made.kind == "done"
        overtaken = not made.reads.still_true(self._node_list)
        rendered.overtaken = rendered.overtaken + 1 if overtaken else 0
        if overtaken:
            rendered.due.set()
            if not frozen:
                return True  # half old, half new: not to be used
        if made.kind != "done":
            if together is not None:
                together.without(rendered)
            waits = made.kind == "missing"
            rendered.settle("pending" if waits else "failed", made.error)
            return made.kind != "crashed"
        try:
            if together is not None:
                return await together.hand_over(rendered, made.content)
            if hashlib.sha256(made.content).digest() == rendered.refused:
                rendered.settle("failed", rendered.error, rendered.output)
                return True
            answer = await self._hand_over(rendered, made.content)
        except HelperUnreachable as error:
            rendered.settle("failed", str(error))
            return False
        return self._took(rendered, made.content, answer)

    @staticmethod
    def _took(rendered: Rendered, content: bytes, answer: dict[str, Any]) -> bool:
        """Record what the helper did with ``content``. Returns False if it could not attempt it."""
        digest = hashlib.sha256(content).digest()
        state, error = answer.get("state"), answer.get("error")
        if state == "waits":
            rendered.settle("pending", str(error))
            return True
        rendered.repair = False
        if state == "applied":
            rendered.refused = None
            rendered.drift = ""
            rendered.digest = f"sha256:{digest.hex()}"
            if answer.get("changed"):
                rendered.changed = rendered.now()
            rendered.settle("applied")
            return True
        if state == "drifted":
            rendered.drifted(rendered.drift or str(error))
            rendered.settle("failed", rendered.drift)
            return True
        rendered.settle("failed", f"{answer.get('stage')}: {error}"[:4000], str(answer.get("output", "")))
        if state == "refused":
            rendered.refused = digest
            return True
        return False

    async def _hand_over(self, rendered: Rendered, content: bytes) -> dict[str, Any]:
        """Give the content to the helper, in turn: it refuses more connections than it can serve.

        Those with one reload command follow each other there anyway: only one of them takes a place.
        """
        config = rendered.config
        turn = self._groups.setdefault(config.reload or config.name, asyncio.Lock())
        rendered.waits("queued: others are being put in place before it")
        async with turn, self._places:
            rendered.waits("being put in place")
            return await hand_over(self._socket, config, content, repair=rendered.wants_repair())
