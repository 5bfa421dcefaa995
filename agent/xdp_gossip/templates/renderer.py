# SPDX-License-Identifier: MIT
"""Renders templates in a worker process, answers the process's requests for documents, and kills the process if it
exceeds its limits.

``Rendering.reads`` records the input of the rendering. If documents change during a rendering, the output may mix old
and new data. The caller therefore compares ``reads`` with the current data, and renders the template again if they
differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from ..config.templates import MAX_CONTENT
from ..worker.process import resident, started
from .reads import Reads

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Limits of one rendering: seconds, and bytes of memory.
RENDER_SECONDS = 10.0
RENDER_MEMORY = 512 * 1024 * 1024
#: Seconds within which a worker process must start, even on a busy machine.
_START_SECONDS = 60.0
_LOOK_EVERY = 0.05
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Rendering:
    """The result of a rendering.

    ``kind``: done (with ``content``), missing (a document does not exist), error (with ``error``), exceeded (the worker
    exceeded a limit and was killed) or crashed (the worker process ended for another reason, not necessarily because of
    the template). ``seconds`` and ``memory`` (bytes) are the resources used.
    """

    kind: str
    content: bytes
    error: str
    reads: Reads
    seconds: float = 0.0
    memory: int = 0


class Sealing(NamedTuple):
    """What a worker needs to open sealed documents: the cluster, the name of the node, and the file of its key."""

    cluster: str
    name: str
    key_file: str


class Renderer:
    """Renders templates one after another in one worker process."""

    def __init__(
        self,
        node_list: AsyncNodeList,
        seconds: float = RENDER_SECONDS,
        memory: int = RENDER_MEMORY,
        sealing: Sealing | None = None,
    ) -> None:
        self._node_list = node_list
        self._sealing = sealing
        self._seconds = seconds
        self._memory = memory
        self._process: asyncio.subprocess.Process | None = None
        self._turn: asyncio.Lock | None = None
        self._reads = Reads(node_list)
        # Time at which the worker began to render the template.
        self._began: float | None = None
        self._peak = 0

    async def render(self, source: str, frozen: bool = False) -> Rendering:
        """Render the template text ``source``.

        If ``frozen`` is true, all data comes from one snapshot of documents and nodes.
        """
        if self._turn is None:
            # before Python 3.10, a lock belongs to the event loop in which it is created
            self._turn = asyncio.Lock()
        async with self._turn:
            self._reads = reads = Reads(self._node_list, frozen)
            self._began, self._peak = None, 0
            work = asyncio.ensure_future(self._work(source))
            try:
                kind, value = await self._watch(work)
            except (asyncio.IncompleteReadError, OSError, ValueError, msgpack.exceptions.UnpackException):
                await self._end()
                return Rendering("crashed", b"", "template: the process that renders it ended", reads)
            except BaseException:
                await self._end()
                raise
            took = asyncio.get_running_loop().time() - self._began if self._began is not None else 0.0
            if kind == "done":
                return Rendering("done", value, "", reads, took, self._peak)
            return Rendering(kind, b"", str(value), reads, took, self._peak)

    async def _watch(self, work: asyncio.Future[Any]) -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        start_until = loop.time() + _START_SECONDS
        try:
            while True:
                await asyncio.wait({work}, timeout=_LOOK_EVERY)
                if self._process is not None:
                    self._peak = max(self._peak, resident(self._process.pid))
                if work.done():
                    kind, value = work.result()
                    return kind, value
                if loop.time() >= (start_until if self._began is None else self._began + self._seconds):
                    await self._end()
                    if self._began is None:
                        return "crashed", f"template: the process that renders it did not start in {_START_SECONDS:g} s"
                    return "exceeded", f"template: it took more than {self._seconds:g} s and was ended"
                if self._peak > self._memory:
                    await self._end()
                    return "exceeded", f"template: it took more than {self._memory >> 20} MiB of memory and was ended"
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _work(self, source: str) -> tuple[str, Any]:
        if self._process is None or self._process.returncode is not None:
            self._process = await started("templates.worker")
        sealing = {"sealing": list(self._sealing)} if self._sealing is not None else {}
        await self._send({"source": source, "most": MAX_CONTENT, **sealing})
        while True:
            kind, *rest = await self._receive()
            if kind == "begun":  # the time limit starts here, so it does not include the start of the process
                self._began = asyncio.get_running_loop().time()
            elif kind == "ask":
                await self._send(self._reads.answer(*rest))
            else:
                return kind, rest[0]

    async def _send(self, value: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        body = msgpack.packb(value, use_bin_type=True)
        self._process.stdin.write(_LENGTH.pack(len(body)) + body)
        await self._process.stdin.drain()

    async def _receive(self) -> list[Any]:
        assert self._process is not None and self._process.stdout is not None
        (length,) = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))
        if length > MAX_CONTENT + 65_536:
            raise ValueError("a frame that is too long")
        return list(msgpack.unpackb(await self._process.stdout.readexactly(length), raw=False))

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """Stop the worker process."""
        await self._end()
