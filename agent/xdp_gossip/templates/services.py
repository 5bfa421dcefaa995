# SPDX-License-Identifier: MIT
"""Sends all rendered files of one service to the helper together, once all of them are rendered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..config.templates import ServiceConfig
from .helper_client import HelperUnreachable, hand_over_together

if TYPE_CHECKING:
    from .loop import Rendered

_LOOK_EVERY = 0.05


class Together:
    """Installs the files of ``service`` together, one file for each template in ``members``.

    ``took(member, content, answer)`` is called with the helper's answer for each member. ``took`` returns False if the
    member must be retried later. ``places``: semaphore that limits how many requests are sent to the helper at the same
    time.
    """

    def __init__(
        self,
        service: ServiceConfig,
        members: Sequence[Rendered],
        socket: str,
        places: asyncio.Semaphore,
        took: Callable[[Rendered, bytes, dict[str, Any]], bool],
    ) -> None:
        self._service = service
        self._members = members
        self._socket = socket
        self._places = places
        self._took = took
        self._contents: dict[str, bytes] = {}
        self._arrived: set[str] = set()
        self._round: asyncio.Task[dict[str, bool]] | None = None
        self._turn = asyncio.Lock()
        # Hashes of the contents that the helper refused; the helper's answers are in _said.
        self._refused: list[bytes] = []
        self._said: dict[str, dict[str, Any]] = {}

    def without(self, member: Rendered) -> None:
        """Record that the template ``member`` cannot be rendered now. The other templates of the service wait until
        ``member`` can be rendered.
        """
        self._contents.pop(member.config.name, None)

    async def hand_over(self, member: Rendered, content: bytes) -> bool:
        """Install ``content`` together with the contents of the other members. Returns False if the caller must retry
        later because of a temporary problem.

        Raises HelperUnreachable.
        """
        name = member.config.name
        self._contents[name] = content
        self._arrived.add(name)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_task(self._go())
        return (await self._round)[name]

    async def _go(self) -> dict[str, bool]:
        async with self._turn:
            # One publish may change several templates of the service, so wait until no other template of this service
            # is being rendered. Polling is simpler than an event, which every code path that ends a rendering would
            # have to set.
            while self._others_come():  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY)
            arrived, self._arrived, self._round = self._arrived, set(), None
            missing = [one.config.name for one in self._members if one.config.name not in self._contents]
            if missing:
                error = f"waits for {', '.join(missing)} of service {self._service.name}"
                return {name: self._tell(name, {"state": "waits", "error": error}) for name in arrived}
            answers = await self._ask()
            told = {one.config.name: self._tell(one.config.name, answers[one.config.name]) for one in self._members}
            for one in self._members:
                if one.config.name not in arrived:
                    one.tries = not told[one.config.name]
            return told

    def _others_come(self) -> bool:
        return any(one.is_busy() and one.config.name not in self._arrived for one in self._members)

    async def _ask(self) -> dict[str, dict[str, Any]]:
        files = {one.config: self._contents[one.config.name] for one in self._members}
        digests = [hashlib.sha256(content).digest() for content in files.values()]
        if digests == self._refused and any(one.refused for one in self._members):
            return self._said
        repair = any(one.wants_repair() for one in self._members)
        try:
            async with self._places:
                answers = await hand_over_together(self._socket, self._service, files, repair=repair)
        except HelperUnreachable as error:
            for one in self._members:
                one.settle("failed", str(error))
                one.tries = True
            raise
        refused = any(answer.get("state") == "refused" for answer in answers.values())
        self._refused, self._said = (digests, answers) if refused else ([], {})
        return answers

    def _tell(self, name: str, answer: dict[str, Any]) -> bool:
        (member,) = (one for one in self._members if one.config.name == name)
        return self._took(member, self._contents[name], answer)
