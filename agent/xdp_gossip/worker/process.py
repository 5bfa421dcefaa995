# SPDX-License-Identifier: MIT
"""The agent's side of a worker process. The agent gives the process one job at a time, and kills the process if a job
exceeds its limits.

Agent and process send each other frames. A frame is a length (4 bytes, big-endian) followed by a msgpack value. The
agent starts the process for the first job. The agent ends the process after some time without a job, so that an idle
agent has no worker in memory. The agent also ends a process that still uses much memory after a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from typing import Any

import msgpack

_LENGTH = struct.Struct(">I")
_LOOK_EVERY = 0.05
#: The agent ends a worker process after this many seconds without a job, or if the process uses more than this many
#: bytes of memory after a job.
_IDLE_SECONDS = 30.0
_KEPT_MEMORY = 64 * 1024 * 1024
#: A job's limit in real time is its limit in processor time multiplied by this factor. The limit in real time ends a
#: job that only waits.
_WALL_FACTOR = 20.0
#: Maximum bytes of an answer.
_MAX_ANSWER = 64 * 1024 * 1024

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = "import sys; sys.path.insert(0, sys.argv[1]); from xdp_gossip.{} import main; main()"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class TooMuch(Exception):
    """Raised if a job exceeded its time or memory. The text names the limit and its value."""


class Broken(Exception):
    """Raised if the process cannot be started, or has ended unexpectedly."""


class BoundedProcess:
    """One worker process that runs one job at a time. Further jobs wait until the current job has ended.

    The object may be created outside of an event loop, but must be used in one event loop only.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn: asyncio.Lock | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def run(self, job: list[Any], seconds: float, memory: int) -> Any:
        """Run ``job`` and return its answer. The job may use ``seconds`` of processor time and ``memory`` bytes.

        If the caller is cancelled, the worker process is killed. Raises :class:`TooMuch`, :class:`Broken`.
        """
        if self._turn is None:
            # Before Python 3.10, a lock belongs to the event loop in which it is created.
            self._turn = asyncio.Lock()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                return await self._run(job, seconds, memory)
            except (asyncio.IncompleteReadError, OSError, ValueError, msgpack.exceptions.UnpackException) as error:
                await self._end()
                raise Broken(f"the process for it ended ({type(error).__name__})") from error
            except BaseException:
                await self._end()
                raise
            finally:
                if self._process is not None:
                    self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._kill)

    async def _run(self, job: list[Any], seconds: float, memory: int) -> Any:
        process = await self._running()
        began = _used(process.pid)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds * _WALL_FACTOR
        work = asyncio.ensure_future(self._exchange(process, job))
        try:
            while True:
                await asyncio.wait({work}, timeout=_LOOK_EVERY)
                if work.done():
                    answer = work.result()
                    if resident(process.pid) > _KEPT_MEMORY:
                        await self._end()
                    return answer
                if _used(process.pid) - began > seconds or loop.time() > deadline:
                    raise TooMuch(f"it takes more than {seconds:g} seconds")
                if resident(process.pid) > memory:
                    raise TooMuch(f"it takes more than {memory >> 20} MiB of memory")
        finally:
            if not work.done():
                # ``work`` ends when the process ends.
                await self._end()
            await asyncio.gather(work, return_exceptions=True)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await started("worker.jobs")
        return self._process

    async def _exchange(self, process: asyncio.subprocess.Process, job: list[Any]) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        body = msgpack.packb(job, use_bin_type=True)
        process.stdin.write(_LENGTH.pack(len(body)))
        process.stdin.write(body)
        await process.stdin.drain()
        (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
        if length > _MAX_ANSWER:
            raise ValueError("a frame that is too long")
        return msgpack.unpackb(await process.stdout.readexactly(length), raw=False)

    def _kill(self) -> None:
        """Kill the process; the event loop reaps it."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    # Retrieve the exception of the pipe, because asyncio logs an exception that is never retrieved.
                    await process.stdin.wait_closed()

    async def close(self) -> None:
        """End the worker process and its current job."""
        if self._idle is not None:
            self._idle.cancel()
        await self._end()


async def started(module: str) -> asyncio.subprocess.Process:
    """Start a process that runs ``main()`` of this package's ``module`` with pipes for standard input and output.
    Raises ``OSError``.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _START.format(module), _ROOT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
        close_fds=True,
    )


def _used(pid: int) -> float:
    """Return the seconds of processor time that the process has used.

    The agent polls the processor time because ``setrlimit`` is not possible: the systemd unit denies that system call.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError, ValueError):
        return 0.0


def resident(pid: int) -> int:
    """Return the resident memory of the process in bytes; 0 if the process has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as stream:
            return int(stream.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
