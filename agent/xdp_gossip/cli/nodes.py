# SPDX-License-Identifier: MIT
"""``members``, ``status``, ``keys`` and ``node``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, USAGE, CommandError, call, output

if TYPE_CHECKING:
    from ..api.client import Client


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    members = commands.add_parser("members", help="list the nodes of the cluster", parents=[common])
    members.add_argument("--all", action="store_true", help="also those that are dead or have left")
    members.set_defaults(handler=run_members)

    status = commands.add_parser("status", help="show the state of the agent", parents=[common])
    status.add_argument("--counters", action="store_true", help="with all counters")
    status.set_defaults(handler=run_status)

    keys = commands.add_parser("keys", help="list the key slots (never a secret)", parents=[common])
    keys.set_defaults(handler=run_keys)

    node = commands.add_parser("node", help="the local node: show, set, join, start, stop, leave")
    actions = node.add_subparsers(metavar="ACTION", required=True)
    actions.add_parser("show", help="show the local node", parents=[common]).set_defaults(handler=run_show)
    change = actions.add_parser("set", help="change what the node says of itself", parents=[common])
    change.add_argument("--name", metavar="NAME")
    change.add_argument("--private-data", metavar="TEXT")
    change.set_defaults(handler=run_set)
    join = actions.add_parser("join", help="contact other nodes", parents=[common])
    join.add_argument("nodes", metavar="ADDRESS:PORT", nargs="+")
    join.set_defaults(handler=run_join)
    for operation, text in (
        ("start", "publish heartbeats again"),
        ("stop", "stop publishing heartbeats"),
        ("leave", "tell the others that this node goes"),
    ):
        action = actions.add_parser(operation, help=text, parents=[common])
        action.set_defaults(handler=run_switch, operation=operation)


def run_members(args: argparse.Namespace) -> int:
    """List the nodes."""

    async def work(client: Client) -> int:
        found = await client.nodes("all" if args.all else None)
        rows = tables.node_rows(found["nodes"], found["digest"])
        output(args, found, lambda: tables.show(tables.NODE_COLUMNS, rows))
        return OK

    return call(args, work)


def summary(status: dict[str, Any]) -> dict[str, object]:
    """The lines of ``status``."""
    node, members = status["node"], status["members"]
    plane = status.get("dataplane")
    return {
        "node": f"{node['name']} ({tables.address(node)})",
        "cluster": status["cluster"],
        "state": status["state"],
        **({"waiting for": status["waiting"]} if status.get("waiting") else {}),
        **({"catch-up": status["catching_up"]} if status.get("catching_up") else {}),
        "agent": f"{status['version']}, up {tables.ago(status['uptime'])}",
        "wire": status["wire"],
        "plane": f"{status['mode']} ({status['mode_reason'] or 'asked for: ' + status['protocol']})",
        **({"kernel": _kernel(plane)} if plane else {}),
        "members": ", ".join(f"{count} {state}" for state, count in members.items()),
        "documents": f"{status['documents']} (state {status['digest']})",
        "timing": f"cycle {status['cycle']:g} s, timeout {status['timeout']:g} s, fan-out {status['amount']}",
        "clock": f"{status['clock_offset']:+.3f} s to the cluster",
        "storage": status.get("storage_error") or "ok",
    }


def _kernel(plane: dict[str, Any]) -> str:
    """What the data plane did since it was put up."""
    counters = plane["counters"]

    def total(prefix: str) -> int:
        return sum(count for name, count in counters.items() if name.startswith(prefix))

    taken = total("take_") - counters["take_newcomer"]  # which are counted by their type too
    return f"{taken} rumors taken, {counters['relay']} relayed, {total('drop_')} dropped on {plane['interface']}"


def run_status(args: argparse.Namespace) -> int:
    """Show the state of the agent."""

    async def work(client: Client) -> int:
        status = await client.status()

        def text() -> None:
            tables.show_pairs(summary(status))
            if args.counters:
                print()
                tables.show_pairs(status["counters"])

        output(args, status, text)
        return OK

    return call(args, work)


def run_keys(args: argparse.Namespace) -> int:
    """List the key slots."""

    async def work(client: Client) -> int:
        keys = await client.keys()
        output(
            args, {"keys": keys}, lambda: tables.show(("slot", "state"), [[key["id"], key["state"]] for key in keys])
        )
        return OK

    return call(args, work)


def run_show(args: argparse.Namespace) -> int:
    """Show the local node."""

    async def work(client: Client) -> int:
        node = await client.node()
        output(args, node, lambda: tables.show_pairs(node))
        return OK

    return call(args, work)


def run_set(args: argparse.Namespace) -> int:
    """Change the local node."""
    if args.name is None and args.private_data is None:
        raise CommandError("node set: expected --name, --private-data or both, got neither", USAGE)

    async def work(client: Client) -> int:
        node = await client.update_node(name=args.name, private_data=args.private_data)
        output(args, node, lambda: tables.show_pairs(node))
        return OK

    return call(args, work)


def run_join(args: argparse.Namespace) -> int:
    """Contact other nodes."""

    async def work(client: Client) -> int:
        added = await client.join(args.nodes)
        output(args, {"added": added}, lambda: print(f"{added} of {len(args.nodes)} were not present yet"))
        return OK

    return call(args, work)


def run_switch(args: argparse.Namespace) -> int:
    """Start, stop or leave."""

    async def work(client: Client) -> int:
        answer = await client.switch(args.operation)
        output(args, answer, lambda: print(f"{answer['state']}{'' if answer['changed'] else ' (as before)'}"))
        return OK

    return call(args, work)
