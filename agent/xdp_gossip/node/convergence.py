# SPDX-License-Identifier: MIT
"""Determines, from one member, which members of the fleet hold a document.

Every heartbeat carries its sender's documents digest. A member with the same digest as this member holds the same
documents. This member asks members with a different digest directly which version of the document they hold, because
the difference may come from an unrelated document.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.events import AppliedAnswered, QueryAnswered
from ..core.interface import Asked, ProtocolError
from ..core.types import PRESENT, Address, Member, State, Version
from .changes import ChangeLog
from .runtime import Runtime

#: Seconds to wait for a member's answer to a query, even if the caller's timeout is shorter.
_ANSWER = 1.0
_NO_ANSWER = "no answer yet"
#: Reason for not confirming a member: a power failure now would make the member lose the document.
_NOT_STORED = "not on its disk yet"
#: Seconds between two queries to the same member, if the member does not hold the document yet.
_ASK_AGAIN = 0.25


#: The error message of a request that an isolated member refuses.
_ISOLATED = (
    "this member is isolated: no other member answers it, so it can confirm nothing; check the network of its host, "
    "or ask another member"
)


def refuse_isolated(isolated: bool) -> None:
    """Raise ``ProtocolError`` (isolated) if ``isolated`` is true."""
    if isolated:
        raise ProtocolError("isolated", _ISOLATED)


@dataclass(frozen=True)
class Voters:
    """The known nodes that have not left, which are the base of a majority.

    ``dead`` and ``agent_down``: how many of the ``known`` nodes are in these states.
    """

    known: int
    dead: int
    agent_down: int

    @classmethod
    def among(cls, members: Sequence[Member], displaced: int = 0) -> Voters:
        """Count the voters among ``members``, which are all nodes that this node knows, and ``displaced`` dead nodes.

        A seed that never answered counts until its timeout. If no other node was ever heard, the seeds that never
        answered stay voters, because one of them may be a member of a running cluster.
        """
        stay = [member for member in members if member.state is not State.LEFT]
        if any(_was_heard(member) for member in stay if not member.local):
            stay = [member for member in stay if member.local or member.state in PRESENT or _was_heard(member)]
        states = [member.state for member in stay]
        return cls(len(stay) + displaced, states.count(State.DEAD) + displaced, states.count(State.AGENT_DOWN))


def _was_heard(member: Member) -> bool:
    return bool(member.incarnation or member.sequence)


@dataclass(frozen=True)
class Convergence:
    """The result of an inquiry. The OpenAPI file lists the properties of each item of ``results`` (schema
    ``Convergence``).

    ``members``: number of present members, which were checked. ``known``: number of known nodes that have not left,
    the base of a majority. ``dead`` and ``agent_down``: how many of the known nodes are in these states.
    """

    converged: bool
    members: int
    confirmed: int
    elapsed: float
    digest: str
    results: list[Mapping[str, Any]] = field(default_factory=list)
    known: int = 0
    dead: int = 0
    agent_down: int = 0


@dataclass(frozen=True)
class Wanted:
    """What an inquiry expects members to store: the document ``key``; if ``key`` is None, the same documents as this
    node.

    If ``deleted`` is true, members should not hold the document. If ``version`` is also given, members must store the
    tombstone of that version or a later tombstone. A member without a tombstone could still receive the deleted
    document from another member.
    """

    key: str | None
    version: str | None
    digest: str | None
    deleted: bool = False
    applied: bool = False

    def met_by(self, version: str | None, digest: str | None) -> bool:
        """Whether a member that holds this version and content digest satisfies the inquiry.

        A tombstone has a version but no content, so its ``digest`` is None.
        """
        if self.deleted:
            known = self.version is None or (version is not None and not _older(version, self.version))
            return digest is None and known
        if self.digest is not None and digest != self.digest:
            return False
        if self.version is not None:
            return version == self.version
        return version is not None and digest is not None

    def missed_by(self, version: str | None, digest: str | None) -> str:
        """Explain why a member that holds this version and content digest does not satisfy the inquiry."""
        if version is None:
            return "has not heard of the deletion" if self.deleted else "has no such document"
        return f"holds version {version}" if digest is not None else f"deleted it with version {version}"


def _speaks_of(result: Mapping[str, Any]) -> bool:
    """Whether a member's report about its rendered files refers to the version that the member holds.

    If the member holds a tombstone, its rendered files use no version of the document, so the reported version must be
    None.
    """
    held = None if result["deleted"] else result["version"]
    return bool(result["applied"]["version"] == held)


def _refused(result: Mapping[str, Any]) -> bool:
    return bool(result["holds"] and result["applied"]["state"] == "failed" and _speaks_of(result))


def _unknown(result: Mapping[str, Any]) -> bool:
    return bool(result["applied"]["error"] == _NO_ANSWER)


def _older(version: str, than: str) -> bool:
    return Version.parse(version) < Version.parse(than)


class Inquiry:
    """One inquiry to all members about the document in ``wanted``."""

    def __init__(self, runtime: Runtime, log: ChangeLog, wanted: Wanted) -> None:
        self._runtime = runtime
        self._log = log
        self._wanted = wanted
        self._answers: dict[Address, tuple[str | None, str | None, str]] = {}
        self._pending: set[int] = set()
        self._asked: dict[Address, float] = {}
        self._applied: dict[Address, dict[str, Any]] = {}
        self._asked_applied: dict[Address, float] = {}
        self._born = 0.0

    def on_answer(self, event: QueryAnswered) -> None:
        """Store a member's answer about the version that it holds. Ignores an answer to another inquiry."""
        if event.query in self._pending:
            self._answers[event.address] = (event.version, event.digest, "" if event.stored else _NOT_STORED)
            self._log.wake()

    def on_applied(self, event: AppliedAnswered) -> None:
        """Store a member's answer about its rendered files. Ignores an answer to another inquiry."""
        if event.query in self._pending:
            self._applied[event.address] = {"state": event.state, "version": event.version, "error": event.error}
            self._log.wake()

    async def run(self, enough: Enough, timeout: float) -> Convergence:
        """Query members until ``enough`` is true, ``timeout`` seconds pass or the node list is closed.

        Raises ``ProtocolError`` (isolated) as soon as this node is isolated.
        """
        loop = asyncio.get_running_loop()
        self._born = loop.time()
        deadline = self._born + timeout
        grace = self._born + _ANSWER
        while True:
            refuse_isolated(self._runtime.engine.isolated)
            members = self._runtime.engine.members(self._runtime.now())
            voters = Voters.among(members, self._runtime.engine.displaced)
            results = self._look([member for member in members if member.state in PRESENT], loop.time())
            confirmed = sum(self._confirmed(result) for result in results)
            done = enough(confirmed, len(results), voters.known)
            open_questions = any(result["reason"] == _NO_ANSWER for result in results)
            if self._wanted.applied and not done:
                open_questions = open_questions or any(_unknown(result) for result in results)
                if all(self._confirmed(result) or _refused(result) for result in results):
                    # Members whose rendered files failed to use the document never confirm it, so do not wait for them.
                    deadline = grace = self._born
            now = loop.time()
            if done or self._log.closed or (now >= deadline and (now >= grace or not open_questions)):
                digest = f"{self._runtime.engine.documents.digest:016x}"
                counts = (voters.known, voters.dead, voters.agent_down)
                return Convergence(done, len(results), confirmed, now - self._born, digest, results, *counts)
            await self._log.pause(max(0.001, min(_ASK_AGAIN, max(deadline, grace) - now)))

    def _look(self, members: Sequence[Member], now: float) -> list[Mapping[str, Any]]:
        engine = self._runtime.engine
        results = [self._judge(engine, member) for member in members]
        laggards = [m.address for m, result in zip(members, results) if not result["holds"] and not m.local]
        self._ask([address for address in laggards if now - self._asked.get(address, -1e9) >= _ASK_AGAIN], now)
        if self._wanted.applied:
            open_ = [m.address for m, result in zip(members, results) if not m.local and not self._confirmed(result)]
            due = [a for a in open_ if now - self._asked_applied.get(a, -1e9) >= _ASK_AGAIN]
            if due:
                key = str(self._wanted.key)
                self._pending.add(self._runtime.call(lambda engine, time: engine.query_applied(key, due, time)))
                self._asked_applied.update(dict.fromkeys(due, now))
        return results

    def _ask(self, addresses: list[Address], now: float) -> None:
        key = self._wanted.key
        if key is None or not addresses:
            return
        try:
            self._pending.add(self._runtime.call(lambda engine, time: engine.query(key, addresses, time)))
        except ProtocolError:
            return  # this wire format cannot query a version, so only digests are compared
        self._asked.update(dict.fromkeys(addresses, now))

    def _judge(self, engine: Asked, member: Member) -> Mapping[str, Any]:
        version, digest, reason = self._held_by(engine, member)
        if self._wanted.key is None:
            holds = digest == self._wanted.digest and not reason
            if digest != self._wanted.digest:
                reason = f"holds state {digest}"
        else:
            holds = not reason and self._wanted.met_by(version, digest)
            if not holds and not reason:
                reason = self._wanted.missed_by(version, digest)
        result = {
            "addr": member.address.ip,
            "port": member.address.port,
            "name": member.node.name,
            "state": member.state.value,
            "holds": holds,
            "version": version,
            "digest": digest,
            "deleted": self._wanted.key is not None and version is not None and digest is None,
            "reason": reason,
        }
        return self._with_applied(engine, member, result) if self._wanted.applied else result

    def _with_applied(self, engine: Asked, member: Member, result: dict[str, Any]) -> dict[str, Any]:
        """Add the state of the member's rendered files to ``result``."""
        if member.local:
            found = engine.applied_source(str(self._wanted.key))
            applied = {
                "state": found.state,
                "version": str(found.version) if found.version else None,
                "error": found.error,
            }
        else:
            applied = self._applied.get(member.address, {"state": "pending", "version": None, "error": _NO_ANSWER})
        result["applied"] = applied
        if result["holds"] and not self._confirmed(result):
            result["reason"] = applied["error"] or "not applied yet"
        return result

    def _confirmed(self, result: Mapping[str, Any]) -> bool:
        """Whether a member counts as confirmed. The member must hold the wanted state of the document.

        If the inquiry is about rendered files, the member's rendered files must also use the member's version of the
        document.
        """
        if not result["holds"] or not self._wanted.applied:
            return bool(result["holds"])
        applied = result["applied"]
        return applied["state"] == "none" or (applied["state"] == "applied" and _speaks_of(result))

    def _held_by(self, engine: Asked, member: Member) -> tuple[str | None, str | None, str]:
        """Return the version and digest of a member's document, and the reason why the member cannot be confirmed; the
        reason is "" if there is none.
        """
        if self._wanted.key is None:
            return None, f"{member.digest:016x}", "" if member.stored else _NOT_STORED
        if member.local or (member.digest == engine.documents.digest and member.stored):
            held = engine.documents.held(self._wanted.key)
            if member.local and self._wanted.key in self._runtime.unstored:
                return (str(held.version) if held else None, held.digest if held else None, _NOT_STORED)
            return (str(held.version), None if held.deleted else held.digest, "") if held else (None, None, "")
        answer = self._answers.get(member.address)
        return (None, None, _NO_ANSWER) if answer is None else answer


#: A function of the number of confirmed members, present members and known nodes: whether enough are confirmed.
Enough = Callable[[int, int, int], bool]


def enough_for(wait: str | int) -> Enough:
    """Return the function that decides whether enough members are confirmed for ``wait``.

    ``all``: all present members. ``majority``: more than half of the known nodes, present or not.
    """
    if wait == "all":
        return lambda confirmed, members, known: confirmed >= members
    if wait == "majority":
        return lambda confirmed, members, known: confirmed > known // 2
    number = int(wait)
    return lambda confirmed, members, known: confirmed >= number
