#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_key_gate
short_description: Wait until the whole fleet is ready for the next step of a rotation
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - For a rotation of the cluster key, asks the agent of this host over its Unix socket for the keys of all nodes, until
    each node that has not left shows the keys that O(step) requires, or O(timeout) seconds have passed. Nodes that are
    dead or not in the inventory count, too, because they would be locked out.
  - With O(step=reload), waits until the agent of this host has applied its configuration file.
  - Changes nothing. If a node does not show the keys, the module succeeds, and RV(unmet) says which node and why.
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
  step:
    description:
      - V(start) requires that each node has only the key O(current), active. V(stage) requires the key O(next), staged
        or active. V(activate) requires the key O(next), active, and that the packets of living nodes are signed with
        it. V(retire) requires that each node has only the key O(next), active.
      - V(reload) requires that the agent's configuration file has no error, and that the agent has applied all settings
        that a reload applies.
    type: str
    choices: [start, stage, activate, retire, reload]
    required: true
  current:
    description: Fingerprint of the key before the rotation.
    type: str
    default: ""
  next:
    description: Fingerprint of the key after the rotation.
    type: str
    default: ""
  known:
    description: Fingerprints of all keys that the controller knows. A node with another key stops the rotation.
    type: list
    elements: str
    default: []
  gone:
    description: Addresses (C(addr:port)) or names of nodes that the operator has given up. They do not count if they
      are dead.
    type: list
    elements: str
    default: []
  lost_next:
    description: Whether V(start) accepts keys that the controller does not know if they are only staged.
    type: bool
    default: false
  timeout:
    description: Maximum number of seconds to wait.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Wait until the agent has applied its configuration file
  xdp_gossip.fleet.xdp_gossip_key_gate:
    step: reload
  register: gate
  failed_when: not gate.passed
"""

RETURN = r"""
answered:
  description: Whether the agent answered.
  returned: always
  type: bool
  sample: true
passed:
  description: Whether the rotation may go on.
  returned: always
  type: bool
  sample: false
expected:
  description: What each node must show.
  returned: always
  type: str
  sample: the key 9a3b5c7d1e2f4a6b, staged
unmet:
  description: One sentence for each node that stops the rotation.
  returned: always
  type: list
  elements: str
  sample: ["xg3 (198.18.0.13:8000), dead, shows 1f0c2a4be5d69788 (active)"]
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _key_gate
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import WITNESS_ANSWER, Unanswered, ask

RELOAD = "reload"
#: Seconds between two questions.
PAUSE = 0.5


class NotYet(Exception):
    """Raised if an agent cannot answer for the fleet yet, and may soon."""


def not_applied(found: dict[str, t.Any]) -> list[str]:
    """Return why the agent's configuration file is not in use, from the answer of ``GET /v1/configuration``."""
    told = ["%s: %s" % (found.get("file"), problem) for problem in found.get("problems") or []]
    if found.get("reload"):
        told.append("%s: not yet applied" % ", ".join(map(str, found["reload"])))
    return told


def look(options: dict[str, t.Any]) -> list[str]:
    """Ask the agent once. Returns why the rotation must not go on. Raises ``Unanswered``, ``NotYet`` and
    ``ValueError``.
    """
    if options["step"] == RELOAD:
        return not_applied(ask(options["socket"], "/v1/configuration", WITNESS_ANSWER))
    keys = _key_gate.Keys(options["current"], options["next"], frozenset(options["known"]))
    nodes = ask(options["socket"], "/v1/nodes?state=all", WITNESS_ANSWER).get("nodes")
    if not isinstance(nodes, list):
        raise ValueError("expected a list of nodes")
    told = _key_gate.unmet(nodes, options["step"], keys, options["gone"], options["lost_next"])
    if not told and not ask(options["socket"], "/v1/status", WITNESS_ANSWER).get("caught_up"):
        # It may know a few nodes only, or none but itself, so it cannot answer for the fleet.
        raise NotYet("%s: the agent has just started and does not know the whole fleet yet" % options["socket"])
    return told


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/xdp-gossip/api.sock"},
            "step": {"type": "str", "choices": [*_key_gate.STEPS, RELOAD], "required": True},
            "current": {"type": "str", "default": ""},
            "next": {"type": "str", "default": ""},
            "known": {"type": "list", "elements": "str", "default": []},
            "gone": {"type": "list", "elements": "str", "default": []},
            "lost_next": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    expected = "its configuration, applied"
    if options["step"] != RELOAD:
        keys = _key_gate.Keys(options["current"], options["next"], frozenset())
        expected = _key_gate.expectation(options["step"], keys)
    end = time.monotonic() + options["timeout"]
    answered, told = False, []
    while True:
        waits = options["step"] == RELOAD
        try:
            told = look(options)
            answered = True
        except NotYet as exc:
            answered, waits, told = False, True, [str(exc)]
        except (Unanswered, ValueError) as exc:
            told = [str(exc)]
        # An agent that does not answer is not waited for: another one is asked.
        if not told or time.monotonic() >= end or (not answered and not waits):
            break
        time.sleep(PAUSE)
    module.exit_json(
        changed=False,
        answered=answered,
        passed=answered and not told,
        expected=expected,
        unmet=_key_gate.shortened(told),
    )


if __name__ == "__main__":
    main()
