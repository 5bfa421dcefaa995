# SPDX-License-Identifier: MIT
"""The API, served by a thread: for commands that are processes, browsers, and tests that have their own loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.support.patience import patient
from xdp_gossip.api.app import build_app
from xdp_gossip.api.server import ApiServer


@contextlib.contextmanager
def in_thread(opened: Callable[[], Coroutine[Any, Any, ApiServer]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve in a thread until the block ends; yields the thread's loop. ``opened``: returns a server that listens."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(opened())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(patient(20))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        if ending := asyncio.all_tasks(loop):  # connections that the server cancelled
            loop.run_until_complete(asyncio.wait(ending, timeout=patient(20)))
        loop.close()


@contextlib.contextmanager
def served(node_list: Any, directory: Path) -> Iterator[str]:
    """Serve the API over a node list at a Unix socket below ``directory``; yields its path."""
    path = str(directory / "api.sock")

    async def opened() -> ApiServer:
        server = ApiServer(build_app(node_list, local=True))
        await server.open_unix(path)
        return server

    with in_thread(opened):
        yield path
