#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_preflight
short_description: Inspect a host before the agent is deployed to it
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Part of the role P(xdp_gossip.fleet.agent#role).
  - Says everything that stands in the way of a deployment at once, and changes nothing.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.attributes
options:
  addr:
    description: Address of the node, as others reach it.
    type: str
    required: true
  listen:
    description: Address that the agent binds, empty for all.
    type: str
    default: ""
  port:
    description: Port of the node, UDP and TCP.
    type: int
    required: true
  api_addr:
    description: Address that the API binds, empty for no API over TCP.
    type: str
    default: ""
  api_port:
    description: Port of the API.
    type: int
    default: 8001
  others:
    description: Whether the fleet has other hosts.
    type: bool
    default: false
  seeds:
    description: Addresses and names of others, each with a port. Those that accept a connection are returned.
    type: list
    elements: str
    default: []
  command:
    description: Path of the link to the command.
    type: path
    required: true
  root:
    description: Directory of the releases.
    type: path
    required: true
  config_dir:
    description: Directory of configuration and secrets.
    type: path
    required: true
  unit:
    description: The agent's unit.
    type: str
    required: true
  interface:
    description: Interface of the kernel data plane, empty for the address's own.
    type: str
    default: ""
  templates:
    description: The role's C(xdp_gossip_agent_templates), without the text of their C(content).
    type: list
    elements: raw
    default: []
  secrets:
    description: The secrets that the host is to have. A host that has others only is refused.
    type: list
    elements: str
    default: []
  authority:
    description: The certificate authority of the fleet, PEM. A host that has another is refused.
    type: str
    default: ""
  tls_cert:
    description: Path on the host of a certificate for the API that is there already.
    type: path
  tls_key:
    description: Path on the host of its key.
    type: path
  replace_secrets:
    description: Accept a host that has other secrets.
    type: bool
    default: false
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_secrets
"""

EXAMPLES = r"""
- name: Look at the host
  xdp_gossip.fleet.xdp_gossip_preflight:
    addr: 198.18.0.11
    port: 8000
    command: /usr/local/bin/xdp-gossip
    root: /opt/xdp-gossip
    config_dir: /etc/xdp-gossip
    unit: xdp-gossip.service
  register: preflight
"""

RETURN = r"""
addr:
  description: As given.
  type: str
  returned: success
port:
  description: As given.
  type: int
  returned: success
problems:
  description: What stands in the way, a sentence each.
  type: list
  elements: str
  returned: success
answering:
  description: The entries of O(seeds) that accept a connection.
  type: list
  elements: str
  returned: success
deployed:
  description: Whether the host has a fleet's secrets.
  type: bool
  returned: success
installed:
  description: Whether the host has a release of the agent.
  type: bool
  returned: success
wire:
  description: The wire version of that release, or V(unknown); empty without one.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _preflight


def main() -> None:
    """Look, and answer."""
    module = AnsibleModule(
        argument_spec={
            "addr": {"type": "str", "required": True},
            "listen": {"type": "str", "default": ""},
            "port": {"type": "int", "required": True},
            "api_addr": {"type": "str", "default": ""},
            "api_port": {"type": "int", "default": 8001},
            "others": {"type": "bool", "default": False},
            "seeds": {"type": "list", "elements": "str", "default": []},
            "command": {"type": "path", "required": True},
            "root": {"type": "path", "required": True},
            "config_dir": {"type": "path", "required": True},
            "unit": {"type": "str", "required": True},
            "interface": {"type": "str", "default": ""},
            "templates": {"type": "list", "elements": "raw", "default": []},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "authority": {"type": "str", "default": ""},
            "tls_cert": {"type": "path"},
            "tls_key": {"type": "path", "no_log": False},
            "replace_secrets": {"type": "bool", "default": False, "no_log": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **_preflight.look(module.params, lambda words: module.run_command(words)[:2]))


if __name__ == "__main__":
    main()
