# SPDX-License-Identifier: MIT
"""Run an event source with some arguments, and once more so that it has something to tell; prints that event.

    event_source.py PLUGIN.py ARGUMENTS.json

As ansible-rulebook does it: the file is run as a module of its own, and its ``main`` gets a queue. With the arguments
as they are the source has to go on; with the same connection, without filters and with what is there at the start, it
has to tell something.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys


async def first_event(path: str, arguments: dict) -> dict:
    """The first event; raises what a source raises, or ``asyncio.TimeoutError`` after 60 s."""
    queue: asyncio.Queue = asyncio.Queue()
    main = runpy.run_path(path)["main"]
    talkative = {key: value for key, value in arguments.items() if key not in ("events", "states", "prefix")}
    as_shown = asyncio.ensure_future(main(asyncio.Queue(), arguments))
    telling = asyncio.ensure_future(main(queue, {**talkative, "initial": True}))
    event = asyncio.ensure_future(queue.get())
    tasks = [as_shown, telling, event]
    try:
        done, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for source in done - {event}:
            source.result()
            raise RuntimeError("expected the source to go on, it returned")
        if not done:
            raise asyncio.TimeoutError("expected an event within 60 s, got none")
        return event.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(first_event(sys.argv[1], json.loads(sys.argv[2])))))
