# SPDX-License-Identifier: MIT
"""Two worker processes, one for quick templates and one for slow ones, so that these do not delay the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .renderer import RENDER_MEMORY, RENDER_SECONDS, Renderer, Rendering

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Seconds and bytes of memory of what is quick.
QUICK_SECONDS = 1.0
QUICK_MEMORY = 128 * 1024 * 1024


class Lanes:
    """Renders templates. Each one begins in the quick lane.

    A rendering that takes too much there is ended and repeated in the slow lane. The template stays in the slow lane
    until it takes less than half of what the quick lane allows. So a slow template costs the quick ones ``quick``
    seconds once. Both workers together have ``memory`` bytes.
    """

    def __init__(
        self,
        node_list: AsyncNodeList,
        seconds: float = RENDER_SECONDS,
        memory: int = RENDER_MEMORY,
        quick: float = QUICK_SECONDS,
    ) -> None:
        self._quick = Renderer(node_list, quick, QUICK_MEMORY)
        self._patient = Renderer(node_list, seconds, memory - QUICK_MEMORY)
        self._limit = quick / 2
        self._slow: set[str] = set()

    async def render(self, name: str, source: str, frozen: bool = False) -> Rendering:
        """Render the text ``source`` of the template ``name``, as ``Renderer.render`` does."""
        if name not in self._slow:
            made = await self._quick.render(source, frozen)
            if made.kind != "exceeded":
                return made
            self._slow.add(name)
        made = await self._patient.render(source, frozen)
        if made.kind != "exceeded" and made.seconds < self._limit and made.memory < QUICK_MEMORY // 2:
            self._slow.discard(name)
        return made

    async def close(self) -> None:
        """End the workers."""
        await self._quick.close()
        await self._patient.close()
