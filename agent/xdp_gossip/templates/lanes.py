# SPDX-License-Identifier: MIT
"""Renders quick and slow templates in two separate worker processes, so that slow templates do not delay quick
templates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .renderer import RENDER_MEMORY, RENDER_SECONDS, Renderer, Rendering, Sealing

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Limits of the quick lane for one rendering: seconds, and bytes of memory.
QUICK_SECONDS = 1.0
QUICK_MEMORY = 128 * 1024 * 1024


class Lanes:
    """Renders templates in two worker processes, the quick lane and the slow lane. Each template starts in the quick
    lane.

    A rendering that exceeds the quick lane's limits is killed and repeated in the slow lane. The template stays in the
    slow lane until one of its renderings needs less than half of the quick lane's limits. A slow template therefore
    delays the other templates only once, by at most ``quick`` seconds. The workers of both lanes together may use
    ``memory`` bytes.
    """

    def __init__(
        self,
        node_list: AsyncNodeList,
        seconds: float = RENDER_SECONDS,
        memory: int = RENDER_MEMORY,
        quick: float = QUICK_SECONDS,
        sealing: Sealing | None = None,
    ) -> None:
        self._quick = Renderer(node_list, quick, QUICK_MEMORY, sealing)
        self._patient = Renderer(node_list, seconds, memory - QUICK_MEMORY, sealing)
        self._limit = quick / 2
        self._slow: set[str] = set()

    async def render(self, name: str, source: str, frozen: bool = False) -> Rendering:
        """Render the text ``source`` of the template ``name``. Arguments and result are those of
        ``Renderer.render``.
        """
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
        """Stop the worker processes of both lanes."""
        await self._quick.close()
        await self._patient.close()
