# SPDX-License-Identifier: MIT
"""The command ``watch``: prints one line for each change, or runs a program for each burst of changes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tables
from .common import FAILED, OK, USAGE, CommandError, call, notice, wants_json
from .parser import add_command, number_from, path, prefix, seconds
from .text import escaped, printable
from .watchstate import Seen

if TYPE_CHECKING:
    from ..api.client import Client

_POLL = 30.0
#: Seconds for which changes are collected after the first change, before the COMMAND runs.
_BURST = 0.2
#: Seconds to wait before connecting again after a lost connection: the first and the longest wait. The waits are short,
#: because a restart of the agent takes one or two seconds.
_BACK_OFF, _BACK_OFF_MOST = 0.25, 2.0
#: Seconds within which a running COMMAND must end when the watch ends.
_END = 5.0

Change = dict[str, Any]


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``watch`` to the parser."""
    watch = add_command(
        commands,
        "watch",
        "print changes of documents and nodes, or run a command for them",
        "Print one line for each change. With a COMMAND, run the COMMAND once for each burst of changes, one run at a "
        "time. The COMMAND gets the changes as a JSON list on standard input, and key, event and version of the last "
        "change in XDP_GOSSIP_KEY, XDP_GOSSIP_EVENT and XDP_GOSSIP_VERSION. With --initial, the first run reports each "
        "present document and node with the event 'present', and takes place even if there are none. With --state, "
        "changes that happened while the watch or its agent did not run are reported once both run.",
        ["xdp-gossip watch", "xdp-gossip watch app/ --json", "xdp-gossip watch app/ --initial -- ./apply"],
        common,
        usage="%(prog)s [options] [PREFIX] [-- COMMAND [ARGUMENT...]]",
    )
    watch.takes_command = True
    text = "report only documents whose key begins with this text"
    watch.add_argument("prefix", metavar="PREFIX", type=prefix, nargs="?", default="", help=text)
    text = "report changes after this revision (default: now)"
    watch.add_argument("--since", metavar="REVISION", type=number_from(0), help=text)
    watch.add_argument("--initial", action="store_true", help="report the current state first")
    watch.add_argument(
        "--state",
        metavar="FILE",
        type=path,
        help="file that stores the processed version of each document, for a later run to continue (documents only)",
    )
    text = "end after N changes, or N runs of the command"
    watch.add_argument("--count", metavar="N", type=number_from(1), help=text)
    watch.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, help="end after this many seconds (default: never)"
    )
    watch.add_argument(
        "--documents", action="store_true", help="report only changes of documents (implied by a PREFIX)"
    )
    watch.set_defaults(handler=run, command=[])


def run(args: argparse.Namespace) -> int:
    """Watch until the requested number of changes or the time limit is reached.

    Returns exit code 1 if a run of the COMMAND failed.
    """
    if args.since is not None and (args.initial or args.state):
        raise CommandError("--since: expected none with --initial or --state, which say where to begin", USAGE)
    seen = Seen(Path(args.state), args.prefix) if args.state else None

    async def work(client: Client) -> int:
        bursts = _bursts(client, args, seen)
        try:
            if args.command:
                return await _run_commands(bursts, args, seen)
            return await _print(bursts, args, seen)
        finally:
            await bursts.aclose()  # type: ignore[attr-defined]  # an async generator

    return call(args, work)


async def _print(bursts: AsyncIterator[list[Change]], args: argparse.Namespace, seen: Seen | None) -> int:
    printed = 0
    async for burst in bursts:
        left = None if args.count is None else args.count - printed
        shown = [change for change in burst if change["kind"] not in ("resync", "initial")][:left]
        if burst[0]["kind"] == "resync":
            notice(args, "changes may have been missed: take everything for changed, or watch with --state FILE")
        for change in shown:
            print(json.dumps(change) if wants_json(args) else _line(change), flush=True)
        if seen is not None:
            seen.done(shown)
        printed += len(shown)
        if printed == args.count:
            return OK
    return OK


def _line(change: Change) -> str:
    if change["kind"] == "document":
        document = change["document"]
        what = f"{printable(document['key'])} {document['version']} ({document['size']} bytes)"
        if "conflict" in change:
            what += f", which took the place of {change['conflict']} unread"
    elif change["kind"] == "zone":
        what = f"{printable(change['zone']['name'])} ({change['zone']['members']} members gone)"
    elif change["kind"] == "refusal":
        refusal = change["refusal"]
        sender = f" from {refusal['from']}" if refusal["from"] else ""
        what = f"{printable(refusal['key'])} {refusal['version']}{sender}: {printable(refusal['reason'])}"
    else:
        node = change["node"]
        what = f"{tables.address(node)} {printable(node['name'])} ({node['state']})"
    return escaped(f"{change['revision']} {change['kind']} {change['event']}: {what}")


async def _bursts(client: Client, args: argparse.Namespace, seen: Seen | None) -> AsyncIterator[list[Change]]:
    """Yield non-empty lists of changes until the time limit (--timeout).

    Changes that arrive while the caller processes a list are yielded together in the next list.
    """
    import asyncio

    from ..api.client import ApiError, Unreachable

    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    since, back_off, connected = args.since, _BACK_OFF, False
    away: float | None = None  # monotonic time since which the agent has not answered
    initial, look = args.initial, args.initial or seen is not None
    while True:
        left = _POLL if deadline is None else min(_POLL, max(0.0, deadline - time.monotonic()))
        if not connected:
            left = 0.0  # the first request does not wait, so a missing agent is reported at once
        try:
            if look:
                # The revision is read before the documents and nodes, so that changes made in between are reported
                # later and not missed.
                since = (await client.watch(None, 0.0))["revision"]
                burst = await _look(client, args, seen, since, initial)
                initial = look = False
            else:
                found = await _poll(client, args, since, left)
                if found["gap"] and seen is not None:
                    burst = await seen.missed(client, found["revision"])
                else:
                    burst = [change for change in found["changes"] if _wanted(change, args, seen)]
                    if found["gap"]:
                        burst.insert(0, {"revision": found["revision"], "kind": "resync", "event": "resync"})
                since = found["revision"]
        except (Unreachable, ApiError) as error:
            if not connected or (isinstance(error, ApiError) and error.status < 500):
                raise
            # The agent may be restarting. No change is missed, because an agent that has lost changes reports a gap.
            if away is None:
                away = time.monotonic()
                notice(args, f"the agent does not answer ({error}); waiting until it is back")
            look = look or seen is not None
            await asyncio.sleep(back_off if deadline is None else min(back_off, max(0.0, deadline - time.monotonic())))
            back_off = min(2 * back_off, _BACK_OFF_MOST)
        else:
            if away is not None:
                notice(args, f"the agent is back after {time.monotonic() - away:.0f} s")
            connected, back_off, away = True, _BACK_OFF, None
            if burst:
                yield burst
        if deadline is not None and time.monotonic() >= deadline:
            return


async def _poll(client: Client, args: argparse.Namespace, since: int | None, left: float) -> dict[str, Any]:
    """Wait for the next changes and return them.

    With a COMMAND, collect changes for ``_BURST`` seconds after the first change.
    """
    import asyncio

    found = await client.watch(since, left, args.prefix)
    if not args.command or not found["changes"]:
        return found
    await asyncio.sleep(_BURST)
    more = await client.watch(found["revision"], 0.0, args.prefix)
    gap, changes = found["gap"] or more["gap"], found["changes"] + more["changes"]
    return {"revision": more["revision"], "gap": gap, "changes": changes}


def _wanted(change: Change, args: argparse.Namespace, seen: Seen | None) -> bool:
    if seen is not None:
        return seen.fresh(change)
    return change["kind"] == "document" or not (args.documents or args.prefix)


async def _look(
    client: Client, args: argparse.Namespace, seen: Seen | None, revision: int, initial: bool
) -> list[Change]:
    """Return the changes to report at the start.

    With ``initial``, return all documents and nodes; otherwise return the changes since the state file ``seen`` was
    written.
    """
    if not initial:
        assert seen is not None
        if seen.is_new:
            await seen.begin(client)
            seen.is_new = False
            return []
        return await seen.missed(client, revision)
    burst: list[Change] = [{"revision": revision, "kind": "initial", "event": "initial"}]
    if seen is None and not (args.documents or args.prefix):
        burst += [_present(revision, "node", node) async for node in client.each_node()]
    documents = [_present(revision, "document", document) async for document in client.each_document(args.prefix)]
    if seen is not None:
        burst += [change for change in await seen.missed(client, revision) if change["event"] == "deleted"]
        for change in documents:
            seen.fresh(change)
    return burst + documents


def _present(revision: int, kind: str, what: dict[str, Any]) -> Change:
    return {"revision": revision, "kind": kind, "event": "present", kind: what}


async def _run_commands(bursts: AsyncIterator[list[Change]], args: argparse.Namespace, seen: Seen | None) -> int:
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    ended_by: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        ended_by.append(number)
        task.cancel()

    # The command runs in its own session, so when the terminal closes, only the watch receives SIGHUP.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    runs = failed = 0
    try:
        async for burst in bursts:
            runs += 1
            status = await _run_command(args.command, burst)
            if status:
                failed += 1
                how = f"exit code {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
                notice(args, f"run {runs} of the command: {how} ({failed} failed)")
            elif seen is not None:
                seen.done(burst)
            if runs == args.count:
                break
    except asyncio.CancelledError:
        if not ended_by:
            raise  # SIGINT
        return 128 + ended_by[0]
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
    # The changes are passed in a file, because a pipe that the command does not read would block the watch.
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
    """Terminate ``process`` and all processes that it started."""
    import asyncio

    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), _END)
            return
