# SPDX-License-Identifier: MIT
"""The commands ``rendered``, which lists this host's rendered files, and ``files-helper``, which writes rendered
files.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, call, output
from .parser import add_command, add_config

if TYPE_CHECKING:
    from ..api.client import Client


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands ``rendered`` and ``files-helper`` to the parser."""
    rendered = add_command(
        commands,
        "rendered",
        "list the rendered files and their state",
        "List the files that this host renders from documents: state, time of the last change, error.",
        ["xdp-gossip rendered", "xdp-gossip rendered --wide"],
        common,
    )
    rendered.set_defaults(handler=run_rendered)

    helper = add_command(
        commands,
        "files-helper",
        "run the privileged helper for rendered files",
        "As root: run the helper that puts rendered files in place for the agent, as xdp-gossip-files.service does.",
        ["xdp-gossip files-helper --config /etc/xdp-gossip/agent.yml"],
        common,
    )
    add_config(helper)
    helper.set_defaults(handler=run_helper)


def run_rendered(args: argparse.Namespace) -> int:
    """List the rendered files of this host."""

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
        output(args, {"templates": found}, lambda: tables.show(columns, rows, args))
        return OK

    return call(args, work)


def run_helper(args: argparse.Namespace) -> int:
    """Run the files helper until SIGTERM.

    Returns exit code 2 if the configuration is invalid, 1 if the helper cannot listen.
    """
    from ..service import logs
    from ..service.systemd import Systemd
    from ..templates.helper import server

    logs.configure("info", "text")
    return server.main(args.config, Systemd().tell)
