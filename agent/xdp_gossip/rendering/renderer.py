# SPDX-License-Identifier: MIT
"""The agent's side of a rendering: a worker process that is given documents as it asks for them, and ended if it must.

What was read is recorded here. Documents that changed while a template was being rendered would give a file that is
half old and half new: the caller compares, and renders again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from ..configtemplates import MAX_CONTENT

if TYPE_CHECKING:
    from ..nodelist import AsyncNodeList

#: Seconds and bytes of memory that one rendering may take.
RENDER_SECONDS = 10.0
RENDER_MEMORY = 512 * 1024 * 1024
_LOOK_EVERY = 0.05
_LENGTH = struct.Struct(">I")
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = "import sys; sys.path.insert(0, sys.argv[1]); from xdp_gossip.rendering.worker import main; main()"


@dataclass
class Reads:
    """What a rendering read: documents with their versions (None: not there), prefixes, and of the nodes."""

    documents: dict[str, str | None] = field(default_factory=dict)
    prefixes: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    nodes: list[dict[str, Any]] | None = None
    node: dict[str, Any] | None = None

    def uses(self, key: str) -> bool:
        """Whether a change of this document is one of the rendering's input."""
        return key in self.documents or any(key.startswith(prefix) for prefix in self.prefixes)

    def still_true(self, node_list: AsyncNodeList) -> bool:
        """Whether another rendering would read the same."""
        return (
            all(_version(node_list, key) == version for key, version in self.documents.items() if not self._listed(key))
            and all(_listing(node_list, prefix) == listing for prefix, listing in self.prefixes.items())
            and (self.nodes is None or self.nodes == node_values(node_list))
            and (self.node is None or self.node == local_value(node_list))
        )

    def _listed(self, key: str) -> bool:
        return any(key.startswith(prefix) for prefix in self.prefixes)


@dataclass(frozen=True)
class Rendering:
    """``kind``: done (with ``content``), missing (a document is not there) or error (with ``error``)."""

    kind: str
    content: bytes
    error: str
    reads: Reads


def _version(node_list: AsyncNodeList, key: str) -> str | None:
    held = node_list.document(key)
    return str(held.version) if held else None


def _listing(node_list: AsyncNodeList, prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((document.key, str(document.version)) for document in node_list.documents(prefix))


def node_values(node_list: AsyncNodeList) -> list[dict[str, Any]]:
    """The present members as templates see them, in an order that does not depend on who looks.

    Not those that are only known by their address yet (a seed that was not heard): they have no name.
    """
    found = [_node(member) for member in node_list.members() if member.local or member.record is not None]
    return sorted(found, key=lambda node: (node["name"], node["addr"], node["port"]))


def local_value(node_list: AsyncNodeList) -> dict[str, Any]:
    """The local node as templates see it."""
    return _node(node_list.members()[0])


def _node(member: Any) -> dict[str, Any]:
    node = member.node
    return {
        "name": node.name,
        "addr": node.addr,
        "port": node.port,
        "private_data": node.private_data,
        "state": member.state.value,
    }


class Renderer:
    """Renders one template after another in one worker process."""

    def __init__(self, node_list: AsyncNodeList, seconds: float = RENDER_SECONDS, memory: int = RENDER_MEMORY) -> None:
        self._node_list = node_list
        self._seconds = seconds
        self._memory = memory
        self._process: asyncio.subprocess.Process | None = None
        self._turn: asyncio.Lock | None = None

    async def render(self, source: str) -> Rendering:
        """Render the template text ``source``."""
        if self._turn is None:
            self._turn = asyncio.Lock()  # here, as before Python 3.10 it belongs to the loop it was made in
        async with self._turn:
            reads = Reads()
            try:
                work = asyncio.ensure_future(self._work(source, reads))
                kind, value = await self._watch(work)
            except (asyncio.IncompleteReadError, OSError, ValueError, msgpack.exceptions.UnpackException):
                await self._end()
                return Rendering("error", b"", "template: the process that renders it ended", reads)
            except BaseException:
                await self._end()
                raise
            if kind == "done":
                return Rendering("done", value, "", reads)
            return Rendering(kind, b"", str(value), reads)

    async def _watch(self, work: asyncio.Future[Any]) -> tuple[str, Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        try:
            while True:
                await asyncio.wait({work}, timeout=_LOOK_EVERY)
                if work.done():
                    kind, value = work.result()
                    return kind, value
                if loop.time() >= deadline:
                    await self._end()
                    return "error", f"template: it took more than {self._seconds:g} s and was ended"
                if self._resident() > self._memory:
                    await self._end()
                    return "error", f"template: it took more than {self._memory >> 20} MiB of memory and was ended"
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _resident(self) -> int:
        """Bytes of memory of the worker. A limit of the process would need a system call that the unit denies."""
        try:
            assert self._process is not None
            with open(f"/proc/{self._process.pid}/statm", "rb") as stream:
                return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, AssertionError):
            return 0

    async def _work(self, source: str, reads: Reads) -> tuple[str, Any]:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _START, _ROOT),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
                close_fds=True,
            )
        await self._send({"source": source, "most": MAX_CONTENT})
        while True:
            kind, *rest = await self._receive()
            if kind != "ask":
                return kind, rest[0]
            await self._send(self._answer(reads, *rest))

    def _answer(self, reads: Reads, what: str, name: str = "") -> Any:
        node_list = self._node_list
        if what == "document":
            held = node_list.document(name)
            reads.documents[name] = str(held.version) if held else None
            return held.value if held else None
        if what == "documents":
            found = node_list.documents(name)
            reads.prefixes[name] = tuple((document.key, str(document.version)) for document in found)
            reads.documents.update(reads.prefixes[name])
            return [[document.key, str(document.version), document.value] for document in found]
        if what == "nodes":
            reads.nodes = node_values(node_list)
            return reads.nodes
        if what == "node":
            reads.node = local_value(node_list)
            return reads.node
        raise ValueError(what)

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
        """End the worker."""
        await self._end()
