# SPDX-License-Identifier: MIT
"""``top``: a live view of the fleet, its documents, the last publish on its way, and this host's rendered files."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, call, output, wants_json
from .nodes import summary

if TYPE_CHECKING:
    import asyncio

    from ..api.client import Client

#: Documents shown, the newest first.
_DOCUMENTS = 8
#: Seconds for which a publish is followed, and steps of its line.
_FOLLOW, _BAR = 60.0, 30
_DOCUMENT_COLUMNS = ("document", "size", "published", "author", "held by", "applied by")
_FILE_COLUMNS = ("rendered file", "path", "state", "error")
#: What of the status is shown on a terminal.
_HEAD = ("node", "state", "agent", "plane", "kernel", "members", "documents", "storage")
_NOBODY: dict[str, Any] = {"members": 0, "confirmed": 0, "results": []}


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    top = commands.add_parser("top", help="a live view of the cluster", parents=[common])
    top.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="(default: %(default)s)")
    top.add_argument("--once", action="store_true", help="print it once")
    top.set_defaults(handler=run_top)


class _Publish:
    """The last publish: how many members hold it and have applied it, and when that was."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.began = time.monotonic()
        self.members = self.held = self.applied = 0
        self.renders = False
        self.refused: list[str] = []
        self.took: float | None = None

    def note(self, found: dict[str, Any]) -> None:
        """Take an answer about who holds and who applied it."""
        results = found["results"]
        self.members = found["members"]
        self.held = sum(bool(result["holds"]) for result in results)
        states = [_applied(result) for result in results]
        self.renders = any(state != "none" for state in states)
        self.applied = found["confirmed"]
        self.refused = [
            f"{result['name'] or tables.address(result)}: {result['reason']}"
            for result, state in zip(results, states)
            if result["holds"] and state == "failed"
        ]
        settled = self.applied + states.count("failed") >= self.members or not self.renders
        if self.took is None and self.held == self.members and settled:
            self.took = time.monotonic() - self.began

    def lines(self) -> list[str]:
        """What is shown of it."""
        document = self.document
        what = "deleted" if document["deleted"] else "published"
        seconds = self.took if self.took is not None else time.monotonic() - self.began
        lines = [f"{document['key']} {what}: {_bar(self.held, self.members)} hold it"]
        if self.renders:
            lines.append(f"{'':{len(document['key']) + len(what) + 2}} {_bar(self.applied, self.members)} applied it")
        lines[-1] += f", after {seconds:.1f} s" if self.took is not None else f", {seconds:.0f} s"
        return lines + [f"refused by {text}" for text in self.refused[:4]]


def _bar(count: int, of: int) -> str:
    filled = _BAR * count // of if of else 0
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {count} of {of}"


def _applied(result: dict[str, Any]) -> str:
    return str(result.get("applied", {}).get("state", "none"))


async def _holders(client: Client, document: dict[str, Any]) -> dict[str, Any]:
    """Who holds a version and has applied it; nobody has applied that it was deleted."""
    from ..api.client import ApiError

    deleted = document["deleted"]
    try:
        return await client.convergence(
            document["key"], version=document["version"], deleted=deleted, applied=not deleted
        )
    except ApiError:  # the pekonode wire has no such question
        return _NOBODY


class _View:
    """What one look at the agent found."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.nodes: list[dict[str, Any]] = []
        self.documents: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.held: dict[str, dict[str, Any]] = {}
        self.publish: _Publish | None = None

    async def look(self, client: Client) -> None:
        """Ask for everything. Who holds a document is asked again only when that may have changed."""
        import asyncio

        before = self.status.get("digest"), [node["digest"] for node in self.nodes]
        self.status, nodes, self.files = await asyncio.gather(client.status(), client.nodes("all"), client.rendered())
        self.nodes = nodes["nodes"]
        if before[0] != self.status["digest"]:
            documents = (await client.documents())["documents"]
            documents.sort(key=lambda document: str(document["version"]), reverse=True)
            self.documents = documents[:_DOCUMENTS]
        if before != (self.status["digest"], [node["digest"] for node in self.nodes]) or self._open():
            answers = await asyncio.gather(*(_holders(client, one) for one in self.documents))
            self.held = {one["key"]: found for one, found in zip(self.documents, answers)}

    def _open(self) -> bool:
        return any(found["confirmed"] < found["members"] for found in self.held.values())

    def rows(self) -> list[list[Any]]:
        """The documents as rows of a table."""
        rows = []
        for one in self.documents:
            found = self.held.get(one["key"], _NOBODY)
            results = found["results"]
            held = f"{sum(bool(result['holds']) for result in results)} of {found['members']}"
            states = [state for state in map(_applied, results) if state != "none"]
            applied = f"{states.count('applied')} of {len(states)}" if states else ""
            if refused := states.count("failed"):
                applied += f", {refused} refused"
            rows.append([one["key"], f"{one['size']} B", one["published_at"], one["author"], held, applied])
        return rows

    def file_rows(self) -> list[list[Any]]:
        """The rendered files of this host as rows."""
        return [[one["name"], one["path"], one["state"], one["error"]] for one in self.files]


def run_top(args: argparse.Namespace) -> int:
    """Show everything once, or on a terminal again and again."""
    import asyncio  # 50 ms, which --help need not pay

    async def work(client: Client) -> int:
        view = _View()
        await view.look(client)
        if args.once or wants_json(args) or not sys.stdout.isatty():
            found = {
                "status": view.status,
                "nodes": view.nodes,
                "documents": view.documents,
                "templates": view.files,
            }
            output(args, found, lambda: _print(view))
            return OK
        from rich.live import Live

        # Drawn only when there is something new, instead of rich's own thread doing it four times a second.
        with Live(_screen(view), screen=True, auto_refresh=False) as live:
            async with _following(client, view) as changed:
                while True:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(changed.wait(), max(0.1, args.interval))
                    changed.clear()
                    await view.look(client)
                    live.update(_screen(view), refresh=True)

    return call(args, work)


@contextlib.asynccontextmanager
async def _following(client: Client, view: _View) -> AsyncIterator[asyncio.Event]:
    """Follow publishes in the background; the event is set when there is something new to be drawn."""
    import asyncio

    changed = asyncio.Event()
    tasks = [asyncio.ensure_future(_watch(client, view, changed))]
    try:
        yield changed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(client: Client, view: _View, changed: asyncio.Event) -> None:
    import asyncio

    since: int | None = None
    follower: asyncio.Future[None] | None = None
    try:
        while True:
            found = await client.watch(since, 0.0 if since is None else 30.0)
            since = found["revision"]
            documents = [change["document"] for change in found["changes"] if change["kind"] == "document"]
            if not documents:
                continue
            if follower is not None:
                follower.cancel()
            view.publish = _Publish(documents[-1])
            follower = asyncio.ensure_future(_follow(client, view.publish, changed))
    finally:
        if follower is not None:
            follower.cancel()


async def _follow(client: Client, publish: _Publish, changed: asyncio.Event) -> None:
    import asyncio

    while publish.took is None and time.monotonic() - publish.began < _FOLLOW:
        publish.note(await _holders(client, publish.document))
        changed.set()
        await asyncio.sleep(0.1)


def _print(view: _View) -> None:
    tables.show_pairs(summary(view.status))
    print()
    tables.show(tables.NODE_COLUMNS, tables.node_rows(view.nodes, view.status["digest"]))
    for columns, rows in ((_DOCUMENT_COLUMNS, view.rows()), (_FILE_COLUMNS, view.file_rows())):
        if rows:
            print()
            tables.show(columns, rows)


def _screen(view: _View) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Table(box=None, pad_edge=False, show_header=False)
    for name, value in summary(view.status).items():
        if name not in _HEAD or (name == "storage" and value == "ok"):
            continue  # a terminal has 24 lines
        head.add_row(Text(name, style="bold"), Text(tables.printable(value)))
    parts: list[Any] = [head, Text("")]
    if view.publish is not None:
        parts += [*(Text(tables.printable(line)) for line in view.publish.lines()), Text("")]
    parts.append(tables.rich_table(tables.NODE_COLUMNS, tables.node_rows(view.nodes, view.status["digest"])))
    for columns, rows in ((_DOCUMENT_COLUMNS, view.rows()), (_FILE_COLUMNS, view.file_rows())):
        if rows:
            parts += [Text(""), tables.rich_table(columns, rows)]
    return Group(*parts, Text("\nCtrl-C ends", style="dim"))
