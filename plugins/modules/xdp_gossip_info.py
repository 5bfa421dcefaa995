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
  - Reads the members, documents and status of a fleet from the first member that answers. Changes nothing.
  - Each member chooses its own name, private data and zone. Treat names, private data and zones as untrusted text.
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
    description: States of the members to return.
    type: list
    elements: str
    choices: [alive, suspect, agent_down, dead, left]
    default: [alive, suspect]
  prefix:
    description: Return only documents whose key begins with O(prefix).
    type: str
    default: ""
  history:
    description: Names of documents. RV(history) returns the versions of these documents, without the content of each
      version.
    type: list
    elements: str
    default: []
  history_diffs:
    description: For each version in RV(history), return the difference between its content and the content of the
      version before it.
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

- name: Name the nodes of zone a
  ansible.builtin.debug:
    msg: "{{ fleet.nodes | selectattr('zone', 'equalto', 'a') | map(attribute='name') }}"

- name: List the documents below app/
  xdp_gossip.fleet.xdp_gossip_info:
    gather: [documents]
    prefix: app/
"""

RETURN = r"""
status:
  description: The member's own status, as the agent's API returns it.
  returned: O(gather) contains V(status)
  type: dict
  sample:
    version: 0.1.0
    cluster: default
    state: running
    members: {alive: 3, suspect: 0, agent_down: 0, dead: 0, left: 0}
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
      description: State of the node according to the asked member.
      type: str
      returned: always
    incarnation:
      description: Incarnation of the node, a number that grows with every start of the node.
      type: int
      returned: always
    sequence:
      description: Sequence number of the node, which grows with every heartbeat.
      type: int
      returned: always
    version:
      description: Version of the node's agent.
      type: str
      returned: always
    protocol:
      description: Data plane that the node uses.
      type: str
      returned: always
    zone:
      description:
        - Zone of the node, from the node's configuration (O(xdp_gossip.fleet.agent#role:main:xdp_gossip_agent_zone)).
        - C(zone) is empty if the node has no zone, if the asked member has not received the node's zone, or if the
          asked member's release does not know zones.
      type: str
      returned: always
    sealing:
      description:
        - Fingerprint of the key with which the node opens sealed documents, as the node says.
        - C(sealing) is empty if the node has no such key, or if the asked member has not received it.
      type: str
      returned: always
    last_heard:
      description: Seconds since the asked member last received news of the node. C(last_heard) is 0 for the asked
        member itself.
      type: float
      returned: always
    digest:
      description: Digest over all documents of the node.
      type: str
      returned: always
    local:
      description: Whether the node is the asked member itself.
      type: bool
      returned: always
    record_known:
      description: Whether the asked member has received the node's name, private data and zone.
      type: bool
      returned: always
isolated:
  description: Whether the asked member is isolated, which means that no other member answers it, so that the states in
    RV(nodes) may be wrong.
  returned: O(gather) contains V(nodes)
  type: bool
  sample: false
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
      description: Type of the content.
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
      description: Time of the publish, by the clock of the publisher (UTC).
      type: str
      returned: always
    deleted:
      description: Whether the version of the document is a tombstone.
      type: bool
      returned: always
    expires:
      description: Time at which members delete the document (UTC). C(expires) is V(null) if the document never expires.
      type: str
      returned: always
    batch_size:
      description:
        - Number of documents that were published in the same request as this document, including this document. All
          documents that were published in one request have the same C(version).
      type: int
      returned: always
    signed_by:
      description: Who signed the document, see RV(xdp_gossip.fleet.xdp_gossip_verify#module:signed_by). C(signed_by) is
        V(null) for a document without a signature.
      type: dict
      returned: always
rendered:
  description: The files that the asked member's agent renders from documents.
  returned: O(gather) contains V(rendered)
  type: list
  elements: dict
  sample: []
history:
  description:
    - For each name in O(history), the versions that the asked member has, newest first. Each version in RV(history) has
      the same fields as an entry of RV(documents). With O(history_diffs), a version also has the field C(diff).
  returned: O(history) is not empty
  type: dict
  sample: {}
digest:
  description: Digest over all documents of the asked member.
  returned: O(gather) contains V(documents)
  type: str
  sample: 3b1f0c5d2a998877
endpoint:
  description: Endpoint of the member that answered, or the first of O(endpoints) if no member answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Endpoints that did not answer, each with the reason.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description:
    - The failure in a form that a playbook can test, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:error).
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
    """Read from one member the data that the options ``gather`` and ``history`` select. Raises ``ClientError``."""
    wanted = module.params["gather"]
    result: dict[str, t.Any] = {}
    if "status" in wanted:
        result["status"] = fleet.status()
    if "nodes" in wanted:
        result["nodes"], problems = fleet.nodes(module.params["states"])
        result["isolated"] = fleet.isolated
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
