# SPDX-License-Identifier: MIT
"""The command ``top``: a live view of the members, the documents, the progress of the most recent publish, and this
host's rendered files.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, call, output, wants_json
from .nodes import summary
from .parser import add_command, seconds

if TYPE_CHECKING:
    import asyncio

    from ..api.client import Client
    from .liveview import Publish, View

#: Seconds for which the progress of a publish is tracked.
_FOLLOW = 60.0
#: Maximum fraction of the time that may be spent on convergence requests. Each request takes longer in a large fleet,
#: so ``top`` then sends fewer requests per minute.
_SHARE = 0.1
_DOCUMENT_COLUMNS = ("document", "size", "published", "author", "held by", "applied by")
_FILE_COLUMNS = ("rendered file", "path", "state", "error")


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``top`` to the parser."""
    top = add_command(
        commands,
        "top",
        "a live view of the cluster",
        "Show the nodes, the newest documents with the members that have stored and applied them, the progress of the "
        "last publish, and this host's rendered files. Problems come first. Press q to quit. Times are UTC.",
        ["xdp-gossip top", "xdp-gossip top --interval 5", "xdp-gossip top --once --json"],
        common,
    )
    text = "time between refreshes, at least 0.1 (default: %(default)g)"
    top.add_argument("--interval", metavar="SECONDS", type=seconds, default=1.0, help=text)
    top.add_argument("--once", action="store_true", help="print one view and exit")
    top.set_defaults(handler=run_top)


def run_top(args: argparse.Namespace) -> int:
    """Show the view; on a terminal, refresh the view until the user quits."""

    async def work(client: Client) -> int:
        from .liveview import View

        view = View()
        once = args.once or wants_json(args) or not sys.stdout.isatty()
        await view.look(client, whole=once)
        if not once:
            return await _live(client, view, max(0.1, args.interval))
        found = {"status": view.status, "nodes": view.nodes, "documents": view.documents, "templates": view.files}
        output(args, found, lambda: _print(view, args))
        return OK

    return call(args, work)


def _print(view: View, args: argparse.Namespace) -> None:
    tables.show_pairs(summary(view.status))
    print()
    tables.show(*tables.node_table(tables.local_first(view.nodes), view.status["digest"]), args)
    files = [[one["name"], one["path"], one["state"], one["error"]] for one in view.files]
    for columns, rows in ((_DOCUMENT_COLUMNS, view.rows()), (_FILE_COLUMNS, files)):
        if rows:
            print()
            tables.show(columns, rows, args)


async def _live(client: Client, view: View, interval: float) -> int:
    """Refresh the screen until the user or a signal ends the command. Returns the exit code."""
    import asyncio

    from .livescreen import screen
    from .terminal import Terminal

    changed = asyncio.Event()
    with Terminal(changed.set) as terminal:

        async def draw() -> None:
            while True:
                terminal.draw(screen(view, *terminal.size()))
                changed.clear()
                try:
                    await asyncio.wait_for(changed.wait(), interval)
                except asyncio.TimeoutError:
                    await _look(client, view)

        tasks = {asyncio.ensure_future(draw()), asyncio.ensure_future(_watch(client, view, changed))}
        try:
            awaited: set[asyncio.Future[Any]] = {*tasks, terminal.ended}
            done, _rest = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # if the task ended with an exception, raise the exception here
            return terminal.ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _look(client: Client, view: View) -> None:
    """Refresh ``view``.

    If the agent does not answer, for example during its restart, store the error in ``view.away``.
    """
    from ..api.client import ApiError, Unreachable

    try:
        await view.look(client)
        view.away = ""
    except (Unreachable, ApiError) as error:
        view.away = str(error)


async def _watch(client: Client, view: View, changed: asyncio.Event) -> None:
    """Store the progress of each new publish in ``view``, and set ``changed`` when the screen must be redrawn."""
    import asyncio

    from ..api.client import ApiError, Unreachable
    from .liveview import Publish

    since: int | None = None
    follower: asyncio.Future[None] | None = None
    try:
        while True:
            try:
                found = await client.watch(since, 0.0 if since is None else 30.0, kind="document")
            except (Unreachable, ApiError):
                since = None
                view.missed()
                await asyncio.sleep(1.0)
                continue
            since = found["revision"]
            if found["gap"]:
                view.missed()
            documents = [change["document"] for change in found["changes"]]
            if not documents:
                continue
            view.note(documents)
            if follower is not None:
                follower.cancel()
            view.publish = Publish(documents[-1])
            follower = asyncio.ensure_future(_follow(client, view.publish, changed))
    finally:
        if follower is not None:
            follower.cancel()


async def _follow(client: Client, publish: Publish, changed: asyncio.Event) -> None:
    import asyncio

    from ..api.client import Unreachable
    from .liveview import holders

    while publish.took is None and time.monotonic() - publish.began < _FOLLOW:
        asked = time.monotonic()
        try:
            publish.note(await holders(client, publish.document))
        except Unreachable:
            return  # the next refresh reports the error
        changed.set()
        await asyncio.sleep(max(0.1, (time.monotonic() - asked) / _SHARE))
