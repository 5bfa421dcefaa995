#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_gate
short_description: Wait until the agent of this host runs and lists other members as alive
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Asks the agent of this host over its Unix socket until the agent runs, has the version O(agent_version), and lists
    at least O(others) other members as alive. Changes nothing.
  - If the agent does not meet the conditions within O(retries) attempts, the module fails and shows the agent's last
    answers and the journal of its units.
  - This module is part of the role P(xdp_gossip.fleet.agent#role), which sets all options.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.attributes
attributes:
  idempotent:
    support: N/A
    details: Changes nothing.
options:
  socket:
    description: Unix socket of the agent.
    type: path
    default: /run/xdp-gossip/api.sock
  agent_version:
    description: Version that the agent must have.
    type: str
    required: true
  above:
    description:
      - The agent's incarnation must be later than O(above). V(-1) accepts any incarnation. An agent that was restarted
        has a later incarnation than before.
    type: int
    default: -1
  others:
    description: Minimum number of other members that must be alive in the agent's NodeList.
    type: int
    default: 0
  retries:
    description: The module asks at most O(retries) times whether the agent runs, and then at most O(retries) times
      whether the agent's NodeList contains O(others) other members that are alive.
    type: int
    default: 40
  delay:
    description: Seconds between two questions.
    type: int
    default: 1
  units:
    description: Units whose journal the error message shows.
    type: list
    elements: str
    default: [xdp-gossip.service]
"""

EXAMPLES = r"""
- name: Wait until the agent runs and sees another member
  xdp_gossip.fleet.xdp_gossip_gate:
    agent_version: 0.1.0
    others: 1
"""

RETURN = r"""
gate:
  description:
    - The outcome. C(passed) says whether the agent fulfils all conditions. If C(passed) is V(false), C(unmet) names a
      condition that the agent does not fulfil. C(status) is the agent's status. C(others) is the number of other
      members that are alive in the agent's NodeList, and C(alive) contains up to 20 of their names.
  returned: always
  type: dict
  sample: {"passed": true, "unmet": "", "status": {"state": "running"}, "others": 1, "alive": ["host2"]}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Gate
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host import Host
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._host_units import journal

_LINES = 60


def asked(question: t.Callable[[], bool], retries: int, delay: int) -> bool:
    """Call ``question`` until it returns true, up to ``retries`` times with ``delay`` seconds between two calls. Return
    whether ``question`` returned true.
    """
    for rest in reversed(range(max(1, retries))):
        if question():
            return True
        if rest:
            time.sleep(delay)
    return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/xdp-gossip/api.sock"},
            "agent_version": {"type": "str", "required": True},
            "above": {"type": "int", "default": -1},
            "others": {"type": "int", "default": 0},
            "retries": {"type": "int", "default": 40},
            "delay": {"type": "int", "default": 1},
            "units": {"type": "list", "elements": "str", "default": ["xdp-gossip.service"]},
        },
        supports_check_mode=True,
    )
    options = module.params
    gate = Gate(dict(options, version=options["agent_version"]))
    often = (options["retries"], options["delay"])
    if not (asked(gate.runs, *often) and asked(gate.sees, *often)):
        lines = [
            "expected a running agent of version %s that sees %d other member(s), got none after"
            % (options["agent_version"], options["others"]),
            "%d questions with %d s between them." % often,
            "Unmet: %s" % gate.unmet,
            "Status: %s" % (gate.status or "none"),
            "Alive: %s" % ", ".join(gate.told()["alive"]),
            "Journal:",
            journal(Host(module), options["units"], _LINES),
        ]
        module.fail_json(msg="\n".join(lines), gate=gate.told())
    module.exit_json(changed=False, gate=gate.told())


if __name__ == "__main__":
    main()
