#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_node
short_description: Manage one node of a fleet
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Changes a node's name or private data, makes it join other nodes, forget dead nodes, pause or resume its heartbeats,
    or leave the fleet.
  - The module acts on exactly one node, the node at the B(first) of O(endpoints). The module ignores further endpoints,
    because each of them belongs to another node.
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
options:
  name:
    description: Name of the node, at most 255 bytes of text.
    type: raw
  private_data:
    description:
      - Private data of the node, at most 4096 bytes of text. Every member can read the private data.
      - A list or dictionary is converted to JSON, in the same form as in
        O(xdp_gossip.fleet.agent#role:main:xdp_gossip_agent_private_data).
    type: raw
  join:
    description:
      - Addresses of nodes to contact, as V(addr:port). Write IPv6 addresses in O(join) in brackets.
      - If the node already knows all addresses in O(join), the module reports no change.
    type: list
    elements: str
  state:
    description:
      - With O(state=started), the node sends heartbeats. With O(state=stopped), the node sends no heartbeats, so the
        other members will declare the node dead. With O(state=left), the node leaves the cluster.
      - If O(state) is not given, the node's state does not change.
    type: str
    choices: [started, stopped, left]
  forget:
    description:
      - Dead nodes that the node removes from its list, so that they no longer count for V(majority). Each entry is
        C(addr:port), with an IPv6 address in brackets.
      - The task fails for a node that is known and not dead. If the node does not know an entry, the module reports no
        change for this entry.
      - Only this node forgets the entries, and lists a node again as soon as it is heard again. To make all members
        forget a node, run the task on all hosts of the fleet.
    type: list
    elements: str
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_info
"""

EXAMPLES = r"""
- name: Tell the fleet which role this host has
  xdp_gossip.fleet.xdp_gossip_node:
    private_data: {role: db, rack: r7}

- name: Get acquainted with two other nodes
  xdp_gossip.fleet.xdp_gossip_node:
    join:
      - 198.18.0.11:8000
      - "[fd00::12]:8000"

- name: Take this host out of the fleet before its maintenance
  xdp_gossip.fleet.xdp_gossip_node:
    state: left

- name: Forget a host that will never return, on every host on which this task runs
  xdp_gossip.fleet.xdp_gossip_node:
    forget:
      - 198.18.0.99:8000

- name: And back
  xdp_gossip.fleet.xdp_gossip_node:
    state: started
"""

RETURN = r"""
node:
  description:
    - The node's data after the task. In check mode, RV(node) is the node as it would be after the task.
    - RV(node) has at least the fields of an entry of RV(xdp_gossip.fleet.xdp_gossip_info#module:nodes).
  returned: success
  type: dict
  sample:
    addr: 198.18.0.11
    port: 8000
    name: host1
    private_data: ""
    zone: a
    state: alive
    local: true
state:
  description: V(running), V(paused) or V(left).
  returned: success
  type: str
  sample: running
joined:
  description: Number of addresses in O(join) that the node did not know before.
  returned: success
  type: int
  sample: 0
forgotten:
  description: Number of nodes in O(forget) that the node has removed from its list.
  returned: success
  type: int
  sample: 0
endpoint:
  description: Endpoint of the agent that the module used.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description:
    - Contains the endpoint and the reason if the endpoint did not answer a request. RV(failed_endpoints) is empty if
      the endpoint answered the first request.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "unix:///run/xdp-gossip/api.sock", "reason": "No such file or directory"}]
error:
  description:
    - The failure in a form that a playbook can test, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:error).
  returned: failure, when the agent refused the request or did not answer
  type: dict
  sample: {"code": "no_member_answered", "status": null, "details": {}}
"""

import json
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import plain_text
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import FleetModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import STATES, parse_seed
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError, ConfigError

#: Value of the option ``state`` -> (state that the agent reports, API call that causes this state).
STATE = {"started": ("running", "start"), "stopped": ("paused", "stop"), "left": ("left", "leave")}


def seed_of(text: str, option: str = "join") -> tuple[str, int]:
    """Parse the address and port of a node in ``option``. Raises ``ConfigError``."""
    try:
        return parse_seed(text)
    except ValueError:
        raise ConfigError(
            "%s: expected ADDRESS:PORT (an IPv6 address in brackets), got %r" % (option, clip(text))
        ) from None


def text_of_data(field: str, value: t.Any) -> str:
    """Convert a list, a dictionary or a boolean to JSON, in the same form as the role ``agent``. Return text
    unchanged.
    """
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list, bool)) else plain_text(field, value)


def update(module: FleetModule, fleet: Fleet) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """Change the node's name and private data. Returns the node before and after the change."""
    before = fleet.local_node()
    wanted = {}
    if module.params["name"] is not None:
        wanted["name"] = plain_text("name", module.params["name"])
    if module.params["private_data"] is not None:
        wanted["private_data"] = text_of_data("private_data", module.params["private_data"])
    wanted = {field: text for field, text in wanted.items() if before.get(field) != text}
    if not wanted:
        return before, before
    if module.check_mode:
        return before, dict(before, **wanted)
    return before, fleet.update_node(wanted, json.dumps(wanted).encode("utf-8"))


def join(module: FleetModule, fleet: Fleet) -> int:
    """Make the node contact the addresses in ``join``. Returns the number of addresses that the node did not know
    before. In check mode, the function contacts no address and only counts the addresses that the node does not know.
    """
    seeds = sorted({seed_of(text) for text in module.params["join"] or []})
    if not seeds:
        return 0
    known = {(node["addr"], node["port"]) for node in fleet.nodes(STATES)[0]}
    new = [seed for seed in seeds if seed not in known]
    if module.check_mode or not new:
        return len(new)
    nodes = [_shown(addr, port) for addr, port in new]
    return fleet.join(json.dumps({"nodes": nodes}).encode("utf-8"))


def forget(module: FleetModule, fleet: Fleet) -> int:
    """Make the node forget the dead nodes in ``forget``. Returns the number of nodes that were known. In check mode,
    the function only counts them. Raises ``ConfigError`` for a node that is not dead.
    """
    wanted = sorted({seed_of(text, "forget") for text in module.params["forget"] or []})
    if not wanted:
        return 0
    states = {(node["addr"], node["port"]): node["state"] for node in fleet.nodes(STATES)[0]}
    known = [node for node in wanted if node in states]
    for node in known:
        if states[node] != "dead":
            raise ConfigError("forget: expected dead nodes, %s is %s" % (_shown(*node), states[node]))
    if not module.check_mode:
        for node in known:
            fleet.forget(_shown(*node))
    return len(known)


def _shown(addr: str, port: int) -> str:
    return "%s:%d" % ("[%s]" % addr if ":" in addr else addr, port)


def move(module: FleetModule, fleet: Fleet) -> tuple[str, str]:
    """Make the node resume or pause its heartbeats, or leave the fleet. Returns the node's state before and after the
    change.
    """
    before = str(fleet.status().get("state"))
    if module.params["state"] is None:
        return before, before
    wanted, verb = STATE[module.params["state"]]
    if before == wanted or module.check_mode:
        return before, wanted
    return before, str(fleet.move(verb).get("state"))


def steer(module: FleetModule, fleet: Fleet) -> dict[str, t.Any]:
    """Apply the options for name, private data, join and state to the node. Returns the module's results."""
    node_before, node = update(module, fleet)
    # A node that has left must start again before it can contact other nodes.
    first = module.params["state"] == "started"
    states = move(module, fleet) if first else None
    joined = join(module, fleet)
    forgotten = forget(module, fleet)
    state_before, state = states or move(module, fleet)
    fields = ("name", "private_data")
    before = dict({field: node_before.get(field) for field in fields}, state=state_before)
    after = dict({field: node.get(field) for field in fields}, state=state)
    result: dict[str, t.Any] = {
        "changed": bool(joined or forgotten) or before != after,
        "node": node,
        "state": state,
        "joined": joined,
        "forgotten": forgotten,
    }
    if module._diff:
        counts = {"joined": joined, "forgotten": forgotten}
        result["diff"] = {"before": before, "after": dict(after, **{name: n for name, n in counts.items() if n})}
    return result


def main() -> None:
    module = FleetModule(
        argument_spec={
            "name": {"type": "raw"},
            "private_data": {"type": "raw", "no_log": False},
            "join": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": sorted(STATE, reverse=True)},
            "forget": {"type": "list", "elements": "str"},
        },
        required_one_of=[("name", "private_data", "join", "state", "forget")],
    )
    try:
        result = steer(module, module.open_fleet(first_only=True))
    except ClientError as exc:
        module.fail(exc)
    module.succeed(**result)


if __name__ == "__main__":
    main()
