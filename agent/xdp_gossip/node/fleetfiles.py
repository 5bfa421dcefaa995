# SPDX-License-Identifier: MIT
"""Asks every present member for its rendered files that have failed or drifted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.applied import TroubledFiles
from ..core.events import FilesAnswered
from ..core.types import PRESENT, Address, Member
from . import shapes
from .changes import ChangeLog
from .runtime import Runtime

#: Maximum number of members that are asked at the same time. The answers of all these members must fit into the receive
#: buffer of this node's socket.
_AT_ONCE = 128
#: ``_ASK_AGAIN``: seconds after which a member that has not answered is asked again. ``_LOOK``: seconds between two
#: checks for new answers.
_ASK_AGAIN, _LOOK = 0.5, 0.1


@dataclass(frozen=True)
class FleetFiles:
    """All rendered files that have problems, on all members.

    ``members``: number of members. ``answered``: number of members that have answered. ``templates``: number of
    rendered files on the members that answered. The OpenAPI file lists the properties of each item of ``files`` and
    ``silent`` (schema ``FleetFiles``). Both lists are sorted by address. ``untold``: the number of files with problems
    that members did not list, because one answer has room for only a few files.
    """

    members: int
    answered: int
    templates: int
    files: list[Mapping[str, Any]]
    untold: int
    silent: list[Mapping[str, Any]]


class FilesInquiry:
    """One inquiry to all members about their rendered files."""

    def __init__(self, runtime: Runtime, log: ChangeLog) -> None:
        self._runtime = runtime
        self._log = log
        self._pending: set[int] = set()
        self._asked: dict[Address, float] = {}
        self._answers: dict[Address, TroubledFiles] = {}
        self._awaited: set[Address] = set()
        self._all_here = asyncio.Event()

    def on_answer(self, event: FilesAnswered) -> None:
        """Store a member's answer. Ignores an answer to another inquiry."""
        if event.query not in self._pending or event.address not in self._asked:
            return
        self._answers[event.address] = event.found
        self._awaited.discard(event.address)
        if not self._awaited:
            self._all_here.set()

    async def run(self, timeout: float) -> FleetFiles:
        """Ask until all present members have answered, ``timeout`` seconds have passed, or the node list is closed.

        Raises ``ProtocolError`` (unsupported_operation) on a wire that does not support this query.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        engine = self._runtime.engine
        members = [member for member in engine.members(self._runtime.now()) if member.state in PRESENT]
        others = [member.address for member in members if not member.local]
        self._ask([], loop.time())
        while not self._log.closed:
            missing = [address for address in others if address not in self._answers]
            now = loop.time()
            due = [address for address in missing if now - self._asked.get(address, -1e9) >= _ASK_AGAIN][:_AT_ONCE]
            if due:
                self._ask(due, now)
            if not missing or now >= deadline:
                break
            self._awaited = set(due)
            self._all_here.clear()
            try:
                await asyncio.wait_for(self._all_here.wait(), min(_LOOK, deadline - now))
            except asyncio.TimeoutError:
                continue
        for member in members:
            if member.local:
                self._answers[member.address] = engine.files_source()
        return self._found(members)

    def _ask(self, addresses: list[Address], now: float) -> None:
        self._pending.add(self._runtime.call(lambda engine, time: engine.query_files(addresses, time)))
        self._asked.update(dict.fromkeys(addresses, now))

    def _found(self, members: list[Member]) -> FleetFiles:
        files: list[Mapping[str, Any]] = []
        silent: list[Mapping[str, Any]] = []
        templates = untold = 0
        for member in sorted(members, key=lambda member: member.address.order()):
            who = {"addr": member.address.ip, "port": member.address.port, "name": member.node.name}
            answer = self._answers.get(member.address)
            if answer is None:
                silent.append({**who, "version": member.record.agent_version if member.record else ""})
                continue
            templates += answer.templates
            untold += max(0, answer.troubled - len(answer.files))
            files += [
                {
                    **who,
                    "template": file.template,
                    "path": file.path,
                    "state": file.state,
                    "since": shapes.published_at(file.since_ms),
                    "error": file.error,
                }
                for file in answer.files
            ]
        return FleetFiles(len(members), len(members) - len(silent), templates, files, untold, silent)
