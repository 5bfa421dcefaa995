# SPDX-License-Identifier: MIT
"""Run an event source with some arguments until it has told an event; prints it.

    event_source.py PLUGIN.py ARGUMENTS.json

As ansible-rulebook does it: the file is run as a module of its own, and its ``main`` gets a queue. What is there at the
start is told, too, so that there is something to tell.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys


async def first_event(path: str, arguments: dict) -> dict:
    """The first event; raises what the source raises, or ``asyncio.TimeoutError`` after 20 s."""
    queue: asyncio.Queue = asyncio.Queue()
    source = asyncio.ensure_future(runpy.run_path(path)["main"](queue, {**arguments, "initial": True}))
    event = asyncio.ensure_future(queue.get())
    try:
        done, _ = await asyncio.wait({source, event}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if source in done:
            source.result()
            raise RuntimeError("expected the source to go on, it returned")
        if not done:
            raise asyncio.TimeoutError("expected an event within 20 s, got none")
        return event.result()
    finally:
        source.cancel()
        event.cancel()
        await asyncio.gather(source, event, return_exceptions=True)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(first_event(sys.argv[1], json.loads(sys.argv[2])))))
