# SPDX-License-Identifier: MIT
"""``rendered`` and ``files-helper``: the rendered files of this host, and the helper that writes them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import tables
from .common import DEFAULT_CONFIG, OK, call, output

if TYPE_CHECKING:
    from ..api.client import Client


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    rendered = commands.add_parser("rendered", help="list the rendered files and their state", parents=[common])
    rendered.set_defaults(handler=run_rendered)

    helper = commands.add_parser("files-helper", help="run the privileged helper for rendered files", parents=[common])
    helper.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help=f"(default: {DEFAULT_CONFIG})")
    helper.set_defaults(handler=run_helper)


def run_rendered(args: argparse.Namespace) -> int:
    """List the rendered files."""

    async def work(client: Client) -> int:
        found = await client.rendered()
        rows = [
            [
                *(entry[name] for name in ("name", "path", "state", "since", "changed")),
                ": ".join(filter(None, (entry["error"], entry.get("output")))),
            ]
            for entry in found
        ]
        columns = ("name", "path", "state", "since", "changed", "error")
        output(args, {"templates": found}, lambda: tables.show(columns, rows))
        return OK

    return call(args, work)


def run_helper(args: argparse.Namespace) -> int:
    """Serve the agent until SIGTERM; 2 when the configuration is wrong, 1 when it cannot listen."""
    from .. import logs
    from ..fileshelper import server
    from ..systemd import Systemd

    logs.configure("info", "text")
    return server.main(args.config, Systemd().tell)
