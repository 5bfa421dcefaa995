# SPDX-License-Identifier: MIT
"""``watch`` and ``top``: what goes on, as it goes on."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, call, output, wants_json
from .nodes import summary

if TYPE_CHECKING:
    from ..api.client import Client

_POLL = 30.0


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    watch = commands.add_parser("watch", help="print changes of documents and nodes", parents=[common])
    watch.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only documents whose key begins so")
    watch.add_argument("--since", metavar="REVISION", type=int, help="begin after this revision (default: now)")
    watch.add_argument("--count", metavar="N", type=int, help="end after N changes")
    watch.add_argument("--timeout", metavar="SECONDS", type=float, help="end after so long (default: never)")
    watch.add_argument("--documents", action="store_true", help="no changes of nodes")
    watch.set_defaults(handler=run_watch)

    top = commands.add_parser("top", help="a live view of the cluster", parents=[common])
    top.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="(default: %(default)s)")
    top.add_argument("--once", action="store_true", help="print it once")
    top.set_defaults(handler=run_top)


def _line(change: dict[str, Any]) -> str:
    if change["kind"] == "document":
        document = change["document"]
        what = f"{document['key']} {document['version']} ({document['size']} bytes)"
    else:
        node = change["node"]
        what = f"{tables.address(node)} {node['name']} ({node['state']})"
    return tables.printable(f"{change['revision']} {change['kind']} {change['event']}: {what}")


def run_watch(args: argparse.Namespace) -> int:
    """Print changes, one a line, until the count or the time is reached."""

    async def work(client: Client) -> int:
        deadline = None if args.timeout is None else time.monotonic() + args.timeout
        since, printed = args.since, 0
        while True:
            left = _POLL if deadline is None else min(_POLL, max(0.0, deadline - time.monotonic()))
            found = await client.watch(since, left, args.prefix)
            if found["gap"]:
                print("xdp-gossip: changes were missed, read the lists again", file=sys.stderr)
            for change in found["changes"]:
                if args.documents and change["kind"] != "document":
                    continue
                print(json.dumps(change) if wants_json(args) else _line(change), flush=True)
                printed += 1
                if printed == args.count:
                    return OK
            since = found["revision"]
            if deadline is not None and time.monotonic() >= deadline:
                return OK

    return call(args, work)


def run_top(args: argparse.Namespace) -> int:
    """Show status and nodes, again and again on a terminal."""

    import asyncio  # 50 ms, which --help need not pay

    async def look(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
        status, nodes = await asyncio.gather(client.status(), client.nodes("all"))
        return status, nodes

    async def work(client: Client) -> int:
        status, nodes = await look(client)
        if args.once or wants_json(args) or not sys.stdout.isatty():
            rows = tables.node_rows(nodes["nodes"], status["digest"])

            def text() -> None:
                tables.show_pairs(summary(status))
                print()
                tables.show(tables.NODE_COLUMNS, rows)

            output(args, {"status": status, "nodes": nodes["nodes"]}, text)
            return OK
        from rich.live import Live

        # Drawn only when there is something new, instead of rich's own thread doing it four times a second.
        with Live(_screen(status, nodes), screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(max(0.1, args.interval))
                status, nodes = await look(client)
                live.update(_screen(status, nodes), refresh=True)

    return call(args, work)


def _screen(status: dict[str, Any], nodes: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Table(box=None, pad_edge=False, show_header=False)
    for name, value in summary(status).items():
        head.add_row(Text(name, style="bold"), Text(tables.printable(value)))
    rows = tables.node_rows(nodes["nodes"], status["digest"])
    return Group(head, Text(""), tables.rich_table(tables.NODE_COLUMNS, rows), Text("\nCtrl-C ends", style="dim"))
