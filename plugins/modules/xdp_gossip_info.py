#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_info
short_description: Read a fleet's members, documents and status from one member
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Reads what one member knows of the fleet. Changes nothing.
  - Names and private data come from the members themselves. Treat them as untrusted text.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
attributes:
  idempotent:
    support: N/A
    details: Changes nothing.
options:
  gather:
    description: What to read.
    type: list
    elements: str
    choices: [status, nodes, documents, rendered]
    default: [status, nodes, documents]
  states:
    description: Return members in one of these states.
    type: list
    elements: str
    choices: [alive, suspect, dead, left]
    default: [alive, suspect]
  prefix:
    description: Return only documents whose key begins with this.
    type: str
    default: ""
  history:
    description: Names of documents whose versions to return, without their content, as RV(history).
    type: list
    elements: str
    default: []
  history_diffs:
    description: Return with each version how its content differs from the one before it.
    type: bool
    default: false
seealso:
  - plugin: xdp_gossip.fleet.metadata
    plugin_type: lookup
  - plugin: xdp_gossip.fleet.nodelist
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Ask the agent of this host
  xdp_gossip.fleet.xdp_gossip_info:
  register: fleet

- name: This host's agent sees itself and at least one other member
  ansible.builtin.assert:
    that:
      - fleet.status.state == 'running'
      - fleet.nodes | length > 1

- name: List the documents below app/
  xdp_gossip.fleet.xdp_gossip_info:
    gather: [documents]
    prefix: app/
"""

RETURN = r"""
status:
  description: The member's own status, as the agent's API gives it.
  returned: O(gather) contains V(status)
  type: dict
  sample:
    version: 0.1.0
    cluster: default
    state: running
    members: {alive: 3, suspect: 0, dead: 0, left: 0}
nodes:
  description: The NodeList, sorted by address and port.
  returned: O(gather) contains V(nodes)
  type: list
  elements: dict
  contains:
    addr:
      description: Address.
      type: str
      returned: always
    port:
      description: Gossip port.
      type: int
      returned: always
    name:
      description: Name that the node gives itself.
      type: str
      returned: always
    private_data:
      description: Private data of the node.
      type: str
      returned: always
    state:
      description: What the member that was asked holds it to be.
      type: str
      returned: always
    incarnation:
      description: Grows with every start of the node.
      type: int
      returned: always
    sequence:
      description: Grows with every heartbeat.
      type: int
      returned: always
    version:
      description: Version of its agent.
      type: str
      returned: always
    protocol:
      description: Its data plane.
      type: str
      returned: always
    last_heard:
      description: Seconds since it was heard; 0 for the member itself.
      type: float
      returned: always
    digest:
      description: Digest of all documents that it holds.
      type: str
      returned: always
    local:
      description: Whether it is the member that was asked.
      type: bool
      returned: always
    record_known:
      description: Whether its name and private data have arrived yet.
      type: bool
      returned: always
documents:
  description: The documents, without their content.
  returned: O(gather) contains V(documents)
  type: list
  elements: dict
  contains:
    key:
      description: Name.
      type: str
      returned: always
    version:
      description: Version.
      type: str
      returned: always
    digest:
      description: SHA-256 of the content.
      type: str
      returned: always
    size:
      description: Bytes of the content.
      type: int
      returned: always
    content_type:
      description: What kind of content it is.
      type: str
      returned: always
    author:
      description: Who published it.
      type: str
      returned: always
    comment:
      description: Why it was published.
      type: str
      returned: always
    published_at:
      description: When, by the clock of the publisher (UTC).
      type: str
      returned: always
    deleted:
      description: Whether it is a tombstone.
      type: bool
      returned: always
    expires:
      description: When it will be gone (UTC); V(null) for never.
      type: str
      returned: always
    batch_size:
      description: How many documents were published at once, this one among them. They have one C(version).
      type: int
      returned: always
rendered:
  description: The files that the agent of this member makes of documents.
  returned: O(gather) contains V(rendered)
  type: list
  elements: dict
  sample: []
history:
  description:
    - For each name in O(history) the versions that the member has, newest first, described as RV(documents) are, with
      C(diff) where O(history_diffs) asks for it.
  returned: O(history) is not empty
  type: dict
  sample: {}
digest:
  description: Digest over all documents of the member that was asked.
  returned: O(gather) contains V(documents)
  type: str
  sample: 3b1f0c5d2a998877
endpoint:
  description: The member that was asked; the first of O(endpoints) when none answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Each endpoint that did not answer, and why.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description:
    - What a program can tell the failure by, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:error).
  returned: failure, when a member refused the request or none answered
  type: dict
  sample: {"code": "no_member_answered", "status": null, "details": {}}
"""

import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import FleetModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import STATES
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError


def gather(module: FleetModule, fleet: Fleet) -> dict[str, t.Any]:
    """Read what was asked for."""
    wanted = module.params["gather"]
    result: dict[str, t.Any] = {}
    if "status" in wanted:
        result["status"] = fleet.status()
    if "nodes" in wanted:
        result["nodes"], problems = fleet.nodes(module.params["states"])
        for problem in problems:
            module.warn(problem)
    if "documents" in wanted:
        result.update(fleet.documents(module.params["prefix"]))
    if "rendered" in wanted:
        result["rendered"] = fleet.rendered()
    if module.params["history"]:
        diff = module.params["history_diffs"]
        result["history"] = {key: fleet.history(check_key(key), diff=diff) for key in module.params["history"]}
    return result


def main() -> None:
    parts = ["status", "nodes", "documents"]
    module = FleetModule(
        argument_spec={
            "gather": {"type": "list", "elements": "str", "choices": parts + ["rendered"], "default": parts},
            "states": {"type": "list", "elements": "str", "choices": list(STATES), "default": ["alive", "suspect"]},
            "prefix": {"type": "str", "default": ""},
            "history": {"type": "list", "elements": "str", "default": []},
            "history_diffs": {"type": "bool", "default": False},
        }
    )
    try:
        result = gather(module, module.open_fleet())
    except ClientError as exc:
        module.fail(exc)
    module.succeed(changed=False, **result)


if __name__ == "__main__":
    main()
