# SPDX-License-Identifier: MIT
"""``top``: a live view of the cluster."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, call, output, wants_json
from .nodes import summary

if TYPE_CHECKING:
    from ..api.client import Client


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    top = commands.add_parser("top", help="a live view of the cluster", parents=[common])
    top.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="(default: %(default)s)")
    top.add_argument("--once", action="store_true", help="print it once")
    top.set_defaults(handler=run_top)


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
