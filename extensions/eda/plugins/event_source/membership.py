# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source for ansible-rulebook. Reports the events of a fleet as one of its members sees them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import typing as t

DOCUMENTATION = r"""
---
author: XDP Gossip contributors (@xdp-gossip)
short_description: Report events about the hosts and documents of a fleet
description:
  - The source reports to rulebooks when hosts join, become suspect, die, lose their agent, recover, leave or change
    their name or private data. The source also reports when documents are changed or deleted, when all hosts have the
    same documents, and when hosts have different documents for a while.
  - The source connects to the first of I(endpoints) that answers. If the member that the source uses fails or is
    isolated, the source connects to the next endpoint. The member reports changes at once, so the source need not poll
    for changes of nodes and documents.
  - The source compares the nodes and documents that a member lists with the events that it has already reported. The
    source therefore reports each change of state at least once, even after a lost connection, a restart of the agent or
    a move to another member. The source does not report a change that was undone before the source compared the lists
    again.
  - If all hosts of a zone are lost, the source reports one event C(zone_lost) with the list of these hosts, instead of
    the events C(suspect), C(agent_down) and C(dead) for each host. The source holds back these events of a host with a
    zone for two seconds, and for up to 30 seconds while at least half of the hosts of the zone are not alive. If
    I(events) does not contain C(zone_lost), the source holds back no events.
  - If the member refuses a document of another member because the document lacks the signature that it needs, the
    source reports C(document_refused). The source reads refusals only from the member's change feed, so it does not
    report a refusal that happened while the source was not connected.
  - Nodes and publishers can write any text into their names, private data and documents. The source removes text that
    Ansible would evaluate as a template. The field I(withheld) of the event lists the paths of the fields whose text
    was removed. Never put text of an event into a shell command.
requirements:
  - aiohttp, on which ansible-rulebook depends
options:
  endpoints:
    description:
      - Endpoints of members of the fleet. The source tries the endpoints in the given order. Each endpoint is
        C(unix:///path), C(http://host:port) or C(https://host:port), with the default port 8001.
    type: list
    elements: str
    default: ["unix:///run/xdp-gossip/api.sock"]
  token:
    description:
      - The agents' API token. The source needs the token for TCP endpoints, and never sends the token over a Unix
        socket. Excludes I(token_file).
    type: str
  token_file:
    description:
      - File that contains the token on one line. The source reads the token file again whenever a connection is lost.
    type: str
  ca_path:
    description:
      - File or directory with the certificates (PEM) of the authorities that may sign the agents' certificates.
        By default, the source trusts the authorities that the operating system trusts.
    type: str
  client_cert:
    description:
      - Client certificate (PEM). The file of the client certificate may also contain the private key.
    type: str
  client_key:
    description:
      - Private key (PEM) of I(client_cert).
    type: str
  validate_certs:
    description:
      - Whether the certificate of a C(https://) endpoint must be valid and contain the endpoint's host name.
    type: bool
    default: true
  timeout:
    description:
      - Seconds within which the source must have connected to a member and received its complete answer. A request for
        changes may take I(poll) seconds longer than I(timeout).
    type: float
    default: 10
  events:
    description:
      - Types of events to report. By default, the source reports events of all types.
    type: list
    elements: str
    choices: [join, recover, suspect, agent_down, dead, leave, update, zone_lost, zone_returned, document_changed,
      document_deleted, document_refused, convergence_reached, convergence_lost, fleet_unreachable, fleet_reachable]
  states:
    description:
      - Report an event about a node only if I(states) contains the node's state after the event. By default, the source
        reports events about nodes in any state.
    type: list
    elements: str
    choices: [alive, suspect, agent_down, dead, left]
  prefix:
    description:
      - Report an event about a document only if the document's key starts with I(prefix).
    type: str
    default: ""
  initial:
    description:
      - Whether to also report all nodes and documents at the start of the source, as events with I(initial) true. A
        rulebook that was not running for a while learns the current state from the events with I(initial) true.
    type: bool
    default: false
  settle:
    description:
      - The source reports an event after hosts have had different documents for I(settle) seconds, or after no member
        has answered for I(settle) seconds. After each publish, it is normal that hosts have different documents for a
        moment.
    type: float
    default: 5
  poll:
    description:
      - The member answers a request for changes at the next change, or after I(poll) seconds (1 to 60) without a
        change. If a member's machine fails without closing the connection, the source detects the failure after I(poll)
        plus I(timeout) seconds.
    type: float
    default: 20
"""

EXAMPLES = r"""
- name: Ask the agent on this machine
  xdp_gossip.fleet.membership:

- name: Ask members over the network, for deaths and for changes of the shop's documents
  xdp_gossip.fleet.membership:
    endpoints:
      - https://198.18.0.11:8001
      - https://198.18.0.12:8001
    ca_path: /etc/ssl/fleet-ca.pem
    token_file: /etc/xdp-gossip/api.token
    events: [dead, document_changed, document_deleted]
    prefix: shop/
"""

_WATCHER = "ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._watcher"
_OPTIONS = "ansible_collections.xdp_gossip.fleet.extensions.eda.plugins.plugin_utils._options"


def _make_importable(file: str) -> None:
    """Let Python import the modules of the collection that contains ``file``.

    ansible-rulebook runs an event source as a single file outside any package, so the source can find the other modules
    of the collection only by the path of ``file``. Raises ``ImportError`` if the file is not in an installed
    collection.
    """
    # Use the path without resolving symbolic links. A checkout may be linked into a collections directory, and only the
    # path of the link contains "ansible_collections".
    root, found, _rest = os.path.abspath(file).rpartition(os.sep + os.path.join("ansible_collections", ""))
    if not found:
        raise ImportError(
            f"{file}: expected to be installed as part of the collection xdp_gossip.fleet, below a directory "
            "ansible_collections"
        )
    if root not in sys.path:
        sys.path.insert(0, root)
    importlib.invalidate_caches()
    # The package "ansible" also contains a package ansible_collections, which another module may have imported already.
    package = importlib.import_module("ansible_collections")
    place = os.path.join(root, "ansible_collections")
    if place not in package.__path__:
        package.__path__.append(place)


async def main(queue: t.Any, args: dict[str, t.Any]) -> None:
    """Put the events of the fleet into ``queue`` until the task is cancelled.

    ``args`` are the options in DOCUMENTATION. Raises ``ConfigError`` if an option cannot be used.
    """
    _make_importable(__file__)
    options = importlib.import_module(_OPTIONS).Options(args)
    await importlib.import_module(_WATCHER).Watcher(queue, options).run()


if __name__ == "__main__":

    class _Printer:
        """Prints each event. Replaces the queue of ansible-rulebook."""

        async def put(self, event: dict[str, t.Any]) -> None:
            """Print the event."""
            print(event, flush=True)

    # A user who runs this file as a script gives the endpoints on the command line, and the path of the token file in
    # the environment.
    _arguments = {"endpoints": sys.argv[1:] or None, "token_file": os.environ.get("XDP_GOSSIP_TOKEN_FILE")}
    asyncio.run(main(_Printer(), dict(_arguments, initial=True)))
