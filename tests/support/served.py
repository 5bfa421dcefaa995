# SPDX-License-Identifier: MIT
"""The API of a stand-in for an agent, served by a thread: for commands that are processes, or have their own loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.patience import patient
from xdp_gossip.api.app import build_app
from xdp_gossip.api.server import ApiServer


@contextlib.contextmanager
def served(node_list: Any, directory: Path) -> Iterator[str]:
    """The path of its socket."""
    path = str(directory / "api.sock")
    loop = asyncio.new_event_loop()

    async def serve() -> ApiServer:
        server = ApiServer(build_app(node_list, local=True))
        await server.open_unix(path)
        return server

    server = loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield path
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(patient(20))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
