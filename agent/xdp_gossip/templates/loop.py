# SPDX-License-Identifier: MIT
"""Renders each template again whenever its documents or nodes change, and records the outcome of each rendering."""

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
from .renderer import Sealing
from .services import Together

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

_log = logging.getLogger("xdp_gossip.templates")

#: Maximum bytes of a template file.
MAX_SOURCE = 1 << 20
#: First and longest delay, in seconds, before a retry after a temporary problem (no helper, a full disk).
_RETRY, _RETRY_MOST = 2.0, 60.0
_POLL = 30.0
#: Seconds after which the agent reports a file that is still pending as a problem, because its document may never
#: arrive.
_LONG_PENDING = 60.0
#: Maximum number of concurrent requests to the helper. The helper's own limit, ``helper.server.MAX_CONNECTIONS``, is
#: higher.
HANDED_OVER = 6
#: Number of consecutive renderings whose input changed before they ended, after which the next rendering uses a
#: snapshot.
_OVERTAKEN = 2
#: Seconds between two checks whether this node has caught up with the cluster, or is still isolated.
_LOOK_EVERY = 0.2


class Rendered:
    """The state of one template: the input and outcome of its last rendering, and whether the template must be rendered
    again.
    """

    def __init__(self, config: TemplateConfig) -> None:
        self.config = config
        self.reads = Reads()
        #: Whether the last rendering finished; only then does ``reads`` contain all its inputs.
        self.complete = False
        self.state = "pending"
        self.error = "not rendered yet"
        #: Output of a command; shown on this host only, never logged or sent to other members.
        self.output = ""
        self.digest: str | None = None
        self.since_ms = self.now_ms()
        self.changed: str | None = None
        self.due = asyncio.Event()
        #: Hash of the content that the helper refused. The agent does not send the refused content again.
        self.refused: bytes | None = None
        self.working = True
        #: Why the rendering has to wait although an input has changed; "" if it need not wait.
        self.held = ""
        #: How the file was changed by hand; "" if it was not changed.
        self.drift = ""
        self.drifts = 0
        self.pace = drift.Pace()
        #: Whether to replace a file that was changed by hand even if the template has ``drift: report``.
        self.repair = False
        #: Whether a temporary problem made the last attempt fail, so that the attempt must be repeated.
        self.tries = False
        #: Whether to render even if no input has changed.
        self.anew = True
        #: Number of consecutive renderings whose input changed before they ended.
        self.overtaken = 0
        self.renderings = 0

    @staticmethod
    def now_ms() -> int:
        """Return the current time in milliseconds since 1970."""
        return int(time.time() * 1000)

    @classmethod
    def now(cls) -> str:
        """Return the current time in the format of RFC 3339."""
        return shapes.published_at(cls.now_ms())

    def settle(self, state: str, error: str = "", output: str = "") -> None:
        """Record the outcome of a rendering. Log the outcome if it differs from the previous outcome."""
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
        """Whether the template is being rendered or will be rendered soon."""
        return self.working or self.due.is_set()

    def wants_repair(self) -> bool:
        """Whether a user asked the helper to replace a file that was changed by hand and whose template has ``drift:
        report``.
        """
        return self.repair and self.config.drift == "report"

    def renew(self) -> None:
        """Render the template again, even if no input has changed."""
        self.anew = True
        self.due.set()

    def drifted(self, text: str) -> None:
        """Record ``text``, in which the helper describes how the file was changed by hand; "" if it was not changed."""
        before, self.drift = self.drift, text
        if text == before:
            return
        if text and not before:
            self.drifts += 1
        if self.refused is not None:
            return  # after a refusal, the agent does not know the content that the helper has restored
        if not text:
            if self.state != "applied":
                # Render again, because the change by hand was undone.
                self.renew()
        elif self.config.drift == "report":
            self.settle("failed", text)
        elif not before:
            loop = asyncio.get_running_loop()
            delay = self.pace.delay(loop.time())
            self.settle("pending", f"{text}; to be put right in {delay:g} s")
            loop.call_later(delay, self.renew)

    def waits(self, why: str) -> None:
        """Record why the first rendering has to wait. The method does not log the reason, because the reason may change
        often.
        """
        if self.state == "pending":
            self.error = why

    def trouble(self) -> TroubledFile | None:
        """Return the entry that describes this file's problem to other members; None if there is no problem."""
        state = "drifted" if self.drift else self.state
        if state == "applied" or (state == "pending" and self.now_ms() - self.since_ms < _LONG_PENDING * 1000):
            return None
        return TroubledFile(self.config.name, self.config.path, state, self.since_ms, self.error or self.drift)

    def json(self) -> dict[str, Any]:
        """Return the entry of this template for GET /v1/rendered."""
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
    """Renders and installs all templates of this agent. Create the object inside the event loop.

    ``sealing``: what the workers need to open sealed documents; None on a host without a sealing key.
    """

    def __init__(
        self,
        node_list: AsyncNodeList,
        templates: Sequence[TemplateConfig],
        socket: str,
        sealing: Sealing | None = None,
    ) -> None:
        self._node_list = node_list
        self._socket = socket
        self._lanes = Lanes(node_list, sealing=sealing)
        # Before Python 3.10, events, semaphores and locks belong to the event loop in which they are created.
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
        """Start the tasks that render templates, and return them. The tasks run until :meth:`close`."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow()),
            loop.create_task(drift.follow(self._socket, self._drifted)),
            *(loop.create_task(self._keep(rendered)) for rendered in self._rendered),
        ]
        return self._tasks

    async def close(self) -> None:
        """Stop rendering. The helper still executes a request that it received before this call."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lanes.close()

    def again(self) -> None:
        """Render all templates again, including files that were refused or changed by hand.

        A reload of the configuration calls this method.
        """
        for rendered in self._rendered:
            rendered.refused = None
            rendered.repair = True
            rendered.renew()

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the value of ``templates`` in the answer of GET /v1/rendered: one entry for each template."""
        return [rendered.json() for rendered in self._rendered]

    def troubled(self) -> TroubledFiles:
        """Return the files that have problems, in the order of the configuration."""
        found = [file for rendered in self._rendered if (file := rendered.trouble()) is not None]
        return TroubledFiles(len(self._rendered), len(found), tuple(found))

    def applied(self, key: str) -> Applied:
        """Return the outcome of the document ``key`` on this host: the worst outcome of all templates that use the
        document.
        """
        held = self._node_list.document(key)
        version = held.version if held else None
        worst = Applied("none")
        rank = ("none", "applied", "pending", "failed")
        for rendered in self._rendered:
            if rendered.complete and not rendered.reads.uses(key):
                continue
            read = rendered.reads.documents.get(key)
            if not rendered.reads.uses(key) or read != (str(version) if version else None):
                why = rendered.held or rendered.error or "to be rendered"
                found = Applied("pending", None, f"{rendered.config.name}: {why}")
            elif rendered.working:
                # While the template is being rendered, ``state`` is still the outcome of the previous rendering.
                found = Applied("pending", None, f"{rendered.config.name}: {rendered.held or 'at work'}")
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
        """Wait until this node has caught up with the cluster, because its documents may be old or missing
        until then.
        """
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

    async def _not_isolated(self, rendered: Rendered) -> None:
        """Wait while this node is isolated.

        To an isolated node all other nodes seem to be gone, and newer documents do not reach it. So the file stays as
        it is until another member answers.
        """
        while self._node_list.isolated:
            rendered.held = "this node is isolated, so the file stays as it is"
            await asyncio.sleep(_LOOK_EVERY)
        rendered.held = ""

    async def _follow(self) -> None:
        """Wait for changes of documents and nodes, and schedule the templates whose input has changed."""
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
            # Wait for further changes, so that one rendering covers all changes within this time.
            await asyncio.sleep(rendered.config.wait)
            await self._not_isolated(rendered)
            rendered.due.clear()
            if not rendered.anew and rendered.reads.still_true(self._node_list):
                # No value has changed: for example, only the time of the last contact with a node is new.
                rendered.working = False
                continue
            rendered.anew = False
            could = await self._render(rendered)
            # If an input changed during the rendering, ``due`` is set and the template is rendered again.
            rendered.working, rendered.tries = rendered.due.is_set(), not could
            if could:
                retry = _RETRY
            else:
                asyncio.get_running_loop().call_later(retry, rendered.renew)
                retry = min(2 * retry, _RETRY_MOST)

    async def _render(self, rendered: Rendered) -> bool:
        """Render a template and send the output to the helper. Returns False if the caller must retry later."""
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
                return True  # discard the output, because it mixes old and new input
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
        """Record the helper's answer about ``content``. Returns False if the caller must retry later, because the
        helper could not write the file now.
        """
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
        """Send ``content`` to the helper.

        At most ``HANDED_OVER`` requests run at the same time, because the helper rejects connections above its limit.

        If several templates have the same reload command, only one request for these templates runs at a time, because
        the helper processes such requests one after the other.
        """
        config = rendered.config
        turn = self._groups.setdefault(config.reload or config.name, asyncio.Lock())
        rendered.waits("queued: others are being put in place before it")
        async with turn, self._places:
            rendered.waits("being put in place")
            return await hand_over(self._socket, config, content, repair=rendered.wants_repair())
