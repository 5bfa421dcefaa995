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
  - Reports to rulebooks when hosts join, fall silent, die, come back, leave or change their name or private data, when
    documents are changed or deleted, and when all hosts hold the same documents or no longer do.
  - Waits at one member of the fleet, the first of I(endpoints) that answers, and moves to the next if that one fails.
    The member reports changes at once; the source does not poll while nothing happens.
  - Each change of state is reported at least once, also across lost connections, restarts of the agent and a move to
    another member, because the source compares the members' lists with what it has reported. Changes that undo each
    other between two looks are not reported.
  - Data of nodes and publishers is untrusted. Text that Ansible would evaluate as a template is withheld; I(withheld)
    of the event lists the fields. Never put text of an event into a shell command.
requirements:
  - aiohttp, on which ansible-rulebook depends
options:
  endpoints:
    description:
      - Endpoints of members of the fleet, tried in this order. C(unix:///path), C(http://host:port)
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
      - File or directory with the certificates (PEM) of the authorities that may sign the agents' certificates.
        The default is the system's authorities.
    type: str
  client_cert:
    description:
      - Client certificate (PEM); the file may also contain the key.
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
      - Seconds for the complete answer of a member, including the connection. The time that I(poll) waits on purpose is
        added.
    type: float
    default: 10
  events:
    description:
      - Types of events to report. All by default.
    type: list
    elements: str
    choices: [join, recover, suspect, dead, leave, update, document_changed, document_deleted, convergence_reached,
      convergence_lost, fleet_unreachable, fleet_reachable]
  states:
    description:
      - Report an event about a node only if the node is in one of these states afterwards. All by default.
    type: list
    elements: str
    choices: [alive, suspect, dead, left]
  prefix:
    description:
      - Report an event about a document only if its key starts with this.
    type: str
    default: ""
  initial:
    description:
      - Whether to report the state at the start, too, as events with I(initial) true. A rulebook that was not running
        for a while learns from these what it missed.
    type: bool
    default: false
  settle:
    description:
      - Seconds for which hosts may hold different documents, or no member may answer, before that is reported. A
        publish needs a moment to arrive everywhere, which is no loss of convergence.
    type: float
    default: 5
  poll:
    description:
      - Seconds, 1 to 60, that one request waits for a change. If a member's machine dies without closing the
        connection, that is noticed after this and I(timeout).
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
