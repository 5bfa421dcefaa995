# SPDX-License-Identifier: MIT
"""``watch``: what changes, a line for each; or a command that is run for each burst of changes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import tables
from .common import FAILED, OK, USAGE, CommandError, call, wants_json

if TYPE_CHECKING:
    from ..api.client import Client

_POLL = 30.0
#: Seconds in which changes that follow the first are gathered before the command is run.
_BURST = 0.2
#: Seconds until a lost connection is tried again, first and at most.
_BACK_OFF, _BACK_OFF_MOST = 0.5, 30.0
#: Seconds that a command has to end when the watch is ended.
_END = 5.0

Change = dict[str, Any]


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    watch = commands.add_parser(
        "watch",
        help="print changes of documents and nodes, or run a command at each",
        usage="%(prog)s [options] [PREFIX] [-- COMMAND [ARGUMENT...]]",
        description="Print what changes, a line for each change. With a COMMAND, run that once for each burst of "
        "changes, never twice at a time. It gets the changes as a JSON list on its standard input, and of the last one "
        "the key, event and version in XDP_GOSSIP_KEY, XDP_GOSSIP_EVENT and XDP_GOSSIP_VERSION.",
        parents=[common],
    )
    watch.takes_command = True
    watch.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only documents whose key begins so")
    watch.add_argument("--since", metavar="REVISION", type=int, help="begin after this revision (default: now)")
    watch.add_argument("--count", metavar="N", type=int, help="end after N changes, or N runs of the command")
    watch.add_argument("--timeout", metavar="SECONDS", type=float, help="end after so long (default: never)")
    watch.add_argument("--documents", action="store_true", help="no changes of nodes (as with a PREFIX)")
    watch.set_defaults(handler=run, command=[])


def run(args: argparse.Namespace) -> int:
    """Watch until the count or the time is reached; 1 when a run of the command failed."""
    if args.count is not None and args.count < 1:
        raise CommandError(f"--count: expected 1 or more, got {args.count}", USAGE)

    async def work(client: Client) -> int:
        bursts = _bursts(client, args)
        try:
            if args.command:
                return await _run_commands(bursts, args)
            return await _print(bursts, args)
        finally:
            await bursts.aclose()  # type: ignore[attr-defined]  # an async generator

    return call(args, work)


async def _print(bursts: AsyncIterator[list[Change]], args: argparse.Namespace) -> int:
    printed = 0
    async for burst in bursts:
        for change in burst:
            if change["kind"] == "resync":
                print("xdp-gossip: changes were missed, read the lists again", file=sys.stderr)
                continue
            print(json.dumps(change) if wants_json(args) else _line(change), flush=True)
            printed += 1
            if printed == args.count:
                return OK
    return OK


def _line(change: Change) -> str:
    if change["kind"] == "document":
        document = change["document"]
        what = f"{document['key']} {document['version']} ({document['size']} bytes)"
        if "conflict" in change:
            what += f", which took the place of {change['conflict']} unread"
    else:
        node = change["node"]
        what = f"{tables.address(node)} {node['name']} ({node['state']})"
    return tables.printable(f"{change['revision']} {change['kind']} {change['event']}: {what}")


async def _bursts(client: Client, args: argparse.Namespace) -> AsyncIterator[list[Change]]:
    """Changes that came together, never none; what comes while the caller is busy is one burst. Ends with the time."""
    import asyncio

    from ..api.client import ApiError, Unreachable

    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    since, back_off, connected = args.since, _BACK_OFF, False
    documents = bool(args.documents or args.prefix)
    while True:
        left = _POLL if deadline is None else min(_POLL, max(0.0, deadline - time.monotonic()))
        if not connected:
            left = 0.0  # whether there is an agent at all should be known at once
        try:
            found = await client.watch(since, left, args.prefix)
            if args.command and found["changes"]:
                await asyncio.sleep(_BURST)
                more = await client.watch(found["revision"], 0.0, args.prefix)
                found = {
                    "revision": more["revision"],
                    "gap": found["gap"] or more["gap"],
                    "changes": found["changes"] + more["changes"],
                }
        except (Unreachable, ApiError) as error:
            if not connected or (isinstance(error, ApiError) and error.status < 500):
                raise
            # The agent restarts, say. Nothing is missed: it tells of a gap when it cannot know what came since.
            print(f"xdp-gossip: {error}; trying again in {back_off:g} s", file=sys.stderr, flush=True)
            await asyncio.sleep(back_off if deadline is None else min(back_off, max(0.0, deadline - time.monotonic())))
            back_off = min(2 * back_off, _BACK_OFF_MOST)
        else:
            connected, back_off, since = True, _BACK_OFF, found["revision"]
            burst = [change for change in found["changes"] if change["kind"] == "document" or not documents]
            if found["gap"]:
                burst.insert(0, {"revision": since, "kind": "resync", "event": "resync"})
            if burst:
                yield burst
        if deadline is not None and time.monotonic() >= deadline:
            return


async def _run_commands(bursts: AsyncIterator[list[Change]], args: argparse.Namespace) -> int:
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    terminated: list[bool] = []

    def end() -> None:
        terminated.append(True)
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    runs = failed = 0
    try:
        async for burst in bursts:
            runs += 1
            status = await _run_command(args.command, burst)
            if status:
                failed += 1
                how = f"exit code {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
                print(f"xdp-gossip: run {runs} of the command: {how} ({failed} failed)", file=sys.stderr, flush=True)
            if runs == args.count:
                break
    except asyncio.CancelledError:
        if not terminated:
            raise  # SIGINT
        return 128 + signal.SIGTERM
    return FAILED if failed else OK


async def _run_command(command: list[str], burst: list[Change]) -> int:
    import asyncio

    last = burst[-1]
    document = last.get("document") or {}
    environment = {
        **os.environ,
        "XDP_GOSSIP_KEY": document.get("key", ""),
        "XDP_GOSSIP_EVENT": last["event"],
        "XDP_GOSSIP_VERSION": document.get("version") or "",
    }
    # A file, not a pipe: a command that does not read it is not held up, and neither is the watch.
    with tempfile.TemporaryFile() as changes:
        changes.write(json.dumps(burst).encode())
        changes.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=changes, env=environment, start_new_session=True
            )
        except OSError as error:
            raise CommandError(f"{command[0]}: {error.strerror or error}", USAGE) from None
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)


async def _end(process: Any) -> None:
    """End a command, with all that it started."""
    import asyncio

    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _END)
            return
