# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source for ansible-rulebook: what happens in a fleet, as any one member sees it."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import typing as t

DOCUMENTATION = r"""
---
author: XDP Gossip contributors (@xdp-gossip)
short_description: What happens to the hosts and documents of a fleet
description:
  - Tells rulebooks when hosts join, fall silent, die, come back, leave or say something else of themselves, when
    documents are changed or deleted, and when all hosts hold the same documents or no longer do.
  - Waits at one member of the fleet, the first of I(endpoints) that answers, and goes to the next when that one fails.
    A member that is asked tells changes at once; nothing is polled while nothing happens.
  - Each change of state is told at least once, also over lost connections, restarts of the agent and the change to
    another member, because what members list is compared with what was told. Changes that undo each other before they
    are looked at are not told.
  - What nodes and publishers write is data. Text that Ansible would take for a template is withheld; I(withheld) of the
    event lists the fields. Never put text of an event into a shell command.
requirements:
  - aiohttp, which ansible-rulebook brings along
options:
  endpoints:
    description:
      - Where members of the fleet listen, in the order in which they are asked. C(unix:///path), C(http://host:port)
        or C(https://host:port); without a port, 8001 is used.
    type: list
    elements: str
    default: ["unix:///run/xdp-gossip/api.sock"]
  token:
    description:
      - The agents' API token. Needed over TCP, never sent over a Unix socket. Excludes I(token_file).
    type: str
  token_file:
    description:
      - File that holds the token on one line. It is read again whenever a connection is lost.
    type: str
  ca_path:
    description:
      - File or directory with the certificates (PEM) of the authorities that may vouch for the agents.
        Without it, the system's authorities count.
    type: str
  client_cert:
    description:
      - Certificate (PEM) to show to the agents; it may contain the key too.
    type: str
  client_key:
    description:
      - Private key (PEM) of I(client_cert).
    type: str
  validate_certs:
    description:
      - Whether the certificate of a C(https://) endpoint must be valid and name its host.
    type: bool
    default: true
  timeout:
    description:
      - Seconds within which a member must have answered completely, connection included. The time that I(poll) waits on
        purpose comes on top.
    type: float
    default: 10
  events:
    description:
      - The types of events wanted. All by default.
    type: list
    elements: str
    choices: [join, recover, suspect, dead, leave, update, document_changed, document_deleted, convergence_reached,
      convergence_lost, fleet_unreachable, fleet_reachable]
  states:
    description:
      - Of events about nodes, only those after which the node is in one of these states. All by default.
    type: list
    elements: str
    choices: [alive, suspect, dead, left]
  prefix:
    description:
      - Of events about documents, only those whose key starts with this.
    type: str
    default: ""
  initial:
    description:
      - Whether what is there at the start is told too, as events with I(initial) true. A rulebook that was not running
        for a while learns in this way what it missed.
    type: bool
    default: false
  settle:
    description:
      - Seconds for which hosts may hold different documents, or no member may answer, before that is told. A
        publish needs a moment to arrive everywhere, and that is no loss of convergence.
    type: float
    default: 5
  poll:
    description:
      - Seconds, 1 to 60, for which a member is asked to wait for a change. A member whose machine dies without
        closing the connection is noticed after this and I(timeout).
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
    """Let the collection that this file is part of be imported.

    ansible-rulebook runs an event source as a file of its own, outside any package. The collection's modules beside it
    can then be found only by where the file is. Raises ``ImportError`` when that is no installed collection.
    """
    # Not the real path: a checkout that is linked into a collections directory has its place there.
    root, found, _rest = os.path.abspath(file).rpartition(os.sep + os.path.join("ansible_collections", ""))
    if not found:
        raise ImportError(
            f"{file}: expected to be installed as part of the collection xdp_gossip.fleet, below a directory "
            "ansible_collections"
        )
    if root not in sys.path:
        sys.path.insert(0, root)
    importlib.invalidate_caches()
    # The package "ansible" brings a directory of that name too, and may have been imported before.
    package = importlib.import_module("ansible_collections")
    place = os.path.join(root, "ansible_collections")
    if place not in package.__path__:
        package.__path__.append(place)


async def main(queue: t.Any, args: dict[str, t.Any]) -> None:
    """Put events into ``queue`` until cancelled.

    ``args`` are those of the documentation above. Raises ``ConfigError`` for one that cannot be used.
    """
    _make_importable(__file__)
    options = importlib.import_module(_OPTIONS).Options(args)
    await importlib.import_module(_WATCHER).Watcher(queue, options).run()


if __name__ == "__main__":

    class _Printer:
        """Stands in for the rules: shows events."""

        async def put(self, event: dict[str, t.Any]) -> None:
            """Print the event."""
            print(event, flush=True)

    # Endpoints on the command line; the token file in the environment, as for the other plugins.
    _arguments = {"endpoints": sys.argv[1:] or None, "token_file": os.environ.get("XDP_GOSSIP_TOKEN_FILE")}
    asyncio.run(main(_Printer(), dict(_arguments, initial=True)))
