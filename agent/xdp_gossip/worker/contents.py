# SPDX-License-Identifier: MIT
"""Checks, parses and compares contents in worker processes with limits.

docs/security.md, "What untrusted content can cost", describes the limits of the worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.interface import ProtocolError
from . import content
from .process import BoundedProcess, Broken, TooMuch

#: Maximum bytes of JSON that the agent checks in its own process. Parsing JSON of this length needs little time and
#: memory.
SMALL_JSON = 16 * 1024
#: Maximum bytes of a content that is checked in the worker process for small contents.
SMALL = 64 * 1024

#: Limits for one job. A job may use MEMORY bytes. A job may use SECONDS seconds of processor time, plus SECONDS_FOR_MIB
#: seconds for each MiB of the content.
SECONDS, SECONDS_FOR_MIB = 5.0, 4.0
MEMORY = 768 * 1024 * 1024
#: Maximum seconds of processor time for all diffs of one history.
DIFF_SECONDS = 5.0


class Contents:
    """Two worker processes.

    One of the two worker processes is reserved for small contents, so that small contents never wait for large
    contents.
    """

    def __init__(self) -> None:
        self._small = BoundedProcess()
        self._large = BoundedProcess()

    async def check(self, key: str, value: bytes, content_type: str) -> None:
        """Check a content with ``content.check``. Run the check in a worker process if it may need much time or memory.

        Raises ``ProtocolError``: invalid_content, or busy if the worker process failed.
        """
        at_once = content_type == "text" or (content_type == "json" and len(value) <= SMALL_JSON)
        if at_once or content_type not in content.CHECKED:
            content.check(key, value, content_type)
            return
        try:
            answer = await self._run(["check", key, value, content_type], len(value))
        except TooMuch as error:
            raise content.refused(key, content_type, str(error)) from None
        if answer[0] == "refused":
            raise ProtocolError(answer[1], answer[2], **answer[3])

    async def differences(self, pairs: Sequence[tuple[bytes, bytes, str, str]]) -> list[str | None]:
        """Return the diff for each pair (old, new, name of old, name of new); None for a pair without a diff.

        A pair has no diff if one of its versions is too long or is not text. If computing the diffs takes too much time
        or memory, the result is None for every pair. Raises ``ProtocolError`` (busy).
        """
        texts: list[str | None] = [None] * len(pairs)
        compared = [at for at, pair in enumerate(pairs) if max(len(pair[0]), len(pair[1])) <= content.MAX_DIFF]
        try:
            answer = await self._large.run(["differences", [list(pairs[at]) for at in compared]], DIFF_SECONDS, MEMORY)
        except TooMuch:
            return texts
        except Broken as error:
            raise _busy(error) from None
        for at, text in zip(compared, answer[1] if answer[0] == "done" else ()):
            texts[at] = text
        return texts

    async def parse_json(self, raw: bytes, most: int) -> Any:
        """Parse a JSON text, which may contain at most ``most`` values.

        Raises ``ValueError`` if the text is not valid, and ``ProtocolError`` (busy) if the worker process failed.
        """
        try:
            answer = await self._run(["parse", raw, most], len(raw))
        except TooMuch as error:
            raise ValueError(str(error)) from None
        if answer[0] != "done":
            raise ValueError(answer[1])
        return answer[1]

    async def _run(self, job: list[Any], size: int) -> Any:
        process = self._small if size <= SMALL else self._large
        try:
            answer = await process.run(job, SECONDS + SECONDS_FOR_MIB * size / 2**20, MEMORY)
        except Broken as error:
            raise _busy(error) from None
        if answer[0] == "too much":
            raise TooMuch(answer[1])
        return answer

    async def close(self) -> None:
        """End both worker processes and their current jobs."""
        await self._small.close()
        await self._large.close()


def _busy(error: Broken) -> ProtocolError:
    return ProtocolError("busy", f"the content cannot be looked at now: {error}")
