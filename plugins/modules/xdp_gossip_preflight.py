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
  - This module is part of the role P(xdp_gossip.fleet.agent#role).
  - Reports all obstacles to a deployment in one run. Changes nothing.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.attributes
options:
  addr:
    description: Address at which other nodes reach this node.
    type: str
    required: true
  listen:
    description: Address that the agent binds. If the address is empty, the agent binds all addresses.
    type: str
    default: ""
  port:
    description: Port of the node, for both UDP and TCP.
    type: int
    required: true
  api_addr:
    description: Address that the agent's API binds. If the address is empty, the agent has no API over TCP.
    type: str
    default: ""
  api_port:
    description: Port of the API.
    type: int
    default: 8001
  others:
    description: Whether the fleet has hosts other than this host.
    type: bool
    default: false
  seeds:
    description:
      - Addresses or names of other nodes, each with a port. RV(answering) lists the entries of O(seeds) that accept a
        connection.
    type: list
    elements: str
    default: []
  command:
    description: Path of the link to the command C(xdp-gossip).
    type: path
    required: true
  root:
    description: Directory in which the agent's releases are installed.
    type: path
    required: true
  config_dir:
    description: Directory of the agent's configuration and secrets.
    type: path
    required: true
  unit:
    description: Name of the agent's systemd unit.
    type: str
    required: true
  interface:
    description: Network interface of the kernel data plane; if empty, the interface that has the node's address.
    type: str
    default: ""
  templates:
    description: The role's C(xdp_gossip_agent_templates), without the text of their C(content).
    type: list
    elements: raw
    default: []
  secrets:
    description: Secrets that the host should have. If the host has secrets and O(secrets) contains none of them, the
      module reports a problem.
    type: list
    elements: str
    default: []
  cluster:
    description: Name of the cluster, on which the fingerprints of keys depend.
    type: str
    default: ""
  former:
    description: Fingerprints of former keys of the fleet. A host that has only former keys is no problem, see
      RV(outdated).
    type: list
    elements: str
    default: []
  all_known:
    description: Whether a key on the host that is in neither O(secrets) nor O(former) is a problem, even if the host
      also has one of O(secrets).
    type: bool
    default: false
  authority:
    description: Certificate of the fleet's authority (PEM). If the host has the certificate of an authority other than
      O(authority), the module reports a problem.
    type: str
    default: ""
  tls_cert:
    description: Path of the API's certificate file, if this file is already on the host.
    type: path
  tls_key:
    description: Path of the file with the private key of O(tls_cert), if this file is already on the host.
    type: path
  replace_secrets:
    description: Whether the host may have secrets or an authority that differ from those on the controller. With
      O(replace_secrets=true), the module accepts any secrets and any authority that are on the host.
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
  description: The value of O(addr).
  type: str
  returned: success
port:
  description: The value of O(port).
  type: int
  returned: success
problems:
  description: Obstacles to a deployment, one sentence each.
  type: list
  elements: str
  returned: success
answering:
  description: The entries of O(seeds) that accept a connection.
  type: list
  elements: str
  returned: success
deployed:
  description: Whether the host already has secrets of a fleet.
  type: bool
  returned: success
outdated:
  description: Fingerprint of the host's key, if the host has only former keys of the fleet; otherwise empty.
  type: str
  returned: success
installed:
  description: Whether the host has a release of the agent.
  type: bool
  returned: success
wire:
  description: The wire version of the installed release, or V(unknown). RV(wire) is empty if no release is installed.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _preflight


def main() -> None:
    """Inspect the host and end the module with the result."""
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
            "cluster": {"type": "str", "default": ""},
            "former": {"type": "list", "elements": "str", "default": []},
            "all_known": {"type": "bool", "default": False},
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
