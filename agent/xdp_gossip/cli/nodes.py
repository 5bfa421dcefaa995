# SPDX-License-Identifier: MIT
"""The commands ``members``, ``status``, ``keys`` and ``node``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import tables
from .common import OK, USAGE, CommandError, answer, call, output
from .parser import add_command, some_text
from .text import printable

if TYPE_CHECKING:
    from ..api.client import Client


#: The states of the nodes that ``members`` lists by default. Operators must reach the hosts whose agents are down.
_LISTED = "alive,suspect,agent_down"
#: Number of names that ``keys`` prints for each key; ``--json`` has all.
_NAMES = 5


def register(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser."""
    members = add_command(
        commands,
        "members",
        "list the nodes of the cluster",
        "List the nodes as the agent sees them: state, last sign of life, and whether a node has the same documents.",
        ["xdp-gossip members", "xdp-gossip members --all --json", "xdp-gossip members --zone paris --zone lyon"],
        common,
    )
    members.add_argument("--all", action="store_true", help="also list nodes that died or left")
    members.add_argument(
        "--zone",
        metavar="ZONE",
        action="append",
        help="list only the nodes of this zone ('': the nodes without a zone); several: repeat, or separate by commas",
    )
    members.set_defaults(handler=run_members)

    forget = add_command(
        commands,
        "forget",
        "forget a dead node",
        "Remove a dead node from the agent's list of nodes, so that it no longer counts for --wait majority. Only the "
        "asked agent forgets the node, and lists it again as soon as it is heard again.",
        ["xdp-gossip forget 198.18.0.12:8000", "xdp-gossip forget web7"],
        common,
    )
    text = "address and port of the node, or its name or address if only one node has it"
    forget.add_argument("node", metavar="NODE", type=some_text, help=text)
    forget.set_defaults(handler=run_forget)

    status = add_command(
        commands,
        "status",
        "show the state of the agent",
        "Show the state of the agent: its mode, members, documents, timing, clock and storage.",
        ["xdp-gossip status", "xdp-gossip status --counters"],
        common,
    )
    status.add_argument("--counters", action="store_true", help="also show all counters")
    status.set_defaults(handler=run_status)

    keys = add_command(
        commands,
        "keys",
        "list the keys of this node (never a secret)",
        "List the keys of this node by fingerprint, and which members have each. No secret is ever shown.",
        ["xdp-gossip keys"],
        common,
    )
    keys.set_defaults(handler=run_keys)

    node = add_command(
        commands,
        "node",
        "the local node: show, set, join, start, stop, leave",
        "Show or change the local node of the agent.",
        ["xdp-gossip node show", "xdp-gossip node join 198.18.0.12:8000"],
    )
    actions = node.add_subparsers(metavar="ACTION", required=True)
    show = add_command(
        actions,
        "show",
        "show the local node",
        "Show the local node as other nodes see it.",
        ["xdp-gossip node show"],
        common,
    )
    show.set_defaults(handler=run_show)
    change = add_command(
        actions,
        "set",
        "change the node's name or private data",
        "Change the name or the private data of the local node, until the agent restarts.",
        ["xdp-gossip node set --name web1 --private-data 'rack 7'"],
        common,
    )
    change.add_argument("--name", metavar="NAME", help="the name that other nodes see, up to 255 bytes")
    change.add_argument("--private-data", metavar="TEXT", help="text that other nodes see, for purposes of your own")
    change.set_defaults(handler=run_set)
    join = add_command(
        actions,
        "join",
        "contact other nodes",
        "Contact nodes until they answer, and so join their cluster.",
        ["xdp-gossip node join 198.18.0.12:8000 '[fd00::12]:8000'"],
        common,
    )
    join.add_argument(
        "nodes", metavar="ADDRESS:PORT", type=some_text, nargs="+", help="IP address (IPv6 in brackets) and gossip port"
    )
    join.set_defaults(handler=run_join)
    for operation, text, description in (
        ("start", "publish heartbeats again", "Publish heartbeats again after stop or leave."),
        (
            "stop",
            "stop publishing heartbeats",
            "Stop publishing heartbeats. Other nodes list the node as dead after their timeout.",
        ),
        ("leave", "leave the cluster", "Leave the cluster. Other nodes list the node as left at once."),
    ):
        action = add_command(actions, operation, text, description, [f"xdp-gossip node {operation}"], common)
        action.set_defaults(handler=run_switch, operation=operation)


def run_members(args: argparse.Namespace) -> int:
    """List the nodes."""

    def text(found: dict[str, Any]) -> None:
        tables.show(*tables.node_table(tables.local_first(found["nodes"]), found["digest"]), args)

    zone = None if args.zone is None else ",".join(args.zone)
    return answer(args, lambda client: client.nodes("all" if args.all else _LISTED, zone=zone), text)


def run_forget(args: argparse.Namespace) -> int:
    """Remove a dead node from the agent's list of nodes."""

    def text(node: dict[str, Any]) -> None:
        print(f"forgotten: {printable(node['name'] or 'no name')} ({tables.address(node)})")

    return answer(args, lambda client: client.forget(args.node), text)


def summary(status: dict[str, Any]) -> dict[str, object]:
    """Return the fields that the command ``status`` prints: label -> value."""
    node, members = status["node"], status["members"]
    plane = status.get("dataplane")
    return {
        "node": f"{node['name']} ({tables.address(node)})",
        "cluster": status["cluster"],
        **({"zone": node["zone"]} if node.get("zone") else {}),
        "state": status["state"],
        **({"keys": "no common key; a rotation may have been missed"} if status.get("missed_rotation") else {}),
        **({"isolated": "no other member answers this one; look at its network"} if status.get("isolated") else {}),
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
    """Return a line with the numbers of packets that the kernel data plane has handled since it was loaded."""
    counters = plane["counters"]

    def total(prefix: str) -> int:
        return sum(count for name, count in counters.items() if name.startswith(prefix))

    # take_newcomer is subtracted, because another take_ counter counts the same rumors
    taken = total("take_") - counters["take_newcomer"]
    return f"{taken} rumors taken, {counters['relay']} relayed, {total('drop_')} dropped on {plane['interface']}"


def run_status(args: argparse.Namespace) -> int:
    """Show the state of the agent."""

    def text(status: dict[str, Any]) -> None:
        tables.show_pairs(summary(status))
        if args.counters:
            print()
            tables.show_pairs(status["counters"])

    return answer(args, lambda client: client.status(), text)


def _holders(fingerprint: str, nodes: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The names of the other members that have the key ``fingerprint``, and of those that lack it."""
    found: dict[str, list[str]] = {"have": [], "lack": []}
    for node in nodes:
        has = any(key["fingerprint"] == fingerprint for key in node["keys"])
        found["have" if has else "lack"].append(node["name"] or f"{node['addr']}:{node['port']}")
    return found


def _count_and_names(names: list[str]) -> str:
    """The number of ``names`` and the first few of them."""
    shown = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
    return f"{len(names)} ({shown})" if names else "0"


def run_keys(args: argparse.Namespace) -> int:
    """List the keys of this node, and which members have each."""

    async def work(client: Client) -> int:
        keys = await client.keys()
        nodes = [node async for node in client.each_node(_LISTED) if not node["local"] and node.get("keys")]
        found = [{**key, "members": _holders(key["fingerprint"], nodes)} for key in keys]

        def text() -> None:
            heads = ("key", "id", "state", "members that have it", "members that lack it")
            rows = [
                [one["fingerprint"], one["id"], one["state"], *map(_count_and_names, one["members"].values())]
                for one in found
            ]
            tables.show(heads, rows, args)

        output(args, {"keys": found}, text)
        return OK

    return call(args, work)


def run_show(args: argparse.Namespace) -> int:
    """Show the local node as the agent reports it."""
    return answer(args, lambda client: client.node(), tables.show_pairs)


def run_set(args: argparse.Namespace) -> int:
    """Change the name or private data of the local node."""
    if args.name is None and args.private_data is None:
        raise CommandError("node set: expected --name, --private-data or both, got neither", USAGE)
    changed = {"name": args.name, "private_data": args.private_data}
    return answer(args, lambda client: client.update_node(**changed), tables.show_pairs)


def run_join(args: argparse.Namespace) -> int:
    """Make the agent contact other nodes."""

    async def work(client: Client) -> int:
        added = await client.join(args.nodes)
        output(args, {"added": added}, lambda: print(f"{added} of {len(args.nodes)} were not present yet"))
        return OK

    return call(args, work)


def run_switch(args: argparse.Namespace) -> int:
    """Run ``node start``, ``node stop`` or ``node leave``."""

    def text(found: dict[str, Any]) -> None:
        print(f"{found['state']}{'' if found['changed'] else ' (as before)'}")

    return answer(args, lambda client: client.switch(args.operation), text)
